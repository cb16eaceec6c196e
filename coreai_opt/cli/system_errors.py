"""Errors of the operating system, as a sentence about the file or directory that they are about."""

from collections.abc import Iterable
from pathlib import Path

from coreai_opt.config.errors import ConfigError


def system_error(error: OSError, directories: Iterable[str | Path]) -> ConfigError:
    """Return what to tell the user.

    Args:
        error: what the operating system refused.
        directories: where runs and sweeps of the command are written.

    Example:
        >>> error = PermissionError(13, "Permission denied", "/data/runs")
        >>> print(system_error(error, ["/data/runs/first"]))
        the run directory cannot be written: Permission denied '/data/runs'; allowed: \
paths.output_root=DIR, writable
        >>> print(system_error(error, ["/home/me/outputs"]))
        '/data/runs' cannot be used: Permission denied
        >>> print(system_error(BrokenPipeError(32, "Broken pipe"), []))
        the operating system refuses to go on: Broken pipe
    """
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        sentence = f"the operating system refuses to go on: {reason}"
    elif any(_is_on_the_way(Path(str(error.filename)), Path(one)) for one in directories):
        sentence = (
            f"the run directory cannot be written: {reason} {error.filename!r}; allowed: "
            "paths.output_root=DIR, writable"
        )
    else:
        sentence = f"{error.filename!r} cannot be used: {reason}"
    return ConfigError.of("", sentence)


def _is_on_the_way(path: Path, directory: Path) -> bool:
    """Return whether a path leads to a directory, or into it."""
    path, directory = path.absolute(), directory.absolute()
    return path.is_relative_to(directory) or directory.is_relative_to(path)
