"""The examples, run by the commands that examples/README.md documents."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"

# What the tests beside this file run; tests/documents/test_repository.py compares it with the page.
PLAIN = "python examples/plain_pytorch.py"
TRANSFORMER = "python examples/transformer_finetune.py"
NOTEBOOK = "jupyter execute examples/when_to_prune.ipynb"
COMMANDS = [PLAIN, NOTEBOOK, TRANSFORMER]

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What differs between machines and versions: to be masked where lines are compared.
MEASURED = re.compile(r"(?<=accuracy )\d+\.\d\d%")


def run(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script as its user does, from another directory and with nothing to download."""
    program, script = shlex.split(line)
    assert program == "python"
    # One thread: two trainings with two threads each starve each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / script)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def documented_output(line: str) -> list[str]:
    """Return the lines that the page shows as the output of a command."""
    found = BLOCK.findall((EXAMPLES / "README.md").read_text())
    languages = [language for language, _ in found]
    at = found.index(("bash", f"{line}\n"))
    assert languages[at + 1] == "text"
    return found[at + 1][1].splitlines()


def masked(lines: list[str]) -> list[str]:
    return [MEASURED.sub("_", line) for line in lines]


def accuracies(printed: str) -> dict[str, float]:
    """Return the test accuracies that were printed, in percent, by what they are of."""
    pairs = re.findall(r"^([^:\n]+): test accuracy (\d+\.\d\d)%", printed, re.MULTILINE)
    return {name: float(percent) for name, percent in pairs}
