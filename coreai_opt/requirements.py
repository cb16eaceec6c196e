"""Requirements of ``train.py`` beyond those of the library, the callbacks and the plugin."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["TRAIN", "missing_for_training", "release_of", "require_train"]

TRAIN: Mapping[str, str] = {
    "pytorch-lightning": ">=2.6.4,<2.7",
    "hydra-core": ">=1.3.8,<1.4",
    "omegaconf": ">=2.3",
    "filelock": ">=4.2",
}
"""The extra ``train``: package -> versions that are allowed."""

INSTALLED = ".dist-info"


def require_train() -> None:
    """Exit with 1 and one sentence where the extra ``train`` is not installed."""
    if missing := missing_for_training():
        sys.exit(
            f"error: training needs {', '.join(missing)}; allowed: "
            "pip install 'hydra-coreai-opt[train]'"
        )


def missing_for_training() -> list[str]:
    """Return what is needed and what is there instead, a clause a package; nothing is imported."""
    # importlib.metadata takes 0.1 s for this, and every command begins with it.
    listed = dict(_listed())
    missing = []
    for name, allowed in TRAIN.items():
        there = listed.get(name.replace("-", "_")) or _looked_up(name)
        if there is None:
            missing.append(f"{name}{allowed} (not installed)")
        elif not _allows(allowed, there):
            missing.append(f"{name}{allowed} ({there} is installed)")
    return missing


def _listed() -> Iterator[tuple[str, str]]:
    """Yield name and version of what is installed, what is imported first last."""
    for folder in map(Path, reversed(sys.path)):
        if folder.is_dir():
            for entry in folder.glob(f"*{INSTALLED}"):
                name, _, version = entry.name.removesuffix(INSTALLED).partition("-")
                yield name.lower(), version


def _looked_up(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def release_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to be compared; one before a release counts as that.

    Example:
        >>> release_of("2.10.1") > release_of("2.6"), release_of("1.4.0rc3")
        (True, (1, 4, 0))
    """
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def _allows(allowed: str, version: str) -> bool:
    """Return whether a version is in a range.

    Example:
        >>> [_allows(">=1.3.8,<1.4", version) for version in ("1.3.2", "1.3.10", "1.4.0rc3")]
        [False, True, False]
    """
    there = release_of(version)
    return all(
        there < release_of(bound.removeprefix("<"))
        if bound.startswith("<")
        else there >= release_of(bound.removeprefix(">="))
        for bound in allowed.split(",")
    )
