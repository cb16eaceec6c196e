"""Sweeps of apps that do what most do not: no config, objects that cannot be sent, exits, git."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.any_sweeps import AnyApp, copied, environment, written
from tests.helpers.processes import in_terminal, started, wait_for

APP = """
import hydra
import sys

class OwnError(Exception):
    def __init__(self, code, where):
        super().__init__(f"{code} at {where}")
        self.where = lambda: where

@hydra.main(config_path=None, version_base="1.3")
def main(cfg):
    {body}

if __name__ == "__main__":
    main()
"""


def app_of(folder: Path, body: str) -> AnyApp:
    return written(folder / "app", APP.replace("{body}", body))


def test_an_app_without_a_config(tmp_path: Path) -> None:
    app = app_of(tmp_path, "return cfg.x")
    said = app.sweep("+x=1,2", "hydra.job.chdir=true", "hydra.output_subdir=null")
    assert said.code == 0, said.err
    assert app.states == {"x-1": ("completed", 1), "x-2": ("completed", 1)}
    assert sorted(path.name for path in app.runs["x-1"].iterdir()) == [".coreai", "app.log"]
    assert app.sweep("+x=2,3", "hydra.job.chdir=true").first == "2 runs, 1 done before, 1 to run"


def test_how_a_task_may_end(tmp_path: Path) -> None:
    app = app_of(tmp_path, "sys.exit({1: None, 2: 0, 3: 7, 4: 'no data'}[cfg.x])")
    said = app.sweep("+x=1,2,3,4")
    assert said.code == 2, said.err
    ends = {name: one["error"] and one["error"]["message"] for name, one in app.records.items()}
    assert ends == {"x-1": None, "x-2": None, "x-3": "7", "x-4": "no data"}
    assert said.last == "4 runs, 2 completed, 2 failed"


@pytest.mark.slow
def test_an_error_that_cannot_be_sent_costs_its_own_run_alone(tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    app = app_of(tmp_path, "if cfg.x == 2: raise OwnError(5, 'home')")
    said = app.sweep("+x=1,2,3", "hydra/launcher=coreai_joblib", "hydra.launcher.n_jobs=2")
    assert said.last == "3 runs, 2 completed, 1 failed", said.out + said.err
    assert "OwnError: 5 at home" in said.out
    assert app.states["x-2"] == ("failed", 1)


@pytest.mark.slow
def test_the_command_of_a_run_alone_meets_that_run(tmp_path: Path) -> None:
    app = copied("plain", tmp_path)
    said = app.sweep("x=-1,-2", "hydra.sweeper.retry=none")
    (line,) = [line for line in said.out.splitlines() if line.endswith(" x=-1")]
    words = shlex.split(line)
    assert words[0] == "python"
    alone = subprocess.run(
        [sys.executable, *words[1:], "hydra.sweeper.retry=failed"],
        cwd=app.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert alone.returncode == 2, alone.stderr
    assert app.states == {"x--1": ("failed", 2), "x--2": ("failed", 1)}


SWEPT = """
defaults:
  - override hydra/sweeper: grid
  - _self_
lr: 1
tags: [a]
hydra:
  mode: MULTIRUN
  sweeper:
    ignore: [seed, "!tags"]
    params:
      lr: 1,2
"""


@pytest.mark.slow
def test_a_sweep_may_stand_in_a_file(tmp_path: Path) -> None:
    program = APP.replace("config_path=None", 'config_path=".", config_name="config"')
    app = written(tmp_path / "app", program.replace("{body}", "return cfg.lr"), config=SWEPT)
    plain = [sys.executable, "app.py"]
    for words, last in (
        ([], "2 runs, 2 completed"),
        (["+seed=3"], "2 runs, 2 completed"),  # ignored
        (["tags=[b]"], "2 runs, 2 completed"),  # counts, here
        (["lr=5,6,7"], "3 runs, 3 completed"),
    ):
        done = subprocess.run(
            [*plain, *words], cwd=app.folder, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].endswith(last)
    sweeps = [len(list(path.glob("*/.coreai"))) for path in app.folder.glob("multirun/*")]
    assert sorted(sweeps) == [2, 5]


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
def test_what_is_made_by_other_code(tmp_path: Path) -> None:
    app = copied("plain", tmp_path)
    git(app.folder, "init", "-q")
    git(app.folder, "add", "app.py")
    git(app.folder, "commit", "-qm", "first")
    assert app.sweep("x=1,2").code == 0
    with (app.folder / "app.py").open("a") as file:
        file.write("# changed\n")
    key = "hydra.sweeper.on_code_change"
    told = "2 runs were made before the code changed"
    said = app.sweep("x=1,2")
    assert (said.code, said.called) == (0, [])
    assert f"{told}: counted or gone on with; {key}=rerun runs them again" in said.out
    refused = app.sweep("x=1,2", f"{key}=error")
    assert refused.code == 1
    assert refused.err.startswith(f"error: {told}; allowed: {key}=warn or rerun, or another ")
    assert len(app.sweep("x=1,2", f"{key}=rerun").called) == 2
    assert set(app.states.values()) == {("completed", 2)}


@pytest.mark.parametrize(("direction", "best"), [("minimize", "2 x-3_"), ("maximize", "11 x-6_")])
def test_the_best_run_so_far_is_shown_while_a_sweep_runs(
    tmp_path: Path, direction: str, best: str
) -> None:
    app = copied("plain", tmp_path)
    command = app.command("x=1,3,6", f"hydra.sweeper.direction={direction}")
    shown = in_terminal(command, app.folder, environment())
    last = [line for line in shown.splitlines() if "3 of 3" in line][-1]
    assert best in last, shown


@pytest.mark.slow
def test_ctrl_c_twice_and_a_directory_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    app = copied("loop", tmp_path)
    (app.folder / "taken").write_text("")
    said = app.sweep("seed=1,2", "hydra.sweep.dir=taken/sweep")
    assert (said.code, "Traceback" in said.err) == (1, False), said.err
    assert "allowed: hydra.sweep.dir=DIR, writable" in said.err
    typed = app.command("seed=1,2,3", "epochs=50", "pause_s=0.2")[2:]
    with started(
        app.folder, *typed, program=app.folder / "train.py", environment=environment()
    ) as process:
        for number in (1, 2):
            states = f"multirun/*/seed-{number}_*/state-*"
            wait_for(process, lambda seen=states: list(app.folder.glob(seen)), states)
            process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (out, errors)
    assert "Traceback" not in errors
    assert "to run one alone" in out
