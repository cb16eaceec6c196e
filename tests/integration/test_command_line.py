"""The real command line: bad input, help, signals, and what a terminal shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Command, Refused
from tests.helpers.processes import in_terminal

QUICK = ["experiment=quick", "trainer.accelerator=cpu"]

BAD_INPUT = {
    ("power=-1",): ["power=-1: should be greater than 0", "allowed: exponent of the ramp, > 0"],
    ("powr=2",): ["powr=2: there is no key 'powr'", "did you mean 'power'?"],
    ("schedule=plo",): ["schedule=plo: there is no such option", "did you mean 'poly'?"],
    ("schedule=constant", "power=2"): ["power=2: schedule=constant has no 'power'", "begin_step"],
    ("total_iters=100000",): ["total_iters=100000: the ramp ends after 100000", "has 550"],
    ("data.batch_size=abc",): ["data.batch_size=abc", "could not be converted to Integer", ">= 1"],
    ("model._target_=nowhere.Net",): ["nowhere.Net cannot be imported", "my.module.Class"],
    ("paths.output_root=/proc/none",): ["run directory cannot be written", "/proc/none"],
    ("power",): ["power: not of the form KEY=VALUE"],
    ("optimizer.lr=[1",): ["optimizer.lr=[1: not of the form KEY=VALUE"],
    ("-m", "power=1,-1"): ["power=-1: should be greater than 0"],
    ("schedule=constant", "rate=3"): ["rate=3: schedule=constant has no 'rate'", "=exponential"],
    ("schedule=null",): ["schedule=null: not the name of an option", "constant, cosine, cubic"],
    ("--run", "--multirun"): ["Only one of --run, --multirun"],
    ("preview=maybe",): ["preview=maybe: neither true nor false"],
    ("preview=true", "power=1,2"): ["Ambiguous value for argument 'power=1,2'"],
    ("preview.png=true", "seed=-1"): ["seed=-1: should be greater"],
    ("-m", "preview=true", "power=1,2", "seed=-1"): ["seed=-1: should be greater"],
}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [pytest.param(*case, id=" ".join(case[0])) for case in BAD_INPUT.items()],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    arguments: tuple[str, ...], parts: list[str], refused: Refused, work: Path
) -> None:
    (line,) = refused(*arguments).splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts), line
    assert list(work.iterdir()) == []


def test_everything_that_is_wrong_is_said_at_once(refused: Refused) -> None:
    said = refused("power=-1", "powr=2", "schedule=plo", "data.batch_size=0", "optimizer.lr=x")
    keys = {line.removeprefix("error: ").partition("=")[0] for line in said.splitlines()}
    assert keys == {"power", "powr", "schedule", "data.batch_size", "optimizer.lr"}


def test_a_wrong_flag_exits_as_every_wrong_command_line(refused: Refused) -> None:
    assert "error: " in refused("--cfg", "foo")


def test_options_in_a_directory_of_the_users_own_are_known(refused: Refused, work: Path) -> None:
    (work / "own" / "model").mkdir(parents=True)
    (work / "own" / "model" / "mine.yaml").write_text("_target_: nowhere.Net\n")
    said = refused("--config-dir", "own", "model=mine", "powr=2")
    keys = [line.removeprefix("error: ").partition("=")[0] for line in said.splitlines()]
    assert keys == ["powr", "model._target_"]


@pytest.mark.slow
def test_a_closed_pipe_leaves_the_run_completed(work: Path) -> None:
    script = f"'{sys.executable}' '{ROOT / 'train.py'}' {' '.join(QUICK)} | true"
    subprocess.run(["bash", "-c", script], cwd=work, check=True, capture_output=True, timeout=180)
    assert only_record(work)["status"] == "completed"


def test_stack_traces_are_kept_for_those_who_ask(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert "Traceback" in command("schedule=plo").stderr


IMPORTS = """
import runpy, sys
sys.argv = ["train.py", *{arguments!r}]
try:
    runpy.run_path({script!r}, run_name="__main__")
except SystemExit as error:
    assert not error.code, error.code
heavy = set({heavy!r}) & sys.modules.keys()
assert not heavy, heavy
"""

HEAVY = [
    *("torch", "pytorch_lightning", "sklearn", "matplotlib", "numpy", "joblib", "submitit", "ray"),
    "coreai_opt.sweep.plan",
]
LIGHT = {
    "help": (["--help"], [*HEAVY, "hydra", "omegaconf", "pydantic", "yaml"]),
    "cfg": (["--cfg", "job"], [*HEAVY, "rich"]),
    "cfg with values": (["--cfg", "job", "begin_step=2", "schedule=cosine"], HEAVY),
    "completion": (["--shell-completion", "query=bash"], HEAVY),
}


@pytest.mark.parametrize(("arguments", "heavy"), LIGHT.values(), ids=LIGHT)
def test_what_answers_at_once_imports_nothing_heavy(
    work: Path, arguments: list[str], heavy: list[str]
) -> None:
    code = IMPORTS.format(arguments=arguments, script=str(ROOT / "train.py"), heavy=heavy)
    typed = {"COMP_LINE": "train.py hydra/launcher=", "COMP_POINT": "24"}
    program, environment = [sys.executable, "-c", code], {**os.environ, **typed}
    done = subprocess.run(program, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_names_groups_options_knobs_and_examples(command: Command) -> None:
    text = command("--help").stdout
    assert len(re.findall(r"^  python train\.py ", text, re.MULTILINE)) == 4
    schedules = ("poly", "cosine", "exponential", "multistep", "constant", "none")
    for option in (*schedules, "mlp", "resnet", "mnist_subset", "adamw", "ddp"):
        assert re.search(rf"^    {option} +\S", text, re.MULTILINE), option
    assert re.search(r"^  power=3\.0 .*schedule=poly", text, re.MULTILINE)
    assert re.search(r"^  target_sparsity=0\.9 .*0 to 1", text, re.MULTILINE)
    ramps = r"schedule=cosine,cubic,exponential,linear,poly\]"
    assert re.search(rf"^  total_iters=400 .*\[{ramps}$", text, re.MULTILINE)
    assert re.search(r"^  milestones=\[\S+\] .*schedule=multistep\]$", text, re.MULTILINE)
    assert "base_" not in text


@pytest.mark.slow
def test_a_class_that_only_importing_shows_to_be_missing(command: Command, work: Path) -> None:
    done = command(*QUICK, "model._target_=torch.nn.Linea")
    assert done.returncode == 1
    assert done.stderr.startswith("error: model._target_=torch.nn.Linea: torch.nn has no 'Linea'")
    assert "did you mean 'Linear'?" in done.stderr
    assert only_record(work)["status"] == "failed"


@pytest.mark.slow
def test_without_a_terminal_one_line_is_printed(command: Command, work: Path) -> None:
    done = command(*QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert "sparsity 90.00 %" in done.stdout
    record = only_record(work)
    assert record["status"] == "completed"
    assert record["git"] is None


@pytest.mark.slow
def test_a_terminal_shows_progress_table_and_line(work: Path) -> None:
    screen = in_terminal([sys.executable, str(ROOT / "train.py"), *QUICK], work)
    assert re.search(r"sparsity: 0\.\d+/0\.9", screen)
    assert "train/loss" in screen
    assert "val/accuracy" in screen
    assert re.search(r"network\.layers\.1\.weight +│ +\S+ │ +\S+ │ +90\.00 % │ +90\.00 %", screen)
    assert re.search(r"test/accuracy .*, sparsity 90\.00 %, .* parameters, .* s, ", screen)


def only_record(work: Path) -> dict[str, Any]:
    (path,) = work.glob("outputs/*/*/result.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def test_a_schema_under_its_former_name_is_told_its_new_one(refused: Refused, work: Path) -> None:
    (work / "mine" / "optimizer").mkdir(parents=True)
    (work / "mine" / "optimizer" / "own.yaml").write_text("defaults:\n  - base_sgd\n")
    said = refused("--config-dir", "mine", "optimizer=own", "--cfg", "job")
    assert said.startswith("error: In 'optimizer/own': Could not load 'optimizer/base_sgd'")
    assert "allowed: /schema/optimizer/sgd@_here_ for base_sgd" in said
