"""The pieces of docs/extending.md, put together as the page says, and its commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in BLOCK.finditer(PAGE)]
LINES = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
FILE = re.compile(r"^# (options/[\w/]+\.yaml)", re.MULTILINE)


@pytest.fixture
def extended(work: Path) -> Path:
    """A directory with extras.py and options/."""
    (work / "extras.py").write_text("\n\n".join(text for kind, text in BLOCKS if kind == "python"))
    for kind, text in BLOCKS:
        if kind == "yaml":
            name = FILE.search(text)
            assert name is not None, text
            path = work / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return work


def test_the_page_has_what_it_is_about() -> None:
    assert len([kind for kind, _ in BLOCKS if kind == "python"]) == 6
    assert len(LINES) == 5
    assert all(line.startswith("python train.py ") for line in LINES)


@pytest.mark.parametrize("line", LINES[:-1])
def test_its_commands_compose(extended: Path, line: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--cfg", "job", *shlex.split(line)[2:]],
        cwd=extended,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "_target_: extras.Net" in done.stdout
    assert "_target_: extras.Wine" in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("extended")
def test_all_of_it_is_compared(command: Command) -> None:
    done = command(*shlex.split(LINES[-1])[2:], "trainer.max_epochs=5")
    assert done.returncode == 0, done.stderr
    assert "8 runs, 8 completed" in done.stdout
    # Of the scheme's 32 x 13 and 3 x 32 weights one row each stays: floor(0.9 * 31 * 13) + 57.
    pruned, weights = 362 + 57, 32 * 13 + 3 * 32
    told = f"sparsity {100 * pruned / weights:.2f} % is below the target, 90.00 %"
    assert done.stdout.count(f"{told},") == 4  # the runs; the sweep says it once more of each
    assert done.stdout.count(f"{told}\n") == 4
    assert done.stdout.count(f"sparsity {100 * (374 + 86) / weights:.2f} %") == 4
