import pytest

from coreai_opt.pruning.masks import masking


@pytest.fixture(params=["as-large", "as-small"])
def any_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take weights of any size as large ones, and then as the small ones that they are."""
    if request.param == "as-large":
        monkeypatch.setattr(masking, "LARGE", 0)
        monkeypatch.setattr(masking, "SMALL", 0)
