"""What an app adds to its record: numbers, and anything else, which never ends its run."""

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from coreai_opt.runs import record
from coreai_opt.runs.run_record import Progress, write_json
from coreai_opt.runs.values import RunValues, as_number, open_values


def test_numbers_are_metrics_and_the_rest_is_what_json_has_for_it(tmp_path: Path) -> None:
    with RunValues(Progress(), tmp_path) as values, warnings.catch_warnings():
        warnings.simplefilter("error")
        record(a=1, b=torch.tensor([2.5]), c=np.array([[3]]), d=np.float32(4), text="e")
        record(a=5, odd={"t": torch.float16, "s": {2, 1}}, several=torch.ones(2), many=[1, (2,)])
    assert values.metrics == {"a": 5.0, "b": 2.5, "c": 3.0, "d": 4.0}
    write_json(tmp_path / "a.json", values.values)
    kept = json.loads((tmp_path / "a.json").read_text())
    assert kept["text"] == "e"
    assert kept["odd"] == {"t": "<torch.dtype torch.float16>", "s": ["1", "2"]}
    assert kept["many"] == [1, [2]]
    assert "tensor([1., 1.])" in kept["several"]


def test_outside_of_a_recorded_run_nothing_happens() -> None:
    record(a=1)
    assert open_values() is None
    assert as_number(10**400) is None


def test_what_a_spawned_process_leaves_is_told_in_order(tmp_path: Path) -> None:
    values, spawned = (RunValues(Progress(), tmp_path) for _ in range(2))
    spawned.leave("fit", {"loss": 2.0}, {"training": {"steps": 3}})
    spawned.leave("fit", {"loss": 1.0, "acc": 0.5}, {})
    values.finish()
    assert values.metrics == {"loss": 1.0, "acc": 0.5}
    assert list(values.by_stage) == ["fit", "fit-2"]
    assert values.facts == {"training": {"steps": 3}}
    assert not list(tmp_path.iterdir())
