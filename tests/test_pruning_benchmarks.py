"""The benchmarks of masks and steps compare like with like, and count what there is."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from coreai_opt.pruning.masks import unstructured_mask
from tests.conftest import ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Import a benchmark by its name; run its command into a JSON file."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def load(name: str, *arguments: str) -> Any:
        module = importlib.import_module(f"bench_{name}")
        if not arguments:
            return module
        written = tmp_path / "results.json"
        monkeypatch.setattr(sys, "argv", ["bench", "--json", str(written), *arguments])
        module.main()
        return json.loads(written.read_text())

    return load


def test_both_masks_are_the_same_one(bench: Any) -> None:
    weight = torch.randn(50, 60)
    theirs = bench("masks").topk_and_scatter(weight, 0.7)
    assert torch.equal(theirs.bool().view(50, 60), unstructured_mask(weight.abs(), 0.7))


def test_masks(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--side", "64", "--largest", "10000", "--layers", "3", "--repeats", "1")
    found = bench("masks", *small)
    assert [row["sparsity"] for row in found["masks"]] == [0.3, 0.5, 0.7, 0.9]
    assert all(row["ratio"] == row["topk_s"] / row["mask_s"] for row in found["masks"])
    assert [row["weights"] for row in found["sizes"]] == [10_000]
    layers = [(row["way"], row["layers"], row["weights"]) for row in found["layers"]]
    ways = ("on the model", "in place")
    assert layers == [(way, *each) for way in ways for each in ((3, 30_000), (1, 173**2))]
    assert found["versions"]["torch"] == torch.__version__
    assert "4,096 weights" in capsys.readouterr().out


@pytest.mark.slow
def test_steps(bench: Any, capfd: pytest.CaptureFixture[str]) -> None:
    small = ("--models", "conv", "--optimizers", "sgd", "--steps", "1", "--layers", "2")
    phases = ("ramp", "after", "after, no regrowth")
    found = bench("steps", *small, "--phases", *phases)
    rows = {(row["way"], row["phase"]): row for row in found["rows"]}
    ways = ("on the model", "in place")
    assert list(rows) == [("dense", ""), *((way, phase) for way in ways for phase in phases)]
    assert rows["dense", ""]["ratio"] == 1
    assert {row["weights"] for row in rows.values()} == {390_496}
    # Counted, not timed: a mask of one byte, and the dense values unless nothing may come back.
    assert rows["dense", ""]["extra_bytes_a_weight"] == 0
    for way in ways:
        assert rows[way, "after"]["extra_bytes_a_weight"] == pytest.approx(5, abs=0.3)
        bare = rows[way, "after, no regrowth"]["extra_bytes_a_weight"]
        assert bare == pytest.approx(1, abs=0.3)
        assert rows[way, "ramp"]["waits_in_pruner"] == 1
    assert rows["in place", "after"]["launches"] <= 10 < rows["on the model", "after"]["launches"]
    assert [row["layers"] for row in found["callback"]] == [2]
    assert "where the time of a step goes" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("what", "wrong", "told"),
    [
        ("masks", "--device tpu", "'tpu'; allowed here: cpu"),
        ("masks", "--repeats 0", "'0'; allowed: a whole number from 1 on"),
        ("masks", "--largest 5", "'5'; allowed: a whole number from 10000 on"),
        (
            "masks",
            "--json /nowhere/x.json",
            "'/nowhere/x.json'; allowed: a file in a folder",
        ),
        ("steps", "--steps two", "'two'; allowed: a whole number from 1 on"),
        ("startup", "--repeat -1", "'-1'; allowed: a whole number from 1 on"),
        ("sweep", "--runs 1", "'1'; allowed: a whole number from 2 on"),
    ],
)
def test_wrong_options_are_one_sentence(
    bench: Any, capsys: pytest.CaptureFixture[str], what: str, wrong: str, told: str
) -> None:
    with pytest.raises(SystemExit):
        bench(what, *wrong.split())
    *usage, last = capsys.readouterr().err.splitlines()
    assert told in last
    assert usage[0].startswith(f"usage: scripts/bench {what}")
