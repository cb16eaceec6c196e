"""Fixtures of the tests that train."""

import pytest


@pytest.fixture
def without_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what a run shows at its end: drawing it takes longer than the training."""
    monkeypatch.setattr("coreai_opt.training.summary.show_result", lambda *_, **__: None)
