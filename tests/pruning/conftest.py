from collections.abc import Iterator

import pytest
import torch

from coreai_opt.pruning.masks import masking


@pytest.fixture
def _compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=["as-large", "as-small"])
def any_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take weights of any size as large ones, and then as the small ones that they are."""
    if request.param == "as-large":
        monkeypatch.setattr(masking, "LARGE", 0)
        monkeypatch.setattr(masking, "SMALL", 0)
