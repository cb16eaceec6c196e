"""Which earlier run is gone on with, and what is refused: decided without a training."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.identity import config_hash
from coreai_opt.runs.existing_run import ExistingRun, differing_keys, same_code, unfinished_runs
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.resume import choose_directory, directory_problems, plan_start, resume_problems
from coreai_opt.runs.run_record import code_and_versions
from lightning_callbacks._resume.checkpoint_files import write_checkpoint

CONFIG: dict[str, Any] = {
    "seed": 1,
    "model": {"width": 8, "hidden": [16, 16]},
    "paths": {"output_root": "outputs"},
    "identity": {"ignore": ["paths"]},
}


def make_run(root: Path, *steps: int, config: dict[str, Any] = CONFIG, **fields: Any) -> Path:
    """Write a run directory as an interrupted run leaves it."""
    root.mkdir(parents=True)
    record = {
        "status": "interrupted",
        "started": "2026-01-01T00:00:00+00:00",
        "overrides": ["seed=1"],
        "config": config,
        "config_hash": config_hash(config),
        **code_and_versions(),
    }
    (root / "result.json").write_text(json.dumps(record | fields))
    for step in steps:
        content = f"content of {step}"
        write_checkpoint(
            root / "resume", step, lambda path, text=content: path.write_text(text), True, 9
        )
    return root


def alive(root: Path, **fields: Any) -> Path:
    """Write a heartbeat of now, of a process that is there."""
    progress = {"host": socket.gethostname(), "pid": os.getppid(), "time": time.time(), "step": 7}
    (root / "progress.json").write_text(json.dumps(progress | fields))
    return root


def config_in(output_root: Path, **values: Any) -> dict[str, Any]:
    return CONFIG | {"paths": {"output_root": str(output_root)}} | values


def gone_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def state_of(root: Path) -> str:
    run = ExistingRun.at(root)
    assert run is not None
    return run.state


def test_a_run_is_at_work_as_long_as_its_process_gives_signs_of_life(tmp_path: Path) -> None:
    root = make_run(tmp_path / "a", status="running")
    assert state_of(root) == "interrupted"
    assert state_of(alive(root)) == "running"
    assert state_of(alive(root, pid=gone_pid())) == "interrupted"
    assert state_of(alive(root, time=time.time() - 61)) == "interrupted"
    assert state_of(alive(root, time=time.time() - 59)) == "running"
    assert state_of(alive(root, pid=gone_pid(), host="elsewhere")) == "running"
    assert state_of(alive(root, host="elsewhere", time=time.time() - 61)) == "interrupted"
    (root / "progress.json").write_text("{half a fi")
    assert state_of(root) == "interrupted"


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
def test_a_run_that_has_ended_is_what_its_record_says(tmp_path: Path, status: str) -> None:
    assert state_of(alive(make_run(tmp_path / "a", status=status))) == status


@pytest.mark.parametrize("text", ["", "[]", "{}", "{half", '{"config": null}', "\xff"])
def test_what_is_no_record_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_bytes(text.encode("latin-1"))
    assert ExistingRun.at(tmp_path) is None
    (problem,) = directory_problems(CONFIG, RunPaths(tmp_path), is_sweep=False)
    assert "holds a record that cannot be read" in str(problem)


def test_the_newest_interrupted_run_with_a_checkpoint_comes_first(tmp_path: Path) -> None:
    digest = config_hash(CONFIG)
    old = make_run(tmp_path / "day" / "one", 3, started="2026-01-01T00:00:00+00:00")
    new = make_run(tmp_path / "two", 3, started="2026-01-01T00:00:01+00:00")
    other = make_run(tmp_path / "day" / "other", 3, config=CONFIG | {"seed": 2})
    make_run(tmp_path / "day" / "without")
    make_run(tmp_path / "day" / "completed", 3, status="completed")
    make_run(tmp_path / "day" / "failed", 3, status="failed")
    late = "2026-01-01T00:00:02+00:00"
    running = alive(make_run(tmp_path / "day" / "running", 3, status="running", started=late))
    make_run(tmp_path / "two" / "attempt-1", 3)
    make_run(tmp_path / "a" / "b" / "too deep", 3)
    assert [run.paths.root for run in unfinished_runs(tmp_path, digest)] == [running, new, old]
    assert choose_directory(config_in(tmp_path), tmp_path / "own")[0] == new
    found = unfinished_runs(tmp_path, config_hash(CONFIG | {"seed": 2}))
    assert [run.paths.root for run in found] == [other]
    assert unfinished_runs(tmp_path / "nowhere", digest) == []


def test_differences_are_named_as_they_were_typed() -> None:
    now = {**CONFIG, "seed": 2, "model": {"width": 8.0, "hidden": [16, 0.5], "new": None, "a": 1}}
    assert differing_keys(CONFIG, now) == [
        "model.hidden: [16, 16] -> [16, 0.5]",
        "seed: 1 -> 2",
        "model.a: (none) -> 1",
    ]
    assert differing_keys(CONFIG, CONFIG | {"paths": {"output_root": "elsewhere"}}) == []


def test_code_is_the_same_with_commit_changes_and_version() -> None:
    now = code_and_versions()
    assert same_code(now, code_and_versions())
    assert not same_code(now | {"git": {"sha": "other"}}, now)
    assert not same_code(now | {"git": None}, now | {"git": {"sha": "other"}})
    assert not same_code(now | {"versions": None}, now)
    other_torch = {**now["versions"], "torch": "0"}
    assert same_code(now | {"versions": other_torch}, now)  # told, but no reason to begin anew


def test_a_single_run_goes_on_in_the_newest_interrupted_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "day" / "one", 3)
    own, config = tmp_path / "day" / "own", config_in(tmp_path)
    assert choose_directory(config, own) == (run, [])
    assert choose_directory(config | {"seed": 2}, own) == (own, [])
    assert choose_directory(config_in(tmp_path / "elsewhere"), own) == (own, [])
    directory, sentences = choose_directory(config | {"resume": "never"}, own)
    assert directory == own
    assert sentences == [f"leaving behind {run} (interrupted at step 0)"]
    assert choose_directory(config | {"resume": str(run)}, own) == (run, [])
    file = next((run / "resume").iterdir())
    assert choose_directory(config | {"resume": str(file)}, own) == (run, [])
    copy = tmp_path / file.name
    copy.write_bytes(file.read_bytes())
    assert choose_directory(config | {"resume": str(copy)}, own) == (own, [])


def test_a_directory_of_its_own_comes_before_any_other(tmp_path: Path) -> None:
    make_run(tmp_path / "day" / "one", 3, started="2027")
    own = make_run(tmp_path / "own", status="failed")
    assert choose_directory(config_in(tmp_path), own) == (own, [])


def test_a_run_of_other_code_is_left_with_a_sentence(tmp_path: Path) -> None:
    changed = make_run(tmp_path / "day" / "new", 3, started="2027", git={"sha": "other"})
    alive(changed)
    own, config = tmp_path / "own", config_in(tmp_path)
    directory, (sentence,) = choose_directory(config, own)
    assert directory == own
    assert sentence == (
        f"not going on with {changed} (interrupted at step 7): the code has changed since; "
        f"resume={changed} goes on all the same"
    )
    make_run(tmp_path / "day" / "new too", 3, started="2026", git={"sha": "another"})
    _, (sentence,) = choose_directory(config, own)
    assert f"with {changed} (interrupted at step 7) and 1 more: the code has" in sentence
    older = make_run(tmp_path / "day" / "old", 3)
    assert choose_directory(config, own) == (older, [])
    start = plan_start(config | {"resume": str(changed)}, RunPaths(changed), is_sweep=False)
    assert "the code has changed since then: the result may be another one" in start.sentences


def problems(resume: object, is_sweep: bool = False, **values: Any) -> str:
    found = resume_problems(CONFIG | {"resume": str(resume)} | values, is_sweep)
    assert len(found) <= 1
    return str(found[0]) if found else ""


def test_what_cannot_be_resumed_is_one_sentence(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    assert problems("auto") == problems("never") == problems(run) == ""
    assert "a sweep has many runs; allowed: auto or never" in problems(run, is_sweep=True)
    assert problems("auto", is_sweep=True) == ""
    sentence = problems(tmp_path / "none")
    assert "there is no such file or directory; allowed: auto, never, a run directory" in sentence
    (tmp_path / "empty").mkdir()
    assert "a directory without a record (result.json)" in problems(tmp_path / "empty")
    for name in ("notes.txt", "best.ckpt"):
        (tmp_path / name).write_text("text")
        assert "not a checkpoint that was written for going on" in problems(tmp_path / name)
    file = next((run / "resume").iterdir())
    assert problems(file) == ""
    file.write_text("something else")
    assert f"resume={file}: the file is damaged; allowed: another" in problems(file)
    completed = make_run(tmp_path / "completed", status="completed")
    assert "this run has completed; allowed: an interrupted run" in problems(completed)
    working = alive(make_run(tmp_path / "working", 3, status="running"))
    who = f"process {os.getppid()} on {socket.gethostname()} is at work in it"
    assert who in problems(working)


def test_another_config_is_refused_with_both_values(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    sentence = problems(run, seed=2)
    assert sentence == (
        f"{run} was begun with another config: seed: 1 -> 2; allowed: the same config (seed=1), "
        "another directory, or resume_force=true"
    )
    assert problems(run, seed=2, resume_force=True) == ""
    with pytest.raises(ConfigError, match="seed: 1 -> 2"):
        plan_start(CONFIG | {"seed": 2}, RunPaths(run), is_sweep=True)
    forced = plan_start(CONFIG | {"seed": 2, "resume_force": True}, RunPaths(run), is_sweep=False)
    assert forced.step == 3


def test_a_completed_run_is_never_touched(tmp_path: Path) -> None:
    paths = RunPaths(make_run(tmp_path / "run", status="completed"))
    for config, is_sweep in ((CONFIG, False), (CONFIG | {"resume": "never"}, True)):
        with pytest.raises(ConfigError, match="holds the record of a completed run"):
            plan_start(config, paths, is_sweep)
    assert plan_start(CONFIG, paths, is_sweep=True).is_done
    with pytest.raises(ConfigError, match="seed: 1 -> 2"):
        plan_start(CONFIG | {"seed": 2}, paths, is_sweep=True)


def test_a_run_at_work_is_not_taken(tmp_path: Path) -> None:
    root = alive(make_run(tmp_path / "day" / "run", 3, status="running"))
    own = tmp_path / "own"
    chosen, (sentence,) = choose_directory(config_in(tmp_path), own)
    assert chosen == own
    assert f"not going on with {root}: process {os.getppid()} on" in sentence
    assert "is at work in it (last sign" in sentence
    with pytest.raises(ConfigError, match="is at work in it; allowed: wait for it, or end it"):
        plan_start(CONFIG, RunPaths(root), is_sweep=True)


def test_a_process_with_the_number_of_the_old_one_is_a_new_one(tmp_path: Path) -> None:
    # As in a container that is started again.
    root = alive(make_run(tmp_path / "day" / "run", 3, status="running"), pid=os.getpid())
    assert choose_directory(config_in(tmp_path), tmp_path / "own") == (root, [])


def test_a_directory_that_the_user_names_is_used(tmp_path: Path) -> None:
    make_run(tmp_path / "day" / "run", 3)
    own = tmp_path / "own"
    assert choose_directory(config_in(tmp_path), own, is_given=True) == (own, [])


def test_what_else_lies_in_a_run_directory_stays(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", 3)
    (root / "train.py").write_text("somebody's own")
    (root / "notes").mkdir()
    aside = RunPaths(root).archive_attempt()
    assert {path.name for path in aside.iterdir()} == {"result.json", "resume"}
    assert {path.name for path in root.iterdir()} == {"attempt-1", "notes", "train.py"}


def test_how_a_run_starts_in_its_directory(tmp_path: Path) -> None:
    assert plan_start(CONFIG, RunPaths(tmp_path / "new"), is_sweep=False).sentences == ()
    root = alive(make_run(tmp_path / "run", 3, 5), total_steps=18)
    start = plan_start(CONFIG, RunPaths(root), is_sweep=False)
    assert (start.step, start.sentences) == (5, (f"goes on in {root} from step 5 of 18",))
    older = root / "resume" / next(root.glob("resume/step-00000003*")).name
    start = plan_start(CONFIG | {"resume": str(older)}, RunPaths(root), is_sweep=False)
    assert (start.checkpoint, start.step) == (older, 3)
    start = plan_start(CONFIG | {"resume": "never"}, RunPaths(root), is_sweep=False)
    assert (start.step, start.earlier is None) == (0, False)
    assert start.sentences == (f"begins anew in {root}; what was there is set aside",)
    bare = make_run(tmp_path / "bare", status="failed")
    start = plan_start(CONFIG, RunPaths(bare), is_sweep=True)
    assert start.sentences == (
        f"begins anew in {bare}: the run had ended before its first checkpoint",
    )


def test_other_versions_are_told(tmp_path: Path) -> None:
    versions = code_and_versions()["versions"]
    root = make_run(tmp_path / "run", 3, versions=versions | {"torch": "1.0"})
    start = plan_start(CONFIG, RunPaths(root), is_sweep=False)
    expected = f"other versions than then, so not bit for bit: torch 1.0 -> {versions['torch']}"
    assert start.sentences[1:] == (expected,)


def test_a_checkpoint_alone_is_gone_on_with_in_a_new_directory(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    file = next((run / "resume").iterdir())
    alone = file.rename(tmp_path / file.name)
    config = CONFIG | {"resume": str(alone)}
    start = plan_start(config, RunPaths(tmp_path / "new"), is_sweep=False)
    assert (start.checkpoint, start.earlier) == (alone, None)
    alone.write_text("something else")
    with pytest.raises(ConfigError, match="the file is damaged"):
        plan_start(config, RunPaths(tmp_path / "new"), is_sweep=False)


def test_a_home_directory_that_nobody_has_is_no_such_path() -> None:
    assert "there is no such file or directory" in problems("~nobody-at-all/run")
