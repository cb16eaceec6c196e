"""A store of trunks, and what its tests do with it."""

from pathlib import Path

from coreai_opt.warmup.claim import Claim, Maker
from coreai_opt.warmup.store import Trunk, TrunkStore

ID, OTHER = "0123456789abcdef", "fedcba9876543210"


def write(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def put(store: TrunkStore, made_by: str = "runs/1", id: str = ID) -> Trunk:
    return store.put(id, write, steps=40, seconds=2.5, made_by=made_by)


def not_waiting(maker: Maker) -> None:
    raise AssertionError(f"waits for {maker}")


def claim(store: TrunkStore, id: str = ID) -> Claim:
    got = store.claim(id, not_waiting)
    assert isinstance(got, Claim)
    return got


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())
