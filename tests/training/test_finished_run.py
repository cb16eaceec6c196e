"""A finished run that is loaded again."""

import json
from pathlib import Path

import pytest
import torch

from coreai_opt.training.finished_run import NoRunError, load_run
from coreai_opt.training.run import run as train
from tests.conftest import composed
from tests.helpers.quick_runs import QUICK


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("it's a run") / "run"
    train(composed(directory, *[word for word in QUICK if "limit_test" not in word]))
    return directory


def test_a_run_its_weights_and_its_checkpoints_are_loaded(run: Path) -> None:
    saved = torch.load(run / "weights.pt", weights_only=True)
    record = json.loads((run / "result.json").read_text())
    for path in (run, run / "weights.pt", run / record["checkpoints"]["last"]):
        loaded = load_run(path)
        assert loaded.network.state_dict().keys() == saved.keys()
        assert not loaded.network.training
        assert loaded.test_inputs(5).shape[0] == 5
    for name, value in load_run(run).network.state_dict().items():
        assert torch.equal(value, saved[name])


def test_it_is_measured_as_it_was(run: Path) -> None:
    loaded = load_run(run)
    measured = loaded.trainer().test(loaded.module, loaded.data, verbose=False)[0]
    record = json.loads((run / "result.json").read_text())
    assert measured["test/accuracy"] == pytest.approx(record["metrics"]["test/accuracy"])


def test_what_is_no_run_is_refused_in_a_sentence(run: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for path, sentence in {
        tmp_path / "no": "there is no",
        tmp_path / "inner": "not in the directory of a run",
        run / "result.json": "is no checkpoint",
    }.items():
        with pytest.raises(NoRunError, match=sentence):
            load_run(path)
