"""Locations: the config tree, and paths as a user types them."""

import os
from pathlib import Path


def conf_dir() -> Path:
    """Return the config tree: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"no config tree in {package / 'conf'} or {package.parent / 'conf'}")


def typed_path(text: str) -> Path:
    """Return the absolute path that a user means: from where the command was typed, ``~`` = home.

    Args:
        text: the path as it was typed.
    """
    from hydra.utils import to_absolute_path  # Hydra is slow to import, and --help needs no paths

    # Not Path.expanduser: that one raises where there is no user of the name.
    return Path(to_absolute_path(os.path.expanduser(text)))  # noqa: PTH111


def why_no_file(path: Path) -> str | None:
    """Return what is wrong with a path that should lead to a file, None when it does."""
    try:
        if path.is_file():
            return None
        return "is a directory" if path.is_dir() else "there is no such file"
    except OSError as error:
        return f"cannot be read, {error.strerror}"
