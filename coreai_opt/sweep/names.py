"""Directory names of sweeps and runs: readable, stable, safe on every file system."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 100  # characters of a name
SHORT = 8  # digits of an experiment's hash in the name of its folder

AROUND = re.compile(r"[\[\](){}'\"]+")  # redundant in a name
HARMFUL = re.compile(r"[^A-Za-z0-9._+-]+")


def slug(text: str, longest: int = LONGEST) -> str:
    """Return a text as part of a path: letters, digits and ``._+-``, no dot or sign at its ends.

    Example:
        >>> slug("milestones=[100,200]")
        'milestones-100-200'
        >>> slug("a/b c=../ü")
        'a-b-c'
    """
    return HARMFUL.sub("-", AROUND.sub("", text))[:longest].strip("-._+")


def run_folder(varied: Mapping[str, str], digest: str) -> str:
    """Return the name of a run's folder: its varied values, and its config hash.

    Args:
        varied: key and value of each override that varies.
        digest: the config hash.

    Example:
        >>> run_folder({"total_iters": "400", "power": "2"}, "0123456789abcdef")
        'power-2_total_iters-400_01234567'
    """
    parts = [slug(f"{key}-{value}") for key, value in sorted(varied.items())]
    readable = "_".join(parts)[: LONGEST - SHORT - 1].strip("-._+")
    return "_".join(part for part in (readable, digest[:SHORT]) if part)


def sweep_name(knobs: Sequence[str], common: Mapping[str, Any]) -> str:
    """Return the default name of a sweep: its knobs, and a hash of the common values.

    Args:
        knobs: the keys that vary, in any order.
        common: values that can change the result and are equal in all runs.

    Example:
        >>> sweep_name(["total_iters", "power"], {"seed": 1.0})
        'power-total_iters-8b7c82'
    """
    text = json.dumps([sorted(knobs), common], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    readable = slug("-".join(sorted(knobs)) or "run", LONGEST - len(digest) - 1)
    return f"{readable}-{digest}"
