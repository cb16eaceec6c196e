"""Requirements of ``train.py`` beyond those of the library, the callbacks and the plugin."""

import sys
from collections.abc import Mapping

TRAIN: Mapping[str, str] = {
    "pytorch-lightning": ">=2.6.4,<2.7",
    "hydra-core": ">=1.3.2,<1.5",
    "omegaconf": ">=2.3",
    "filelock": ">=4.2",
}
"""The extra ``train``: package -> versions that are allowed."""


def require_train() -> None:
    """Exit with 1 and one sentence where the extra ``train`` is not installed."""
    if missing := missing_for_training():
        sys.exit(
            f"error: training needs {', '.join(missing)}; allowed: "
            "pip install 'hydra-coreai-opt[train]'"
        )


def missing_for_training() -> list[str]:
    """Return what is needed and what is there instead, a clause a package; nothing is imported."""
    # Not for --help, which is to be fast.
    from importlib.metadata import PackageNotFoundError, version

    from packaging.specifiers import SpecifierSet

    missing = []
    for name, allowed in TRAIN.items():
        try:
            there = version(name)
        except PackageNotFoundError:
            missing.append(f"{name}{allowed} (not installed)")
            continue
        if not SpecifierSet(allowed).contains(there, prereleases=True):
            missing.append(f"{name}{allowed} ({there} is installed)")
    return missing


def release_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to be compared; one before a release counts as that.

    Example:
        >>> release_of("2.10.1") > release_of("2.6"), release_of("1.4.0rc3")
        (True, (1, 4, 0))
    """
    from packaging.version import Version

    return Version(version).release
