"""In two processes: gradients are masked behind the reduction, and the ranks stay alike."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

COMMON = """
import itertools, os, sys
import torch
from torch import nn
import torch.distributed as dist
from contextlib import nullcontext
from tests.helpers.pruning.in_place import RAMP, assert_masked, masks, net, prepared
from coreai_opt.pruning.model.targets import pruned_tensors

torch.set_num_threads(1)

def alike(tensors):
    for tensor in tensors:
        both = [torch.empty_like(tensor) for _ in range(2)]
        dist.all_gather(both, tensor.detach().contiguous())
        assert torch.equal(*both)

def batch(step, part=0):
    seed = 100 * step + 10 * part + dist.get_rank()
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))

def moments(optimizer):
    return [value for state in optimizer.state.values() for value in state.values()
            if isinstance(value, torch.Tensor)]

def end():
    dist.barrier()
    dist.destroy_process_group()
    # Gloo's threads may abort a process of two ranks at its end, when all that is tested is over.
    os._exit(0)
"""

DDP = """
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[1]),
                        world_size=2)
rank = dist.get_rank()

def loop(view, static, accumulates, clips, algo):
    pruner, model = prepared(schedule=RAMP, algo=algo)
    optimizer = torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.1)
    pruner.attach(optimizer)
    ddp = nn.parallel.DistributedDataParallel(
        model, gradient_as_bucket_view=view, static_graph=static)
    for step in range(8):
        # A static graph is learnt in the first step, and torch reduces in that one.
        parts = 2 if accumulates and (step or not static) else 1
        for part in range(parts):
            last = part == parts - 1
            with nullcontext() if last else ddp.no_sync():
                ddp(batch(step, part)).square().mean().backward()
        if pruner.step_count > 1:
            assert_masked(pruner, gradients=True)
        gradients = [weight.grad for weight in model.parameters()]
        alike(gradients)
        # What one process gets of all batches, masked.
        twin = net()
        twin.load_state_dict(model.state_dict())
        own = [batch(step, part) for part in range(parts)]
        sum(twin(one).square().mean() for one in own).backward()
        kept = masks(pruner)
        for (name, weight), mine in zip(twin.named_parameters(), gradients):
            dist.all_reduce(weight.grad)
            whole = weight.grad / 2
            expected = torch.where(kept[name], whole, 0) if name in kept else whole
            torch.testing.assert_close(mine, expected)
        if clips:
            norm = nn.utils.clip_grad_norm_(ddp.parameters(), 1e-2)
            alike([norm])
        optimizer.step()
        if pruner.step_count > 1:
            assert_masked(pruner)
        optimizer.zero_grad()
        pruner.step()
    alike([*model.parameters(), *masks(pruner).values(), *moments(optimizer)])
    if algo == "taylor":
        alike([tensor.impl.importance for tensor in pruned_tensors(model)])
    pruner.finalize()

for view, static in itertools.product((False, True), repeat=2):
    for accumulates, clips in ((False, False), (True, True)):
        for algo in ("default", "taylor"):
            loop(view, static, accumulates, clips, algo)

model = net()
torch.manual_seed(rank)  # a script that seeds each rank otherwise, or none
pruner, model = prepared(model, schedule=RAMP, algo="random")
for step in range(8):
    pruner.step()
assert pruner.at_target()
alike([*model.parameters(), *masks(pruner).values()])
end()
"""

SHARDED = """
from torch.distributed.optim import ZeroRedundancyOptimizer
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[1]),
                        world_size=2)
pruner, model = prepared(schedule=RAMP)
ddp = nn.parallel.DistributedDataParallel(model)
optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.05)
pruner.attach(optimizer)
for step in range(8):
    ddp(batch(step)).square().mean().backward()
    optimizer.step()
    if pruner.step_count > 1:
        assert_masked(pruner)
    optimizer.zero_grad()
    pruner.step()
alike([*model.parameters(), *masks(pruner).values()])
for tensor in pruned_tensors(model):
    state = optimizer.optim.state.get(tensor.original)
    if state:  # of this rank's share
        assert not state["exp_avg"][~tensor.impl.mask].any()
assert_masked(pruner)
end()
"""

FABRIC = """
from lightning_fabric import Fabric
fabric = Fabric(accelerator="cpu", devices=int(sys.argv[1]), strategy=sys.argv[2])
fabric.launch()
pruner, model = prepared(schedule=RAMP)
plain, inner = model, torch.optim.AdamW(model.parameters(), 0.05)
model, optimizer = fabric.setup(model, inner)
pruner.attach(optimizer, inner)
for step in range(8):
    optimizer.zero_grad()
    own = torch.Generator().manual_seed(9 * step + fabric.global_rank)
    inputs = torch.randn(4, 8, generator=own)
    fabric.backward(model(inputs).square().mean())
    fabric.clip_gradients(model, optimizer, max_norm=0.1)
    if pruner.step_count > 1:
        assert_masked(pruner, gradients=True)
    optimizer.step()
    pruner.step()
assert_masked(pruner)
assert pruner.at_target()
assert list(plain.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
assert len(inner._optimizer_step_post_hooks) == 1
if fabric.world_size > 1:
    alike([*plain.parameters(), *masks(pruner).values(), *moments(inner)])
    end()
"""


def started(tmp_path: Path, code: str, *arguments: str) -> "subprocess.Popen[str]":
    program = tmp_path / "program.py"
    program.write_text(COMMON + code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(program), *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: "subprocess.Popen[str]") -> None:
    output = process.communicate(timeout=180)[0]
    assert process.returncode == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("code", [DDP, SHARDED], ids=["ddp", "zero redundancy"])
def test_two_ranks(tmp_path: Path, code: str) -> None:
    ranks = [started(tmp_path, code, str(rank), str(tmp_path / "meeting")) for rank in (0, 1)]
    for rank in ranks:
        finished(rank)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "strategy"), [("1", "auto"), ("2", "ddp")])
def test_fabric(tmp_path: Path, devices: str, strategy: str) -> None:
    finished(started(tmp_path, FABRIC, devices, strategy))
