"""Two processes that train with transformers.Trainer (DDP over gloo) end with the same model."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.helpers.huggingface import MARKS

pytestmark = [*MARKS, pytest.mark.slow]

PROGRAM = """
import sys
import torch
from tests.helpers.huggingface import callback_of, pruning, trainer, transformers
import warnings

where, start = sys.argv[1], (sys.argv[2:] or [None])[0]


class Spoil(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if start == "spoil" and args.process_index == 1 and state.global_step == 4:
            kwargs["model"].lm_head.weight.data[:] = torch.randn(40, 8)


given = {"gradient_accumulation_steps": 2, "ddp_backend": "gloo", "save_strategy": "steps"}
given |= {"save_steps": 2, "num_train_epochs": 6, "max_grad_norm": 0.01}
one = trainer(where, Spoil(), pruning(0, 90), **given)
one.train(resume_from_checkpoint=None if start == "spoil" else start)
state = {"model": one.model.state_dict(), "clock": callback_of(one).clock}
torch.save(state, f"{where}/rank-{one.args.process_index}.pt")
"""


def run(directory: Path, *arguments: str) -> list[str]:
    """Run the program in two processes; return what each has said."""
    script = directory.with_suffix(".py")
    script.write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    variables |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, script, directory, *arguments],
            env={**os.environ, **variables, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    return [rank.communicate(timeout=180)[0] for rank in ranks]


def states(directory: Path) -> list[dict[str, torch.Tensor]]:
    saved = [torch.load(directory / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [each["clock"] for each in saved] == [100, 100]
    return [each["model"] for each in saved]


def test_two_processes_prune_alike_and_go_on_exactly(tmp_path: Path) -> None:
    said = run(tmp_path / "whole")
    assert (tmp_path / "whole" / "rank-1.pt").exists(), said[1]
    first, second = states(tmp_path / "whole")
    assert all(torch.equal(first[name], second[name]) for name in first)
    for layer in ("attn.c_attn", "mlp.c_proj"):
        weight = first[f"transformer.h.0.{layer}.weight"]
        assert float((weight == 0).float().mean()) == 0.75
    assert (said[0] + said[1]).count("left dense") == 1
    checkpoint = tmp_path / "whole" / "checkpoint-4"
    said = run(tmp_path / "resumed", str(checkpoint))
    assert (tmp_path / "resumed" / "rank-1.pt").exists(), said[1]
    for resumed in states(tmp_path / "resumed"):
        assert all(torch.equal(first[name], resumed[name]) for name in first)


def test_masks_that_differ_end_the_training_on_both(tmp_path: Path) -> None:
    said = run(tmp_path / "spoiled", "spoil")
    for each in said:
        assert "masks differ between the processes at percent" in each
        assert "'transformer.wte.weight' on rank 1" in each
