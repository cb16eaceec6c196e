"""A model that is pruned in place is the user's own at every moment."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from coreai_opt.pruning import InPlacePruner
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.saving.masks_beside import masks_beside
from tests.helpers.pruning.in_place import INPUTS, RAMP, config, loss_of, net, prepared, stepped

Look = Callable[[nn.Module], Any]


def structure(model: nn.Module) -> Any:
    """All that is not to change: names, order and identity, state dict, classes, attributes."""
    return {
        "parameters": [(name, id(value)) for name, value in model.named_parameters()],
        "buffers": [(name, id(value)) for name, value in model.named_buffers()],
        "state": [(key, value.shape, value.dtype) for key, value in model.state_dict().items()],
        "modules": [(name, type(module)) for name, module in model.named_modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "hooks": [
            len(getattr(module, kind))
            for module in model.modules()
            for kind in vars(module)
            if kind.endswith("_hooks")
        ],
        "parameters' attributes": [dir(value) for value in model.parameters()],
        "trained": [value.requires_grad for value in model.parameters()],
    }


def test_nothing_of_a_model_changes_but_the_values_of_its_weights() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8))
    model.append(nn.LSTM(8, 4))
    inputs = torch.randn(3, 2, 4, 4)
    before = structure(model)
    pruner = InPlacePruner(model, config(0.5, RAMP))
    assert pruner.prepare() is model
    assert structure(model) == before
    optimizer = AdamW(model.parameters())
    pruner.attach(optimizer)
    assert structure(model) == before
    for _ in range(8):
        model(inputs)[0].square().mean().backward()
        optimizer.step()
        pruner.step()
        assert structure(model) == before
    assert pruner.at_target()
    assert pruner.finalize() is model
    assert structure(model) == before


def saved_whole(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


COPIES: list[Callable[[nn.Module], nn.Module]] = [
    copy.deepcopy,
    copy.copy,
    lambda model: pickle.loads(pickle.dumps(model)),
    saved_whole,
]


@pytest.mark.parametrize("algo", ["default", "taylor"])
@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "copy", "pickle", "save"])
def test_a_copy_has_the_weights_and_nothing_of_the_pruning(copied: Any, algo: str) -> None:
    pruner, model = prepared(schedule=RAMP, algo=algo)
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=3)
    again = copied(model)
    assert all(map(torch.equal, again.parameters(), model.parameters()))
    if copied is copy.copy:
        return  # its layers are those of the model
    assert not any(pruned_tensors(again))
    for weight in again.parameters():
        assert not weight._backward_hooks
        assert not weight._post_accumulate_grad_hooks
    zeros = int((again[0].weight == 0).sum())
    optimizer = SGD(again.parameters(), 0.1)
    loss_of(again).backward()
    optimizer.step()
    assert int((again[0].weight == 0).sum()) < zeros  # a dense one


WITHOUT_US = """
import sys, torch
model = torch.load(sys.argv[1], weights_only=False)
assert "coreai_opt" not in sys.modules
assert int((model[0].weight == 0).sum()) == 64
model(torch.ones(1, 8)).sum().backward()
assert bool(model[0].weight.grad[model[0].weight == 0].any())
"""


def test_a_model_that_was_saved_whole_loads_without_this_package(tmp_path: Path) -> None:
    pruner, model = prepared()
    pruner.attach(SGD(model.parameters(), 0.1))
    loss_of(model).backward()
    torch.save(model, tmp_path / "model.pt")
    program = [sys.executable, "-I", "-c", WITHOUT_US, str(tmp_path / "model.pt")]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def traced(model: nn.Module) -> Any:
    return torch.jit.trace(model, INPUTS)  # type: ignore[no-untyped-call]


def exported(model: nn.Module) -> Any:
    return torch.export.export(model, (INPUTS,)).module()


def functional(model: nn.Module) -> Callable[[Tensor], Tensor]:
    own = {name: value.detach() for name, value in model.named_parameters()}
    return lambda inputs: torch.func.functional_call(model, own, (inputs,))


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.parametrize("taken", [traced, exported, functional])
def test_it_is_traced_and_exported_in_mid_ramp_with_all_hooks_on(taken: Any) -> None:
    pruner, model = prepared(schedule=RAMP)
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=3)
    loss_of(model).backward()
    result = taken(model)
    assert torch.equal(result(INPUTS), model(INPUTS))
    stepped(pruner, model, optimizer)  # and the training goes on


@pytest.mark.slow
def test_onnx_in_mid_ramp(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="ONNX export needs onnx")
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript")
    pruner, model = prepared()
    pruner.attach(SGD(model.parameters(), 0.1))
    torch.onnx.export(model.eval(), (INPUTS,), tmp_path / "model.onnx", dynamo=True)
    assert (tmp_path / "model.onnx").stat().st_size


@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize(
    ("when", "algo"),
    [
        ("after", "default"),
        pytest.param("before", "default", marks=pytest.mark.slow),
        pytest.param("before prepare", "default", marks=pytest.mark.slow),
        pytest.param("after", "taylor", marks=pytest.mark.slow),
        pytest.param("before prepare", "taylor", marks=pytest.mark.slow),
    ],
)
def test_a_compiled_model_has_one_graph_whatever_the_masks(when: str, algo: str) -> None:
    model = net()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    if when == "before prepare":
        loss_of(compiled).backward()
    pruner, _ = prepared(model, schedule=RAMP, algo=algo)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    if when != "after":
        loss_of(compiled).backward()
    pruner.attach(optimizer)
    stepped(pruner, compiled, optimizer, steps=8)
    assert int((model[0].weight == 0).sum()) == 64
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_no_module_knows_of_a_mask_once_it_is_finalized() -> None:
    pruner, model = prepared()
    assert masks_beside(model[0])
    pruner.attach(SGD(model.parameters(), 0.1))
    pruner.finalize()
    assert not any(map(masks_beside, model.modules()))
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())
