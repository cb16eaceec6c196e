"""Sweeps of apps that know nothing of us: skipped, tried again, isolated, named, told."""

from pathlib import Path

import pytest

from coreai_opt.report.__main__ import main as report
from tests.helpers.any_sweeps import AnyApp, copied, written


@pytest.fixture
def plain(tmp_path: Path) -> AnyApp:
    return copied("plain", tmp_path)


@pytest.fixture
def own_files(tmp_path: Path) -> AnyApp:
    return copied("own_files", tmp_path)


def test_what_is_done_is_skipped_and_what_failed_is_tried_again(plain: AnyApp) -> None:
    said = plain.sweep("x=1,-1", "seed=1,2")
    assert said.code == 2, said.err
    assert "Traceback" not in said.err
    assert said.last == "4 runs, 2 completed, 2 failed"
    assert plain.states == {
        "seed-1_x-1": ("completed", 1),
        "seed-2_x-1": ("completed", 1),
        "seed-1_x--1": ("failed", 1),
        "seed-2_x--1": ("failed", 1),
    }
    record = plain.records["seed-1_x-1"]
    assert record["objective"] == {"name": "objective", "mode": None, "value": 6.0}
    assert (record["seed"], record["config"]["noise"]) == (1, {"scale": 0.0})
    assert record["overrides"] == ["x=1", "seed=1"]
    assert record["app"]["program"] == "python app.py"
    assert (record["device"]["accelerator"], record["wall_seconds"] > 0) == ("cpu", True)
    assert record["versions"]["hydra"]
    assert record["git"] is None
    failed = plain.records["seed-1_x--1"]["error"]
    assert (failed["type"], failed["message"]) == ("ValueError", "x=-1 is below 0")
    assert "raise ValueError" in failed["traceback"]
    assert "  python app.py -m hydra/sweeper=grid hydra.sweeper.name=seed-x-" in said.out

    # In another order, with a value more, and one value fewer.
    again = plain.sweep("seed=2,1", "x=-1,1,2")
    assert again.first == "6 runs, 2 done before, 2 to run, 2 to run again after a failure"
    assert sorted(again.called) == [
        f"x={x} y=2 seed={seed}" for x in ("-1", "2") for seed in (1, 2)
    ]
    assert plain.states["seed-1_x--1"] == ("failed", 2)
    assert plain.states["seed-1_x-1"] == ("completed", 1)
    (sweep,) = {path.parent for path in plain.runs.values()}
    assert (sweep / "sweep.json").is_file()

    done = plain.sweep("x=1,2", "seed=1,2")
    assert (done.code, done.called, done.last) == (0, [], "4 runs, 4 completed")


def test_the_settings_of_a_sweep(plain: AnyApp) -> None:
    first = plain.sweep("x=-1,1", "hydra.sweeper.name=mine", "hydra.sweeper.fail_fast=true")
    assert first.code == 2
    assert first.last == "2 runs, 1 failed, 1 not begun"
    assert (plain.folder / "multirun" / "mine" / "sweep.json").is_file()
    assert "another run had failed (hydra.sweeper.fail_fast=true)" in first.out
    left = plain.sweep("x=-1,1", "hydra.sweeper.name=mine", "hydra.sweeper.retry=none")
    assert "1 failed before and not run again (hydra.sweeper.retry=failed does)" in left.out
    assert left.called == ["x=1 y=2 seed=0"]
    everything = plain.sweep("x=1", "hydra.sweeper.name=mine", "hydra.sweeper.retry=all")
    assert (everything.code, len(everything.called)) == (0, 1)
    assert plain.states["x-1"] == ("completed", 2)
    paired = plain.sweep("x=1,2", "y=3,4", "hydra.sweeper.zip=[x,y]", "hydra.sweeper.name=pairs")
    assert paired.called == ["x=1 y=3 seed=0", "x=2 y=4 seed=0"]
    filed = plain.sweep("hydra.sweeper.params={x: '5,6'}", "y=1", "hydra.sweeper.name=filed")
    assert filed.called == ["x=5 y=1 seed=0", "x=6 y=1 seed=0"]
    best = plain.sweep("x=1,3", "hydra.sweeper.direction=minimize", "hydra.sweeper.name=best")
    assert best.code == 0
    assert plain.records["x-3"]["objective"] == {"name": "objective", "mode": "min", "value": 2.0}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["hydra.sweeper.retry=often"], "hydra.sweeper.retry=often: should be 'all', 'failed' or"),
        (["hydra.sweeper.zip=[x,z]"], "hydra.sweeper.zip=[x,z]: z is not varied; allowed: x"),
        (["hydra.sweeper.resume_key=z"], "hydra.sweeper.resume_key=z: this app has no such key"),
        (["hydra.sweeper.name=..."], "hydra.sweeper.name=...: names no directory; allowed: "),
        (["z=1,2"], "Could not override 'z'."),
        (["y=interval(1,2)"], "y=interval(1,2): a grid needs a list of values; allowed: "),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_a_wrong_command_is_told_in_one_sentence(
    plain: AnyApp, words: list[str], sentence: str
) -> None:
    said = plain.sweep("x=1,2", *words)
    assert (said.code, said.called) == (1, [])
    assert said.err.startswith(f"error: {sentence}"), said.err
    assert len(said.err.splitlines()) == 1
    assert not plain.runs


def test_the_files_of_an_app_are_left_alone(own_files: AnyApp) -> None:
    said = own_files.sweep("lr=0.1,2", "model=small,deep")
    assert said.code == 2, said.err
    # The app's place of sweeps, without the time; its subdir names no run of ours.
    assert "hydra.sweep.subdir=${hydra.job.override_dirname} does not count" in said.out
    folders = {path.parent for path in own_files.runs.values()}
    assert [one.relative_to(own_files.folder).parts[:3] for one in folders] == [
        ("logs", "run", "multiruns")
    ]
    record, run = own_files.records["lr-0.1_model-deep"], own_files.runs["lr-0.1_model-deep"]
    assert (record["metrics"], record["values"]) == ({"score": 1.6}, {"label": "mine"})
    assert record["objective"] is None
    assert '"seen": []' in (run / "result.json").read_text()
    failed = own_files.runs["lr-2_model-deep"]
    assert own_files.records["lr-2_model-deep"]["error"]["type"] == "SystemExit"
    # What is tried again finds no file of the attempt before.
    assert own_files.sweep("lr=0.1,2", "model=small,deep").code == 2
    assert '"seen": []' in (failed / "result.json").read_text()
    assert sorted(path.name for path in (failed / "attempt-1").iterdir()) == [
        ".coreai",
        "checkpoints",
        "metrics.csv",
        "progress.json",
        "result.json",
    ]
    assert own_files.states["lr-2_model-deep"] == ("failed", 2)
    assert own_files.states["lr-0.1_model-deep"] == ("completed", 1)


def test_a_knob_that_an_option_lacks_is_dropped_there(own_files: AnyApp) -> None:
    said = own_files.sweep("model=small,deep", "model.depth=1,3")
    assert said.code == 0, said.err
    assert "model.depth does not count with model=small" in said.out
    assert "1 point is the same as another one and not run twice" in said.out
    assert sorted(own_files.runs) == [
        "model-deep_model.depth-1",
        "model-deep_model.depth-3",
        "model-small",
    ]


TOLD = """
import hydra
import itertools
from omegaconf import OmegaConf

count = itertools.count()
OmegaConf.register_new_resolver("fresh", lambda: f"id-{next(count)}")

@hydra.main(config_path="conf", config_name="config", version_base=None)
def main(cfg):
    print("CALLED", cfg.lr, cfg.where)
    return {returned}

if __name__ == "__main__":
    main()
"""

CONFIG = """
lr: 1
loader: {num_workers: 0}
name: ${now:%H-%M-%S-%f}
run: ${fresh:}
where: ${hydra:runtime.output_dir}/x
"""


def test_what_says_when_and_where_tells_no_runs_apart(tmp_path: Path) -> None:
    app = written(tmp_path / "a", TOLD.replace("{returned}", "cfg.lr"), conf__config=CONFIG)
    said = app.sweep("lr=1,2")
    assert said.code == 0, said.err
    assert "run is another value each time that it is read, and does not count" in said.out
    assert "not the run that was planned" not in said.out
    where = app.runs["lr-1"]
    assert f"CALLED 1 {where}/x" in said.out
    assert app.records["lr-1"]["config"]["where"] == f"{where}/x"
    # Neither does how fast data is loaded, unless that is what is swept over.
    assert app.sweep("lr=1,2", "loader.num_workers=3").last == "2 runs, 2 completed"
    assert len(app.runs) == 2
    assert app.sweep("lr=1", "loader.num_workers=1,2").last == "2 runs, 2 completed"
    more = app.sweep("lr=1,2", "hydra.sweeper.ignore=[lr]", "hydra.sweeper.name=b")
    assert more.last == "2 runs, 2 completed"  # what varies counts, whatever is ignored
    assert app.sweep("lr=1,2", "hydra.sweeper.preview=true").called == []


def test_what_a_task_may_return(tmp_path: Path) -> None:
    returned = {
        "nothing": (None, None),
        "tuple": ([1, 2.5], {"value": 1, "values": [1, 2.5]}),
        "dict": ({"a": 1}, None),
        "text": ("text", None),
        "infinite": (float("inf"), {"value": None}),
    }
    values = {name: value for name, (value, _) in returned.items()}
    task = f"dict({values!r}, tuple=(1, 2.5))[cfg.which]".replace(": inf", ": float('inf')")
    config = f"{CONFIG}which: nothing\n"
    app = written(tmp_path / "a", TOLD.replace("{returned}", task), conf__config=config)
    said = app.sweep(f"which={','.join(returned)}")
    assert said.code == 0, said.err
    for name, (_, expected) in returned.items():
        objective = app.records[f"which-{name}"]["objective"]
        named = None if expected is None else {"name": "objective", "mode": None, **expected}
        assert objective == named, name


def test_other_names_and_folders_of_configs(tmp_path: Path) -> None:
    app = written(
        tmp_path / "a",
        TOLD.replace("{returned}", "cfg.lr"),
        conf__config=CONFIG,
        conf__other="lr: 5\nwhere: there\n",
        more__model__big="size: 3\n",
    )
    said = app.sweep("--config-name=other", "lr=1,2")
    assert (said.code, "CALLED 2 there" in said.out) == (0, True), said.err
    said = app.sweep("--config-dir=more", "+model=big", "lr=1,-1")
    assert said.code == 0, said.err
    assert app.records["lr--1"]["flags"] == ["--config-dir=more"]
    assert app.records["lr--1"]["choices"] == {"model": "big"}
    package = AnyApp(app.folder, ("-m", "app"))
    assert package.sweep("lr=7,8").code == 0
    assert package.records["lr-7"]["app"]["program"] == "python -m app"


CALLBACK = """
from hydra.experimental.callback import Callback

class Ends(Callback):
    def on_multirun_end(self, config, **kwargs):
        print("ENDED")
"""


def test_the_callbacks_of_an_app_hear_of_every_end(plain: AnyApp) -> None:
    (plain.folder / "mine.py").write_text(CALLBACK)
    ends = "+hydra.callbacks.ends._target_=mine.Ends"
    for x, code in (("1", 0), ("-1", 2)):
        said = plain.sweep(f"x={x},2", ends, PYTHONPATH=str(plain.folder))
        assert (said.code, said.out.count("ENDED")) == (code, 1), said.err


LOOSE = """
import hydra
from coreai_opt.runs import record

@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    record(accuracy=0.5)
    return cfg.lr

main()
"""


def test_a_run_that_is_not_what_was_asked_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = written(tmp_path / "a", LOOSE, conf__config="lr: 1\nseed: 1\nwhere: x\n")
    probe = "where=${oc.env:COREAI_OPT_SWEEP,planner}"
    said = app.sweep("+prune=poly", "prune.schedule=none,linear", probe)
    assert said.code == 0, said.err
    told = "nothing was pruned, although prune.schedule=linear was given"
    assert said.out.count(told) == 2  # as it ends, and once more at the end
    assert "1 run is not what was asked:\n  prune.schedule-linear_" in said.out
    assert app.records["prune.schedule-linear"]["warning"] == told
    assert app.records["prune.schedule-none"]["warning"] is None
    # What came out otherwise is named, and nothing that did not.
    assert said.out.count("counts as what it is: where: planner -> {") == 2
    said = app.sweep("lr=1,2", "hydra.sweeper.objective=val/acc")
    assert said.code == 0, said.err
    assert "it has no metric 'val/acc' (hydra.sweeper.objective); allowed: accuracy" in said.out
    objective = app.records["lr-2"]["objective"]
    assert objective == {"name": "val/acc", "mode": None, "value": None}
    report([str(app.folder / "multirun"), "--no-figures", "--out", str(tmp_path / "out")])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"1 of 2 completed runs not what was asked: {told}" in shown
