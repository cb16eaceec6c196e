"""A store of warm-ups."""

from pathlib import Path

import pytest

from coreai_opt.warmup.store import TrunkStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory for a store of trunks, with a name as people make them."""
    return tmp_path / 'it\'s a=b, ü "é"' / "trunks"


@pytest.fixture
def store(root: Path) -> TrunkStore:
    return TrunkStore(root)
