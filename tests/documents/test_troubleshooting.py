"""docs/troubleshooting.md: its commands go wrong as the page says, in the same words."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from coreai_opt.report.__main__ import main as report
from coreai_opt.train import main as train
from tests.conftest import ROOT
from tests.helpers.synthetic_records import make_sweep

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
# A command that goes wrong is followed by what it prints; one that helps is not.
SYMPTOM = re.compile(r"^```bash\n([^`]*)^```\n\n```text\n([^`]*)^```", re.MULTILINE)
SYMPTOMS = [(match[1].splitlines(), match[2].splitlines()) for match in SYMPTOM.finditer(PAGE)]
WRONG = [line for lines, _ in SYMPTOMS for line in lines]

# Has been killed once when the page speaks of it.
KILLED = "outputs/mine"

# What builds a model, or imports an app that does.
HEAVY = ("experiment=quick", "digits_app")

# Runs commands as a shell does, and writes down how each ended and what it said.
SHELL = """
import contextlib, io, json, pathlib, runpy, shlex, sys

told = []
for line in sys.argv[1:]:
    words, said, code = shlex.split(line)[1:], io.StringIO(), 0
    is_module = words[0] == "-m"
    sys.argv = words[is_module:]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            run = runpy.run_module if is_module else runpy.run_path
            run(sys.argv[0] if is_module else TRAIN, run_name="__main__")
        except SystemExit as left:
            code = left.code
    told.append((code, said.getvalue()))
pathlib.Path("said.json").write_text(json.dumps(told))
""".replace("TRAIN", repr(str(ROOT / "train.py")))


def symptoms(*programs: str, runs: bool = False) -> list[Any]:
    """Return the symptoms of some programs, heavy ones or the others."""
    return [
        pytest.param(lines, said, id=lines[0])
        for lines, said in SYMPTOMS
        if lines[0].startswith(programs)
        and any(word in lines[0] for word in HEAVY) == runs
        and KILLED not in lines[0]
    ]


def said_in(output: str, lines: list[str]) -> bool:
    """Return whether lines of the page are in an output, in this order."""
    parts = [re.escape(line).replace(re.escape("..."), ".*") for line in lines]
    return re.search(r"(?s:.*?)".join(parts), output) is not None


def test_every_text_of_the_page_has_its_command() -> None:
    assert PAGE.count("```text") == len(SYMPTOMS) >= 20
    headings = re.findall(r"^### .*\n(?:.|\n)*?(?=^##|\Z)", PAGE, re.MULTILINE)
    assert [one for one in headings if not SYMPTOM.search(one)] == []
    assert said_in("a b c\nd 5 e", ["b", "d ... e"])
    assert not said_in("a b c\nd 5 e", ["d ... e", "b"])
    assert not said_in("a\nb", ["a...b"])


@pytest.mark.parametrize(("lines", "said"), symptoms("python train.py"))
def test_what_is_wrong_before_anything_is_built(
    lines: list[str],
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "torchvision" in said[0] and importlib.util.find_spec("torchvision"):
        pytest.skip("torchvision is installed: nothing is missing")
    if "launcher=slurm" in lines[0]:
        pytest.importorskip("submitit", reason="needs the extra slurm")
        monkeypatch.setenv("PATH", str(tmp_path))  # a machine without SLURM
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line)[1:])
        with pytest.raises(SystemExit) as left:
            train()
        assert left.value.code == 1
    assert said_in(capsys.readouterr().err, said)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the page's model in my/module.py."""
    directory = tmp_path_factory.mktemp("it's a=b, ü")
    code = re.search(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert code is not None
    (directory / "my").mkdir()
    (directory / "my" / "module.py").write_text(code[1])
    return directory


def typed(lines: list[str], work: Path) -> dict[str, tuple[int, str]]:
    """Return exit codes and outputs of commands that are typed one after the other.

    One process runs them all: most of what each takes are its imports.
    """
    path = os.pathsep.join((str(ROOT), str(ROOT / "examples" / "own_app")))
    done = subprocess.run(
        [sys.executable, "-c", SHELL, *lines],
        cwd=work,
        env={**os.environ, "PYTHONPATH": path},
        timeout=200,
    )
    assert done.returncode == 0
    return dict(zip(lines, json.loads((work / "said.json").read_text()), strict=True))


@pytest.fixture(scope="module")
def of_runs(work: Path) -> dict[str, tuple[int, str]]:
    return typed(lines_of("python train.py"), work)


@pytest.fixture(scope="module")
def of_apps(work: Path) -> dict[str, tuple[int, str]]:
    pytest.importorskip("hydra_plugins.hydra_coreai_opt", reason="the project is not installed")
    return typed(lines_of("python -m digits_app"), work)


def lines_of(program: str) -> list[str]:
    return [one.values[0][0] for one in symptoms(program, runs=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "said"), symptoms("python train.py", runs=True))
def test_what_goes_wrong_in_a_run(
    lines: list[str], said: list[str], of_runs: dict[str, tuple[int, str]]
) -> None:
    if "trainer=gpu" in lines[0] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, output = of_runs[lines[0]]
    assert said_in(output, said), output
    expected = {"DivergedWeightError": 2, "sparsity 50.00 %": 0}
    assert code == next((expected[word] for word in expected if word in output), 1)


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "said"), symptoms("python -m digits_app", runs=True))
def test_what_an_app_of_somebody_else_says(
    lines: list[str], said: list[str], of_apps: dict[str, tuple[int, str]]
) -> None:
    code, output = of_apps[lines[0]]
    assert said_in(output, said), output
    assert code == 1


@pytest.mark.slow
def test_what_is_said_of_a_run_that_was_killed(work: Path) -> None:
    about = {line: said for (line, *_), said in SYMPTOMS if KILLED in line}
    again, other, late = about
    run = subprocess.Popen([sys.executable, ROOT / "train.py", *shlex.split(again)[2:]], cwd=work)
    until = time.monotonic() + 180

    def at_work() -> bool:
        progress = work / KILLED / "progress.json"  # how many steps there are comes a second later
        told = progress.is_file() and '"total_steps": 300' in progress.read_text()
        return told and bool(list((work / KILLED).glob("resume/*.ckpt")))

    while not at_work() and time.monotonic() < until:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    told = typed([other, again, late], work)
    for line, said in about.items():
        assert said_in(told[line][1], said), told[line][1]
    assert [told[line][0] for line in about] == [0, 1, 1]


@pytest.mark.parametrize(("lines", "said"), symptoms("scripts/report"))
def test_what_a_report_has_against_its_arguments(
    lines: list[str],
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_sweep(tmp_path / "multirun" / "power-seed-3f9a1c", runs=6)
    (line,) = lines
    with pytest.raises(SystemExit) as left:
        report(shlex.split(line)[1:])
    assert left.value.code == 1
    assert said_in(capsys.readouterr().err, said)
