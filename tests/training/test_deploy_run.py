"""Deployment at the end of a run, of a finished run, and in a sweep that was done before."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from coreai_opt.cli.deploy_command import main
from coreai_opt.deploy import registry
from coreai_opt.training.run import run
from tests.conftest import composed
from tests.helpers.documents import blocks
from tests.helpers.quick_runs import QUICK

FILE = Path(__file__).name


@pytest.fixture(autouse=True)
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out peak memory: its processes take two seconds each."""
    monkeypatch.setattr("coreai_opt.deploy.deployment.peak_bytes", lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished") / "run"
    run(composed(directory, *QUICK))
    return directory


def record_in(directory: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return record


def test_a_run_deploys_its_model_and_stays_complete_where_a_target_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.TARGETS, "onnx", registry._Entry("no_such_module", "No"))
    run(composed(tmp_path / "run", *QUICK, "deploy=[torch,onnx]"))
    record = record_in(tmp_path / "run")
    assert (record["status"], record["deploy"]["threads"]) == ("completed", 1)
    targets = record["deploy"]["targets"]
    assert targets["torch"]["largest_difference"] == 0.0
    assert targets["torch"]["examples"] == 1024
    assert "pip install 'hydra-coreai-opt[onnx]'" in targets["onnx"]["error"]
    assert "not deployed to onnx: " in capsys.readouterr().out
    saved = torch.load(tmp_path / "run/deploy/torch/weights.pt", weights_only=True)
    weights = torch.load(tmp_path / "run/weights.pt", weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in saved.items())


def test_a_control_is_deployed_as_well(tmp_path: Path) -> None:
    dense = [word for word in QUICK if not word.startswith("total_iters")]
    run(composed(tmp_path / "run", *dense, "schedule=none", "deploy=[torch]"))
    deployed = record_in(tmp_path / "run")["deploy"]
    assert deployed["zeros"] == 0.0
    assert deployed["targets"]["torch"]["error"] is None


def test_a_finished_run_is_deployed_by_the_command(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--batch-sizes", "1", "4", "--threads", "2"]
    main([str(finished), "--targets", "torch", *words])
    main([str(finished), "--targets", "sparse_cpu", *words])
    record = record_in(finished)
    assert record["status"] == "completed"
    assert record["deploy"]["batch_sizes"] == [1, 4]
    assert list(record["deploy"]["targets"]) == ["torch", "sparse_cpu"]
    told = capsys.readouterr().out
    assert "p50, batch 4" in told
    assert f"written: {finished / 'deploy'}" in told
    main(
        [str(finished / "weights.pt"), "--targets", "torch", "--out", str(tmp_path / "out"), *words]
    )
    assert (tmp_path / "out/torch/weights.pt").is_file()


def test_commands_of_the_page_work(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outputs").mkdir()
    shutil.copytree(finished, tmp_path / "outputs/mine")
    monkeypatch.chdir(tmp_path)
    commands = [one.code for one in blocks("bash") if one.tested_by == f"tests/training/{FILE}"]
    lines = [shlex.split(line) for code in commands for line in code.splitlines()]
    assert [words[0] for words in lines] == ["coreai-deploy"] * 2
    for words in lines:
        main(words[1:])


def make_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_a_file_of_no_run_is_deployed_in_a_network_of_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = make_network()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "dense.ckpt")
    torch.save(torch.randn(5, 1, 8, 8), tmp_path / "inputs.pt")
    given = ["--network", f"{__name__}.make_network", "--inputs", str(tmp_path / "inputs.pt")]
    with pytest.raises(SystemExit, match=r"error: nothing is sparse: 0.0 % zeros in .*dense.ckpt"):
        main([str(tmp_path / "dense.ckpt"), *given])
    network[1].weight.data[:5] = 0
    torch.save({"state_dict": network.state_dict()}, tmp_path / "sparse.ckpt")
    out = ["--out", str(tmp_path / "out"), "--targets", "torch"]
    main([str(tmp_path / "sparse.ckpt"), *given, *out])
    assert (tmp_path / "out/torch/weights.pt").is_file()
    assert "100.00 %" in capsys.readouterr().out


def test_wrong_words_end_in_a_sentence(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    own = ["--network", f"{__name__}.make_network"]
    for words, sentence in [
        ([str(tmp_path / "none")], "error: there is no"),
        ([str(finished), "--targets", "onxx"], "error: no target is called 'onxx'; allowed: torch"),
        ([str(finished), "--batch-sizes", "0"], "error: argument --batch-sizes: '0' is no whole"),
        ([str(finished), "--out", str(tmp_path / "file")], "error: .*file"),
        ([str(finished), *own], "error: --network needs --inputs FILE"),
        ([str(finished), "--network", "no.Net", "--inputs", "x"], "error: --network=no.Net cannot"),
        (
            [str(finished / "weights.pt"), *own, "--inputs", "x"],
            "error: .*weights.pt does not fit the model; unexpected keys: 2",
        ),
    ]:
        with pytest.raises(SystemExit, match=sentence):
            main(words)
