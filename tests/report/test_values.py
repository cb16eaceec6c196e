"""One value has one text in tables, whether it was typed, and however, or is the default."""

from pathlib import Path
from typing import Any

import pytest

from coreai_opt.report.records import RunRow
from coreai_opt.report.values import knob_value

LAYER = {"a.1": {"sparsity": 0.5, "bias": None}}

# What is typed, what the config has then, and what both are called.
SAME: list[tuple[str, Any, str]] = [
    ("[300,100]", [300, 100], "[300,100]"),
    ("[300, 100.0]", [300, 100], "[300,100]"),
    ("[ 'a', b ]", ["a", "b"], "[a,b]"),
    ("[]", [], "[]"),
    ("True", True, "true"),
    ("true", True, "true"),
    ("yes", True, "true"),
    ("Off", False, "false"),
    ("1e-3", 0.001, "0.001"),
    ("0.0010", 0.001, "0.001"),
    ("2.0", 2, "2"),
    ("null", None, "null"),
    ("NULL", None, "null"),
    ("'some words'", "some words", "some words"),
    ("some_word", "some_word", "some_word"),
    ("${other}", 7, "7"),
    ("{a.1: {sparsity: 5e-1, bias: null}}", LAYER, "{a.1:{bias:null,sparsity:0.5}}"),
    ("[{a: 1},[2, 3]]", [{"a": 1}, [2, 3]], "[{a:1},[2,3]]"),
]


def row(config: dict[str, Any], *overrides: str, **record: Any) -> RunRow:
    content = {"config": config, "overrides": list(overrides), **record}
    return RunRow(Path("a"), "", "completed", content)


@pytest.mark.parametrize(("typed", "value", "text"), SAME, ids=str)
def test_typed_and_by_default(typed: str, value: Any, text: str) -> None:
    config = {"node": {"key": value}}
    assert knob_value(row(config), "node.key") == text
    for sign in ("", "++"):
        assert knob_value(row(config, f"{sign}node.key={typed}"), "node.key") == text


def test_a_knob_at_the_root_is_what_its_node_makes_of_it() -> None:
    config = {"allow_regrowth": "yes", "pruning": {"allow_regrowth": True}, "name": "yes"}
    assert knob_value(row(config, "allow_regrowth=yes"), "allow_regrowth") == "true"
    assert knob_value(row(config, "name=yes"), "name") == "yes"


def test_an_option_is_told_by_its_name() -> None:
    config = {"model": {"_target_": "coreai_opt.models.MLP", "hidden": [5]}}
    choices = {"model": "mlp", "callbacks": ["default", "early_stopping"]}
    assert knob_value(row(config, "model=mlp"), "model") == "mlp"
    assert knob_value(row(config, choices=choices), "model") == "mlp"
    assert knob_value(row(config), "model") == "MLP"  # a record of before
    typed = row(config, "callbacks=[default, early_stopping]")
    assert knob_value(typed, "callbacks") == knob_value(row(config, choices=choices), "callbacks")


def test_a_node_below_is_its_class_and_values() -> None:
    node = {"_target_": "coreai_opt.models.cosine", "_partial_": True, "warmup_steps": 3}
    config = {"optimizer": {"lr_schedule": node}}
    typed = row(config, "optimizer.lr_schedule={warmup_steps: 3}")
    assert knob_value(typed, "optimizer.lr_schedule") == "cosine{warmup_steps:3}"
    assert knob_value(row(config), "optimizer.lr_schedule") == "cosine{warmup_steps:3}"


def test_what_is_missing_or_nonsense_has_no_value_of_its_own() -> None:
    assert knob_value(row({}), "node.key") is None
    assert knob_value(row({"node": {"key": 1}}, "~node.key"), "node.key") == ""
    assert knob_value(row({}, "a=[1, 2"), "a") == "[1, 2"


def test_a_dense_control_of_another_app_has_no_knobs_of_pruning() -> None:
    knobs = {"schedule": "none", "target_sparsity": 0.8, "power": 3.0, "masks_from": "schedule"}
    record = {
        "app": {"name": "a"},
        "config": {"prune": knobs, "lr": 1, "width": 8},
        "overrides": ["prune.target_sparsity=0.8", "prune.schedule=none", "lr=1"],
    }
    row = RunRow(Path("a"), "", "completed", record)
    assert knob_value(row, "prune.target_sparsity") is None
    assert (knob_value(row, "prune.schedule"), knob_value(row, "lr")) == ("none", "1")
    # What is not typed is the app's own, and no alias of ours.
    assert knob_value(row, "width") == "8"
