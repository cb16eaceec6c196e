"""What every launcher has to do, for any app, by one suite: skip, retry, isolate, go on, report."""

import os
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.report.__main__ import main as report
from tests.helpers.launchers import LAUNCHERS, Chosen, chosen, needed
from tests.helpers.processes import Process
from tests.helpers.subjects import LOOP, OURS, REGISTRY, Json, Subject

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


# What of a launcher depends on Lightning is in workers and in the command's own process alike.
LIGHTNING = ("basic", "joblib")
CASES = [
    *((app, launcher) for app in (OURS, LOOP) for launcher in LAUNCHERS),
    *((REGISTRY, launcher) for launcher in LIGHTNING),
]
PLAIN = [(LOOP, launcher) for launcher in LAUNCHERS]


def cases(pairs: list[tuple[Subject, Any]]) -> pytest.MarkDecorator:
    """Run a test with apps, each under a launcher."""
    given = []
    for app, launcher in pairs:
        name = launcher if isinstance(launcher, str) else launcher.values[0]
        marks = [] if isinstance(launcher, str) else launcher.marks
        given.append(pytest.param(app, name, marks=marks, id=f"{app}-{name}"))
    return pytest.mark.parametrize(("app", "launcher"), given, indirect=["launcher"])


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> Chosen:
    needed(request.param)
    return chosen(request.param, request)


@pytest.fixture
def there(work: Path, app: Subject) -> Path:
    """Where the commands are typed."""
    return app.placed(work)


@cases(CASES)
def test_bad_runs_cost_themselves_alone_and_what_is_done_is_skipped(
    there: Path, launcher: Chosen, app: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [app.good, *app.bad]
    done = app.sweep(there, launcher, f"{app.knob}={','.join(values)}", *app.short)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    names = dict(zip(values, (app.folder(value) for value in values), strict=True))
    good, bad = names[app.good], {names[value]: app.bad[value] for value in app.bad}
    assert app.states(there) == {good: ("completed", 1), **dict.fromkeys(bad, ("failed", 1))}
    assert ": 3 runs, 1 completed, 2 failed\n" in done.stdout
    records = app.records(there)
    assert {name: records[name]["error"]["type"] for name in bad} == bad
    app.look(app.folders(there)[good], records[good])

    # In another order: they meet the same directory.
    again = app.sweep(there, launcher, *app.short, f"{app.knob}={','.join(reversed(values))}")
    assert again.returncode == 2, again.stderr
    assert ": 3 runs, 1 done before, 2 to run again after a failure\n" in again.stdout
    # What is refused before it begins keeps its first record.
    refused = {names[value] for value in app.refused}
    tried = {name: ("failed", 1 if name in refused else 2) for name in bad}
    assert app.states(there) == {good: ("completed", 1), **tried}
    assert app.records(there)[good] == records[good]

    only = app.sweep(there, launcher, f"{app.knob}=choice({app.good})", *app.short)
    assert only.returncode == 0, only.stderr
    assert ": 1 run, 1 completed\n" in only.stdout

    report([str(there / "multirun"), "--no-figures"])
    assert "3 runs: 1 completed, 2 failed" in capsys.readouterr().out


@cases(CASES[: -len(LIGHTNING)])
def test_a_config_that_comes_out_otherwise_in_the_job_is_trained_once(
    there: Path, launcher: Chosen, app: Subject
) -> None:
    # Only the job has the variable.
    probe = "+probe.where=${oc.env:COREAI_OPT_SWEEP,planner}"
    again = None
    for attempt in ("first", "again"):
        done = app.sweep(there, launcher, "seed=1,2", *app.short, probe)
        assert done.returncode == 0, (attempt, done.stdout, done.stderr)
        assert done.stdout.count("is not the run that was planned") == 2
        assert "probe.where: planner -> {" in done.stdout
        records = app.records(there).values()
        assert [record["attempts"] for record in records] == [1, 1]
        assert again in (None, [record["finished"] for record in records])
        again = [record["finished"] for record in records]


@cases(PLAIN)
def test_two_commands_at_once_run_each_point_once(
    there: Path, launcher: Chosen, app: Subject
) -> None:
    given = [*app.long, "seed=1,2,3"]
    with app.started(there, launcher, *given) as one, app.started(there, launcher, *given) as other:
        for process in (one, other):
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, (out, errors)
            assert out.endswith(": 3 runs, 3 completed\n")
    assert set(app.states(there).values()) == {("completed", 1)}
    assert not [record for record in app.records(there).values() if record["resumed_at"]]


def kill_the_process_of(process: Process, app: Subject, work: Path, seed: int) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        run = app.folders(work).get(f"seed-{seed}")
        if run is not None and list(run.glob(app.checkpoints)):
            os.kill(app.progress(run)["pid"], signal.SIGKILL)
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"seed {seed} never began: {process.communicate()}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Subject], dict[str, Json]]:
    """Return what the runs of an app come to when nobody disturbs them."""

    @cache
    def of_app(app: Subject) -> dict[str, Json]:
        there = app.placed(tmp_path_factory.mktemp("whole"))
        done = app.sweep(there, chosen("basic"), *app.long, "seed=1,2")
        assert done.returncode == 0, done.stderr
        return app.results(there)

    return of_app


@cases(CASES)
def test_a_process_that_is_killed_costs_only_its_run_which_goes_on(
    there: Path, launcher: Chosen, app: Subject, whole: Callable[[Subject], dict[str, Json]]
) -> None:
    with app.started(there, launcher, *app.long, "seed=1,2") as process:
        kill_the_process_of(process, app, there, 1)
        out, errors = process.communicate(timeout=300)
    if launcher.is_the_command:
        assert process.returncode == -signal.SIGKILL
        done = app.sweep(there, launcher, *app.long, "seed=1,2")
        assert done.returncode == 0, done.stderr
    else:
        assert process.returncode == 0, (out, errors)
        assert ": 2 runs, 2 completed\n" in out
    assert app.states(there)["seed-1"] == ("completed", 2)
    assert app.records(there)["seed-1"]["resumed_at"]
    assert app.results(there) == whole(app)
