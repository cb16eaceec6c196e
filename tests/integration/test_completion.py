"""Tab completion in real shells, and what the query behind it says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coreai_opt.config.groups import config_groups
from tests.conftest import ROOT, no_space_in_the_path

BASH = """
eval "$({program} -sc install=bash)"
COMP_LINE="{typed}"
COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=($COMP_LINE)
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
hydra_bash_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "{program} -sc install=fish | source; complete -C '{typed}'"
SCRIPTS = {"bash": BASH, "fish": FISH}


def suggested(typed: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-sc", "query=bash"],
        cwd=folder,
        env={**os.environ, "COMP_LINE": typed, "COMP_POINT": str(len(typed))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert list(folder.iterdir()) == []
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("sched", ["schedule.", "schedule="]),
        ("schedule=", [f"schedule={name}" for name in config_groups()[-2].names()]),
        ("schedule=constant pow", []),
        ("schedule=poly pow", ["power="]),
        ("-m schedule=poly power=", ["power=3.0"]),
        ("model=convnet model.ch", ["model.channels."]),
        ("trainer.max_e", ["trainer.max_epochs="]),
        ("hydra/launcher=jo", ["hydra/launcher=joblib"]),
    ],
)
def test_groups_options_and_keys_are_suggested(
    tmp_path: Path, typed: str, expected: list[str]
) -> None:
    assert suggested(f"python train.py {typed}", tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("program", ["python train.py", "coreai-train"])
@pytest.mark.parametrize("shell", [pytest.param("bash", marks=no_space_in_the_path), "fish"])
def test_a_shell_completes(shell: str, program: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = SCRIPTS[shell].format(program=program, typed=f"{program} schedule=po")
    done = subprocess.run(
        [shell, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "schedule=poly\n", done.stderr
