"""Private names of other projects: each project has one file that uses them, and no other does."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The seams: what is private in which project is used in which file.
SEAMS = {
    "coreai_opt/config/hydra_internals.py": "Hydra and OmegaConf",
    "coreai_opt/pruning/_torch_internals.py": "torch",
    "coreai_opt/pruning/saving/_coreai_internals.py": "coreai-torch",
    "coreai_opt/sweep/launchers/joblib_launcher.py": "Hydra's joblib launcher",
    "coreai_opt/sweep/launchers/ray_launcher.py": "Hydra's Ray launcher",
    "lightning_callbacks/_lightning_internals.py": "Lightning, torchmetrics and TensorBoard",
    "scripts/benchmarks/gpu_counts.py": "torch, for benchmarks",
}

FOLDERS = ("coreai_opt", "lightning_callbacks", "scripts")
FILES = [
    *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))),
    ROOT / "train.py",
]
OURS = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}

# Documented in spite of their underscore: of named tuples, of os.
PUBLIC = {"_asdict", "_fields", "_make", "_replace", "_exit"}

# Texts that look like a private name and name nothing private: parts of keys in state dicts, of
# file names and of our own entries.
TEXTS = {
    *("_mask", "_orig", "_extra_state", "_order_of_parameters", "_s"),
    *("_at_target", "_last_validated", "_monitors_validation"),
}

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
Use = tuple[int, str]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in {"_", *PUBLIC}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def defined_in(path: Path) -> frozenset[str]:
    """Return the names of functions, classes, variables and own attributes of a file."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
            names.add(node.attr)
    return frozenset(names)


@cache
def defined_anywhere() -> frozenset[str]:
    modules = {part for path in FILES for part in path.relative_to(ROOT).with_suffix("").parts}
    return frozenset(modules).union(*map(defined_in, FILES))


def is_own(node: ast.Attribute) -> bool:
    """Return whether an attribute is looked up on ``self``, ``cls`` or ``super()``."""
    value = node.value
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def foreign_names(path: Path) -> Iterator[Use]:
    """Yield line and name of what a file uses and no file of ours defines.

    An attribute of anything but ``self`` must be defined in the same file: objects of one module
    may know each other, and a name of ours elsewhere may be that of another project here.
    """
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            known = defined_anywhere() if is_own(node) else defined_in(path)
            if is_private(node.attr) and node.attr not in known:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported(node):
                if any(map(is_private, name.split("."))) and name.partition(".")[0] not in OURS:
                    yield node.lineno, name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if NAME.fullmatch(text) and text not in TEXTS:
                # Keys of Hydra's configs end with an underscore: _target_.
                parts = {part for part in text.split(".") if not part.endswith("_")}
                if set(filter(is_private, parts)) - defined_anywhere():
                    yield node.lineno, repr(text)


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level:
        return []  # of our own package
    return [f"{node.module}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_of_other_projects_are_used_in_their_seams_alone(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    used = list(foreign_names(path))
    if name not in SEAMS:
        assert used == [], f"allowed: a function in one of {', '.join(SEAMS)}"


def test_the_seams_are_there_and_are_seams() -> None:
    there = [ROOT / name for name in SEAMS]
    assert all(any(foreign_names(path)) for path in there)


@pytest.mark.parametrize(
    "code",
    [
        "import torch._dynamo",
        "from hydra._internal.utils import run_and_report",
        "from torch import _foreach_mul_",
        "trainer._checkpoint_connector.dump()",
        "tensor._version",
        "setattr(loop, '_restarting', False)",
        "patch('hydra._internal.utils.run')",
    ],
)
def test_each_way_to_a_private_name_is_seen(code: str, tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(code, encoding="utf-8")
    assert len(list(foreign_names(path))) == 1
