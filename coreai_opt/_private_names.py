"""Private names of other projects: looked up once, with the versions known to work in the error.

Each project has one file that uses its private names (tests/documents/test_private_names.py).
"""

from typing import Any


def private_name(owner: Any, name: str, known: str) -> Any:
    """Return an attribute that another project does not promise to keep.

    Args:
        owner: a module, a class or an object of the project.
        name: the attribute, or a dotted path to it.
        known: the versions that have it, for the message.

    Raises:
        ImportError: the project no longer has it; the sentence names the versions that do.

    Example:
        >>> import torch
        >>> private_name(torch, "_foreach_gone", "torch 2.6 to 2.13")
        Traceback (most recent call last):
        ...
        ImportError: torch has no _foreach_gone, a private name that is used here; known to work: \
torch 2.6 to 2.13
    """
    found = owner
    for part in name.split("."):
        if not hasattr(found, part):
            where = getattr(owner, "__name__", type(owner).__name__)
            raise ImportError(
                f"{where} has no {name}, a private name that is used here; known to work: {known}"
            )
        found = getattr(found, part)
    return found
