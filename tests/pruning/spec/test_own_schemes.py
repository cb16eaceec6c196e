"""Schemes of somebody's own: registered under a key, or named by their path."""

import re
from math import floor, prod

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner
from coreai_opt.pruning.errors import UnreachableSparsityWarning, UnsuitableShapeError
from coreai_opt.pruning.masks.of_scores import scheme_mask, unstructured_mask
from coreai_opt.pruning.spec import PruningScheme, PruningSpec
from tests.helpers.pruning.schemes import Index, config


def test_a_scheme_of_ones_own() -> None:
    @PruningScheme.register("first_row_stays")
    class FirstRowStays(PruningScheme):
        def pruned_elements(self, shape: Index, sparsity: float) -> int:
            return floor(prod((shape[0] - 1, *shape[1:])) * sparsity)

        def problem(self, shape: Index) -> str | None:
            return None if shape[0] > 1 else "one row is too few"

    @scheme_mask.register
    def _(scheme: FirstRowStays, values: Tensor, sparsity: float) -> Tensor:
        kept = torch.ones_like(values[:1], dtype=torch.bool)
        return torch.cat([kept, unstructured_mask(values[1:], sparsity)])

    with pytest.warns(UnreachableSparsityWarning, match="50.00% +41.67%"):
        model = MagnitudePruner(nn.Linear(6, 6), config({"type": "first_row_stays"}, 0.5)).prepare()
    mask = model.parametrizations.weight[0].mask
    assert (bool(mask[0].all()), int((~mask).sum())) == (True, 15)
    with pytest.raises(UnsuitableShapeError, match="one row is too few"):
        MagnitudePruner(nn.Linear(6, 1), config(FirstRowStays())).prepare()


class Alternating(PruningScheme):
    """Known to nobody; a config names it by its path."""

    first: int = 0


def test_a_config_names_a_scheme_of_ones_own_by_its_path() -> None:
    path = f"{__name__}.Alternating"
    spec = PruningSpec(pruning_scheme={"type": path, "first": 1})
    assert spec.pruning_scheme == Alternating(first=1)
    assert spec.model_dump()["pruning_scheme"] == {"type": path, "first": 1}
    assert PruningSpec(**spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (
            f"{__name__}.Nothing",
            "cannot be imported: module 'tests.pruning.spec.test_own_schemes' has no",
        ),
        ("no_such_module.Scheme", "cannot be imported: No module named 'no_such_module'"),
        ("torch.nn.Linear", "is no PruningScheme; allowed: unstructured, channel_structured, n_m,"),
        ("..", "cannot be imported"),
    ],
)
def test_a_path_that_leads_to_no_scheme_is_refused(path: str, sentence: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        PruningSpec(pruning_scheme={"type": path})
