"""``preview=true`` as a user types it: what is shown, and that nothing is made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from tests.conftest import ROOT, Command
from tests.helpers.previews import plan_of, write_checkpoint_name, write_record

HEAVY = ("torch", "pytorch_lightning", "matplotlib", "pandas", "numpy", "joblib", "submitit", "ray")

SEARCH = """\
_target_: my.module.Sweeper
direction: maximize
n_trials: 20
storage: sqlite:///${hydra.sweep.dir}/study.db
params:
  optimizer.lr: tag(log, interval(0.001, 1))
  power: choice(1, 2)
"""

OWN_DATA = """\
from pytorch_lightning import LightningDataModule
class Data(LightningDataModule):
    pass
"""


def tree(work: Path) -> list[Path]:
    return sorted(work.rglob("*"))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("│")]


def rows(output: str) -> list[list[str]]:
    return [cells(line) for line in output.splitlines() if "│" in line]


@pytest.fixture
def typed_in(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return work


def test_a_single_run_is_shown_and_nothing_is_made(command: Command, work: Path) -> None:
    done = command("preview=true", "schedule=cosine", "begin_step=100")
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(done.stdout) == [["1", "new", "100 -> 500 of 550", "90 %", "550", "unknown"]]
    assert "\n  a cosine to 90 %\n" in done.stdout
    assert "550 steps" in done.stdout
    assert "\x1b" not in done.stdout
    assert "hint: the target is reached in the last epoch" in done.stdout
    assert "seeds" not in done.stdout
    assert tree(work) == []


def test_nothing_heavy_is_imported(work: Path) -> None:
    code = (
        "import sys, runpy; sys.argv[:] = sys.argv[1:]\n"
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"print('heavy:', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    arguments = [str(ROOT / "train.py"), "-m", "preview=true", "power=1,2", "seed=1,2,3"]
    program = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(program, cwd=work, capture_output=True, text=True, timeout=180)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.slow
def test_a_hundred_runs_are_shown(command: Command, work: Path) -> None:
    done = command("-m", "preview=true", "power=range(1,101)")
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout)
    assert [row[0] for row in table] == [*map(str, range(1, 46)), "...", *map(str, range(96, 101))]
    assert "50 rows are not shown" in done.stdout
    assert "8 of 100 schedule curves are drawn" in done.stdout
    assert "to run: 100 of 100; " in done.stdout
    assert tree(work) == []


def test_a_run_that_will_fail_is_a_warning(command: Command) -> None:
    done = command("-m", "preview=true", "optimizer.lr=0.1,-1", "seed=1,2,3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("warning: a run will fail: optimizer.lr=-1: should be greater") == 1


def test_the_states_of_a_sweep(command: Command, typed_in: Path) -> None:
    overrides = ("power=1,2,3,4,5", "seed=1,2,3")
    plan = plan_of(*overrides)
    by = {(point.varied["power"], point.varied["seed"]): point for point in plan.points}
    ended = [("1", "1", "completed"), ("1", "2", "completed"), ("1", "3", "completed")]
    ended += [("2", "1", "completed"), ("2", "2", "failed"), ("3", "1", "interrupted")]
    ended += [("3", "2", "interrupted")]
    for power, seed, status in ended:
        point = by[power, seed]
        folder = plan.root / point.folder
        write_record(folder, point.config, point.config_hash, status=status, wall_seconds=20.0)
    # Half of a run is left, and the heartbeat of one that is at work.
    write_checkpoint_name(plan.root / by["3", "1"].folder, 275)
    (plan.root / by["4", "1"].folder).mkdir()
    (plan.root / by["4", "1"].folder / "result.json").write_text("{")
    before = tree(typed_in)
    done = command("-m", "preview=true", *overrides)
    assert done.returncode == 0, done.stderr
    ramp = "0 -> 400 of 550"
    states = ["3 done", "1 done, 1 failed, runs again, 1 new"]
    states += ["1 to resume, 1 interrupted, begins anew, 1 new"]
    states += ["1 unreadable, begins anew, 2 new", "3 new"]
    times = ["-", "40 s", "50 s", "1 min 0 s", "1 min 0 s"]
    assert rows(done.stdout) == [
        [str(power), str(power), "1-3", states[power - 1], ramp, "90 %", "550", times[power - 1]]
        for power in range(1, 6)
    ]
    assert "to run: 11 of 15; about 3 min 30 s one after the other, by 4 earlier" in done.stdout
    assert "cannot be read: set aside, and the run begins anew" in done.stdout
    assert tree(typed_in) == before


@pytest.mark.slow
def test_runs_of_other_code_are_a_warning(command: Command, typed_in: Path) -> None:
    plan = plan_of("power=1,2")
    point = plan.points[0]
    git = {"sha": "0", "dirty": False, "changes": None}
    write_record(plan.root / point.folder, point.config, point.config_hash, git=git)
    done = command("-m", "preview=true", "power=1,2", "sweep.on_code_change=error")
    assert done.returncode == 0, done.stderr
    assert "warning: 1 run was made before the code changed; allowed:" in done.stdout
    assert [row[2] for row in rows(done.stdout)] == ["done", "new"]


def test_a_single_run_goes_on(command: Command, typed_in: Path) -> None:
    plan = plan_of("power=2")
    folder = typed_in / "outputs" / "2026-01-01" / "12-00-00"
    write_record(folder, plan.points[0].config, plan.points[0].config_hash, status="interrupted")
    write_checkpoint_name(folder, 275)
    done = command("preview=true", "power=2")
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[0][1] == "to resume at step 275"
    assert f"goes on in {Path('outputs', '2026-01-01', '12-00-00')} from step 275" in done.stdout


@pytest.mark.slow
def test_another_sweeps_directory_is_shown_and_is_an_error(command: Command, work: Path) -> None:
    folder = work / "multirun" / "mine"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"name": "other"}))
    done = command("-m", "preview=true", "power=1,2", "sweep_name=mine")
    assert done.returncode == 1
    assert len(rows(done.stdout)) == 2
    assert done.stderr.count("\n") == 1
    assert "belongs to the sweep 'other'" in done.stderr


def test_the_space_of_a_search(command: Command, work: Path) -> None:
    (work / "conf" / "hydra" / "sweeper").mkdir(parents=True)
    (work / "conf" / "hydra" / "sweeper" / "mine.yaml").write_text(SEARCH)
    before = tree(work)
    typed = ("hydra/sweeper=mine", "power=int(interval(1,4))", "total_iters=range(100,400,100)")
    done = command("-m", "--config-dir", "conf", "preview=true", *typed, "seed=3")
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout) == [
        ["optimizer.lr", "interval", "0.001 to 1", "log"],
        ["power", "interval", "1 to 4", "int"],
        ["total_iters", "range", "100 to below 400 by 100", ""],
        ["seed", "fixed", "3", ""],
    ]
    assert "hydra/sweeper=mine" in done.stdout
    assert "n_trials=20, direction=maximize, storage=sqlite:///multirun/SWEEP_NAME/" in done.stdout
    assert "length of the training: 550 steps" in done.stdout
    assert tree(work) == before


@pytest.mark.slow
def test_the_length_of_own_data_is_unknown_until_a_record_tells(
    command: Command, typed_in: Path
) -> None:
    (typed_in / "own.py").write_text(OWN_DATA)
    typed = ("data._target_=own.Data", "interval=step")
    done = command("-m", "preview=true", *typed, "seed=1,2,3")
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[0][3:] == ["0 -> 400 of unknown", "90 %", "unknown", "unknown"]
    assert done.stdout.count("cannot be checked: the length of the training is unknown") == 1
    assert "440 steps, length unknown" in done.stdout
    sys.path.append(str(typed_in))
    try:
        point = plan_of(*typed).points[0]
    finally:
        sys.path.remove(str(typed_in))
    training = {"steps": 800, "steps_per_epoch": 80}
    folder = typed_in / "outputs" / "day" / "time"
    write_record(folder, point.config, point.config_hash, training=training, wall_seconds=16.0)
    told = command("preview=true", *typed)
    assert rows(told.stdout)[0][2:] == ["0 -> 400 of 800", "90 %", "800", "16 s"]
    assert "by 1 earlier record of this model and data" in told.stdout


def test_the_picture_is_made_where_it_is_asked_for(command: Command, work: Path) -> None:
    done = command("-m", "preview.png=true", "power=1,2", "schedule=none,poly")
    assert done.returncode == 0, done.stderr
    assert tree(work) == [work / "preview.png"]
    assert (work / "preview.png").read_bytes().startswith(b"\x89PNG")
    assert done.stdout.endswith(f"the curves are in {work / 'preview.png'}\n")
    assert "1 point is the same as another one" in done.stdout
    assert "power does not count with schedule=none" in done.stdout


@pytest.mark.slow
def test_a_preview_in_a_file_does_not_train(command: Command, work: Path) -> None:
    (work / "conf" / "experiment").mkdir(parents=True)
    (work / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\npreview: true\n")
    before = tree(work)
    done = command("--config-dir", "conf", "experiment=mine")
    assert done.returncode == 1
    assert done.stderr.startswith("error: preview=True: counts where it is typed on the command")
    assert tree(work) == before


@pytest.mark.slow
def test_the_table_fits_a_narrow_terminal(work: Path) -> None:
    pty = pytest.importorskip("pty")
    arguments = ["-m", "preview=true", "power=1,2", "model=mlp,convnet", "optimizer.lr=0.1,0.05"]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color"}
    program = [sys.executable, str(ROOT / "train.py"), *arguments]
    leader, follower = pty.openpty()
    process = subprocess.Popen(program, cwd=work, env=environment, stdout=follower)
    os.close(follower)
    output = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        output += piece
    os.close(leader)
    assert process.wait(100) == 0
    assert b"\x1b[" in output
    shown = Text.from_ansi(output.decode()).plain
    assert max(map(len, shown.splitlines())) <= 80
