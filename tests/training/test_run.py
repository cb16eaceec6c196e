"""One run: its record, its weights, and how it ends."""

import csv
import json
import signal
from collections.abc import Callable
from math import log, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch

from coreai_opt.config.errors import ConfigError, RunFailedError
from coreai_opt.models import MLP
from coreai_opt.runs.signals import Interrupted
from coreai_opt.training.run import run
from tests.conftest import composed
from tests.helpers.quick_runs import QUICK, QUICK_FOR_THEIRS

pytestmark = pytest.mark.usefixtures("without_picture")

QuickRun = Callable[..., dict[str, Any]]

FIELDS = (
    "schema kind run_id sweep status started finished wall_seconds attempts resumed_at overrides "
    "choices flags config config_hash planned_hash seed git versions data threads device training "
    "objective metrics sparsity parameters operations deploy checkpoints warmup error"
)


def without_times_and_paths(record: dict[str, Any]) -> str:
    kept = {key: value for key, value in record.items() if key not in ("run_id", "started")}
    for key in ("finished", "wall_seconds"):
        del kept[key]
    text = json.dumps(kept, sort_keys=True)
    return text.replace(record["config"]["paths"]["run_dir"], "RUN_DIR")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that has completed, with its picture."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    run(composed(directory, *QUICK))
    return directory


def record_in(directory: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return record


def test_the_record_of_a_completed_run_says_everything(finished: Path) -> None:
    record = record_in(finished)
    assert " ".join(record) == FIELDS
    assert record["status"] == "completed"
    assert record["error"] is None
    assert record["training"] == {"epochs": 3, "steps": 18, "steps_per_epoch": 6}
    assert record["objective"]["name"] == "val/accuracy"
    assert record["objective"]["value"] == record["metrics"]["val/accuracy"]
    assert {"test/accuracy", "test/loss", "last/val/accuracy"} <= record["metrics"].keys()
    assert record["threads"] == torch.get_num_threads()
    assert record["device"]["accelerator"] == "cpu"
    assert set(record["versions"]) == {
        "python",
        "torch",
        "pytorch_lightning",
        "hydra",
        "coreai_opt",
    }
    assert record["config"]["schedule"]["power"] == 3.0


def test_files_of_a_run_are_where_the_design_says(finished: Path) -> None:
    for name in (
        "result.json",
        "progress.json",
        "metrics.csv",
        "sparsity.csv",
        "weights.pt",
        "run.png",
    ):
        assert (finished / name).stat().st_size > 0, name
    assert {file.name for file in (finished / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }
    assert not list(finished.glob(".*.json*")), "half-written files are left"


def test_the_curve_of_the_validation_has_one_point_an_epoch(finished: Path) -> None:
    with (finished / "metrics.csv").open(newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file) if row["val/accuracy"]]
    assert steps == ["5", "11", "17"]


def test_weights_load_into_the_plain_network_and_hold_the_recorded_zeros(
    finished: Path,
) -> None:
    record = record_in(finished)
    state = torch.load(finished / "weights.pt", weights_only=True)
    network = MLP([1, 8, 8], 10, [16])
    assert list(state) == list(network.state_dict())
    network.load_state_dict(state)
    layers = [name for name, value in state.items() if value.ndim == 2]
    assert [layer["name"] for layer in record["sparsity"]["layers"]] == [
        f"network.{name}" for name in layers
    ]
    for layer, name in zip(record["sparsity"]["layers"], layers, strict=True):
        assert layer["nonzero"] == int((state[name] != 0).sum())
        assert layer["elements"] - layer["nonzero"] == int(layer["elements"] * 0.9)
    nonzero = sum(int((value != 0).sum()) for value in state.values())
    assert record["parameters"] == {"total": 1210, "nonzero": nonzero}


def test_the_same_seed_twice_gives_the_same_record_and_weights(
    finished: Path, quick_run: QuickRun, tmp_path: Path
) -> None:
    first, second = record_in(finished), quick_run()
    assert without_times_and_paths(first) == without_times_and_paths(second)
    one, two = (torch.load(folder / "weights.pt") for folder in (finished, tmp_path / "run"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    other = quick_run("seed=2", name="other")
    assert other["metrics"] != first["metrics"]
    assert other["config_hash"] != first["config_hash"]


def test_the_dense_control_has_no_masks_and_keeps_every_weight(
    compose_config: Any, tmp_path: Path
) -> None:
    base = [item for item in QUICK if not item.startswith("total_iters")]
    run(compose_config(*base, "schedule=none"))
    record = record_in(tmp_path / "run")
    assert record["sparsity"]["target"] == 0.0
    assert record["sparsity"]["achieved"] < 0.01
    assert [layer["target"] for layer in record["sparsity"]["layers"]] == [None, None]
    assert record["checkpoints"]["best"] == "checkpoints/best.ckpt"


def test_validation_and_test_come_from_the_best_checkpoint_at_target(
    quick_run: QuickRun, tmp_path: Path
) -> None:
    record = quick_run("optimizer.lr=0.5")
    best = torch.load(tmp_path / "run" / record["checkpoints"]["best"], weights_only=True)
    exported = torch.load(tmp_path / "run" / "weights.pt", weights_only=True)
    weight = exported["layers.1.weight"]
    assert torch.equal(weight, best["state_dict"]["network.layers.1.weight"])
    assert int((weight == 0).sum()) == int(0.9 * weight.numel())
    # The ramp of 8 steps ends in the second of three epochs of 6 steps.
    assert best["epoch"] >= 1
    assert record["checkpoints"]["last"] == "checkpoints/last.ckpt"


def test_a_checkpoint_callback_of_the_modules_own_does_not_choose(
    compose_config: Any, user_module: str, tmp_path: Path
) -> None:
    base = [item for item in QUICK_FOR_THEIRS if not item.startswith("data.")]
    theirs = [f"model._target_={user_module}.Choosing", f"data._target_={user_module}.Data"]
    run(compose_config(*base, *theirs, "objective.name=val/score"))
    record = record_in(tmp_path / "run")
    assert record["checkpoints"]["best"] == "checkpoints/best.ckpt"
    assert abs(record["sparsity"]["achieved"] - 0.9) < 0.01


def test_extra_state_that_is_no_tensor_is_exported(
    compose_config: Any, user_module: str, tmp_path: Path
) -> None:
    base = [item for item in QUICK_FOR_THEIRS if not item.startswith("data.")]
    theirs = [f"model._target_={user_module}.WithState", "data=digits", "data.num_train=96"]
    run(compose_config(*base, *theirs, "total_iters=4"))
    state = torch.load(tmp_path / "run" / "weights.pt", weights_only=True)
    assert state["_extra_state"] == {"any": "thing"}


def test_a_second_run_in_the_same_directory_is_refused(compose_config: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a record that cannot be read"):
        run(compose_config(*QUICK))
    assert (tmp_path / "run" / "result.json").read_text() == "{}"


def test_more_images_than_there_are_is_one_sentence(compose_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"num_train \(1797\).* leave no image to test on"):
        run(compose_config(*QUICK, "data.num_train=1797"))


def test_a_failing_run_leaves_a_record_with_its_traceback(
    compose_config: Any, user_module: str, tmp_path: Path
) -> None:
    cfg = compose_config(
        *QUICK_FOR_THEIRS, f"model._target_={user_module}.Failing", "objective.name=val/score"
    )
    with pytest.raises(RunFailedError, match="in the user's own step"):
        run(cfg)
    record = record_in(tmp_path / "run")
    assert record["status"] == "failed"
    assert record["error"]["type"] == "ZeroDivisionError"
    assert "training_step" in record["error"]["traceback"]


@pytest.mark.parametrize(("error", "code"), [("KeyboardInterrupt", 130), ("SIGTERM", 143)])
def test_an_interrupted_run_says_so_and_gives_the_signal_handlers_back(
    compose_config: Any, user_module: str, tmp_path: Path, error: str, code: int
) -> None:
    module = __import__(user_module)
    if error == "SIGTERM":
        module.Stopped.error = Interrupted(signal.SIGTERM)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    cfg = compose_config(
        *QUICK_FOR_THEIRS, f"model._target_={user_module}.Stopped", "objective.name=val/score"
    )
    with pytest.raises(SystemExit) as caught:
        run(cfg)
    assert caught.value.code == code
    record = record_in(tmp_path / "run")
    assert record["status"] == "interrupted"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_objective_that_nobody_logs_is_one_sentence_with_the_nearest(
    compose_config: Any,
) -> None:
    with pytest.raises(ConfigError, match=r"val/acc: no such metric.*did you mean 'val/accuracy'"):
        run(compose_config(*QUICK, "objective.name=val/acc"))


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no")
def test_a_model_that_logs_nothing_is_told_so(compose_config: Any, user_module: str) -> None:
    base = [item for item in QUICK_FOR_THEIRS if not item.startswith("data.")]
    theirs = [f"model._target_={user_module}.Silent", f"data._target_={user_module}.Data"]
    with pytest.raises(ConfigError, match=r"no such metric was logged; the model logs none"):
        run(compose_config(*base, *theirs))


def test_a_config_that_only_building_shows_to_be_bad_leaves_a_record(
    compose_config: Any, user_module: str, tmp_path: Path
) -> None:
    cfg = compose_config(*QUICK_FOR_THEIRS, f"model._target_={user_module}.not_a_model")
    with pytest.raises(ConfigError, match="makes a int; allowed: a LightningModule"):
        run(cfg)
    record = record_in(tmp_path / "run")
    assert record["status"] == "failed"
    assert record["error"]["type"] == "ConfigError"


def test_a_ramp_too_long_for_data_of_unknown_length_is_refused_by_the_callback(
    compose_config: Any, user_module: str
) -> None:
    given = [
        "total_iters=13",
        f"data._target_={user_module}.Data",
        f"model._target_={user_module}.Net",
    ]
    base = [item for item in QUICK_FOR_THEIRS if not item.startswith(("total", "data."))]
    cfg = compose_config(*base, *given)
    with pytest.raises(ConfigError, match=r"ends after 13 steps .* the training has 12"):
        run(cfg)


CURVES: list[tuple[list[str], dict[int, float]]] = [
    (["schedule=cosine", "total_iters=9"], {2: 0.9 * (1 - sqrt(0.5)) / 2, 4: 0.45, 8: 0.9}),
    (["schedule=exponential", "total_iters=9", f"rate={log(4)}"], {4: 0.6, 8: 0.9, 10: 0.9}),
    (
        ["schedule=multistep", "milestones=[3,8]", "levels=[0.5,1.0]"],
        {2: 0.0, 4: 0.45, 6: 0.45, 8: 0.9, 10: 0.9},
    ),
]


@pytest.mark.parametrize(("overrides", "expected"), CURVES, ids=lambda value: str(value))
def test_a_run_follows_its_curve_to_the_target(
    compose_config: Any, tmp_path: Path, overrides: list[str], expected: dict[int, float]
) -> None:
    base = [item for item in QUICK if not item.startswith("total_iters")]
    run(compose_config(*base, *overrides))
    record = record_in(tmp_path / "run")
    assert record["sparsity"]["achieved"] == pytest.approx(0.9, abs=1e-3)
    with (tmp_path / "run" / "sparsity.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "total"]
    scheduled = {int(row["step"]): float(row["scheduled"]) for row in rows}
    assert {step: scheduled[step] for step in expected} == pytest.approx(expected, abs=1e-6)
