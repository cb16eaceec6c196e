"""What cannot be saved or loaded is refused by name, and nothing is changed."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    PruningError,
    load_pruned,
    save_pruned,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import (
    AllocationError,
    DivergedWeightError,
    SavedModelError,
    UninitializedWeightError,
)
from coreai_opt.pruning.spec import NMStructured, PruningSpec
from tests.helpers.pruning import impl, net, original, prepared

HALF = MagnitudePrunerConfig.uniform(0.5)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A saved model: ``net`` at 50 %."""
    save_pruned(prepared(0.5)[1], tmp_path / "saved")
    return tmp_path / "saved"


def refused(model: nn.Module, directory: Path, *arguments: Any) -> SavedModelError:
    """Load, and return the refusal; the model is as it was before."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SavedModelError) as caught:
        load_pruned(model, directory, *arguments)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    return caught.value


@pytest.mark.parametrize("model", [net(), prepared()[0].finalize()], ids=["plain", "finalized"])
def test_a_model_without_masks_is_not_saved(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="carries no mask"):
        save_pruned(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def pruned_weight(model: nn.Module) -> Tensor:
    """A view of a weight that is pruned: NaN there shows nowhere."""
    row, column = (~impl(model).mask).nonzero()[0].tolist()
    return original(model).data[row, column]


@pytest.mark.parametrize(
    ("where", "name"),
    [(pruned_weight, "0.weight"), (lambda model: model[2].bias.data[1], "2.bias")],
    ids=["pruned weight", "bias"],
)
def test_nan_is_not_saved(where: Callable[[nn.Module], Tensor], name: str, tmp_path: Path) -> None:
    _, model = prepared(0.5)
    where(model).fill_(torch.nan)
    with pytest.raises(DivergedWeightError) as caught:
        save_pruned(model, tmp_path / "saved")
    assert caught.value.names == [name]
    assert not (tmp_path / "saved").exists()


def test_a_lazy_layer_is_neither_saved_nor_loaded(directory: Path) -> None:
    model = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.LazyLinear(5))
    with pytest.raises(UninitializedWeightError, match="'2'"):
        load_pruned(model, directory)
    MagnitudePruner(model, MagnitudePrunerConfig().without("2")).prepare()
    with pytest.raises(UninitializedWeightError, match="'2'"):
        save_pruned(model, directory)


def test_a_state_that_is_no_tensor_is_refused_by_name(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 1}

        def set_extra_state(self, state: Any) -> None: ...

    model = MagnitudePruner(nn.Sequential(Counting(4, 4))).prepare()
    with pytest.raises(SavedModelError, match=r"only tensors can be written.*0\._extra_state"):
        save_pruned(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_failed_save_leaves_the_old_files_and_no_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("coreai_opt.pruning.saving.files.json.dumps", full)
    with pytest.raises(OSError, match="No space"):
        save_pruned(prepared(0.9)[1], directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


FILES = ["weights.safetensors", "masks.safetensors", "summary.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, directory: Path) -> None:
    (directory / name).unlink()
    error = refused(net(), directory)
    assert error.path == directory / name
    assert "no such file" in str(error)
    assert isinstance(error, PruningError)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(name: str, kept: float, directory: Path) -> None:
    whole = (directory / name).read_bytes()
    (directory / name).write_bytes(whole[: int(len(whole) * kept)])
    error = refused(net(), directory)
    assert error.path == directory / name
    assert "cannot be read" in str(error)


def content(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        values = json.loads(text)
        change(values)
        return json.dumps(values)

    return changed


MUTATIONS: dict[str, tuple[Callable[[str], str], str]] = {
    "another schema": (content(lambda c: c.update(schema=2)), "its schema is 2; allowed: 1"),
    "no schema": (content(lambda c: c.pop("schema")), "schema"),
    "no tensors": (content(lambda c: c.pop("tensors")), "tensors"),
    "tensors as a list": (content(lambda c: c.update(tensors=[])), "cannot be read"),
    "a field less": (content(lambda c: c["tensors"]["0.weight"].pop("target")), "target"),
    "a field more": (content(lambda c: c["tensors"]["0.weight"].update(x=1)), "'x'"),
    "sparsity 2": (
        content(lambda c: c["tensors"]["0.weight"].update(sparsity=2)),
        "sparsity is 2; allowed: 0 to 1",
    ),
    "sparsity NaN": (
        content(lambda c: c["tensors"]["0.weight"].update(scheduled=float("nan"))),
        "scheduled is nan",
    ),
    "sparsity as text": (
        content(lambda c: c["tensors"]["0.weight"].update(sparsity="all")),
        "cannot be read",
    ),
    "a list": (lambda text: "[1]", "cannot be read"),
    "a tensor less": (content(lambda c: c["tensors"].pop("2.weight")), r"2\.weight"),
    "a tensor more": (
        content(lambda c: c["tensors"].update(other=c["tensors"]["0.weight"])),
        "only one of them knows other",
    ),
}


@pytest.mark.parametrize("change", MUTATIONS)
def test_a_changed_summary_is_refused(change: str, directory: Path) -> None:
    path = directory / "summary.json"
    mutate, message = MUTATIONS[change]
    path.write_text(mutate(path.read_text()))
    error = refused(net(), directory)
    assert error.path == path
    assert re.search(message, str(error))


def test_a_scheme_that_is_not_known_here_is_refused(directory: Path) -> None:
    path = directory / "summary.json"
    path.write_text(path.read_text().replace("unstructured", "hexagons"))
    error = refused(net(), directory)
    assert error.path == path
    assert "the scheme of '0.weight' cannot be built: no PruningScheme" in str(error)


def one_less(mask: Tensor) -> Tensor:
    """A mask that prunes a weight that is there."""
    changed = mask.clone()
    changed.view(-1)[changed.flatten().nonzero()[0]] = False
    return changed


@pytest.mark.parametrize(
    "change",
    [one_less, lambda mask: mask.float(), lambda mask: mask[1:]],
    ids=["another save", "dtype", "shape"],
)
def test_masks_that_do_not_belong_to_the_weights(
    change: Callable[[Tensor], Tensor], directory: Path
) -> None:
    path = directory / "masks.safetensors"
    masks = load_file(path)
    save_file({**masks, "2.weight": change(masks["2.weight"])}, path)
    error = refused(net(), directory)
    assert error.path == path
    assert "'2.weight' is not pruned by this mask" in str(error)


def test_a_mask_of_a_buffer_is_refused(tmp_path: Path) -> None:
    def model() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    save_pruned(MagnitudePruner(model()).prepare(), tmp_path)
    masks = load_file(tmp_path / "masks.safetensors")
    save_file({**masks, "1.running_var": torch.ones(4).bool()}, tmp_path / "masks.safetensors")
    path = tmp_path / "summary.json"
    change = content(lambda c: c["tensors"].update({"1.running_var": c["tensors"]["0.weight"]}))
    path.write_text(change(path.read_text()))
    assert "masks without a parameter: 1.running_var" in str(refused(model(), tmp_path))


def test_another_model_is_refused_with_all_that_differs(directory: Path) -> None:
    other = nn.Sequential(nn.Linear(8, 9), nn.Linear(9, 9), nn.Linear(9, 5, bias=False))
    assert str(refused(other, directory)) == (
        f"{directory / 'weights.safetensors'}: the model is not the one that was saved; "
        "missing in the file: 1.bias, 1.weight; unexpected in the file: 2.bias; "
        "different: 0.weight ([9, 7] float32 in the file, [9, 8] float32 in the model)"
    )
    assert "float64 in the model" in str(refused(net().double(), directory))


def tied(how: bool) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    if how:
        model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize("in_file", [False, True])
def test_other_ties_are_refused(in_file: bool, tmp_path: Path) -> None:
    save_pruned(MagnitudePruner(tied(in_file)).prepare(), tmp_path)
    assert "the model: 0.weight = 1.weight" in str(refused(tied(not in_file), tmp_path))
    load_pruned(tied(in_file), tmp_path)


def test_a_config_that_does_not_fit_is_refused_with_the_names(directory: Path) -> None:
    error = refused(net(), directory, MagnitudePrunerConfig().without("2"))
    assert "it leaves dense with a saved mask: 2.weight" in str(error)
    config = MagnitudePrunerConfig().without("0")
    save_pruned(MagnitudePruner(net(), config).prepare(), directory)
    error = refused(net(), directory, HALF)
    assert "it prunes without a saved mask: 0.weight" in str(error)
    other = MagnitudePrunerConfig().without("2")
    text = str(refused(net(), directory, other))
    assert text == (
        f"{directory}: the config does not fit the saved masks; it prunes without a saved mask: "
        "0.weight; it leaves dense with a saved mask: 2.weight"
    )


def test_what_the_pruner_refuses_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    four = PruningSpec(pruning_scheme=NMStructured(n=2, m=4))
    ramp = PolynomialDecaySchedule(total_iters=4, initial_sparsity=0.5)
    config = MagnitudePrunerConfig.uniform(0.5, ramp)
    config.global_config.op_state_spec = {"*": four}  # type: ignore[union-attr]
    save_pruned(MagnitudePruner(tied(False)).prepare(), tmp_path)
    model = tied(False)
    before = copy.deepcopy(model.state_dict())
    refusing = config.model_copy(update={"allocation": "global"})
    with pytest.raises(AllocationError):
        load_pruned(model, tmp_path, refusing)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    load_pruned(model, tmp_path, config)


def test_a_prepared_model_is_not_loaded_into(directory: Path) -> None:
    with pytest.raises(RuntimeError, match="already been prepared"):
        load_pruned(prepared()[1], directory)


def test_prepare_after_loading_is_refused(directory: Path) -> None:
    with pytest.raises(RuntimeError, match="already been prepared"):
        load_pruned(net(), directory).prepare()
    with pytest.raises(RuntimeError, match="already been prepared"):
        load_pruned(net(), directory).prepare_given([])


def test_a_long_list_of_names_is_cut(tmp_path: Path) -> None:
    many = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(30)))
    save_pruned(MagnitudePruner(many).prepare(), tmp_path)
    assert "1.weight, 10.weight, 11.weight and 26 more" in str(
        refused(nn.Sequential(nn.Linear(2, 2, False)), tmp_path)
    )
