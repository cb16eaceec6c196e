"""Small trainings of transformers.Trainer: a GPT-2 from its config, on data that a seed makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from coreai_opt.pruning.config import PolynomialDecaySchedule

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")

from coreai_opt.huggingface import ScheduledPruningCallback  # noqa: E402

LAYERS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
PRUNED = ["transformer.wte.weight", *(f"transformer.h.0.{layer}.weight" for layer in LAYERS)]

MARKS = [
    pytest.mark.apart,
    pytest.mark.filterwarnings("ignore:left dense. 1 weight of Embedding"),
]


class Numbers(Dataset[dict[str, torch.Tensor]]):
    """Rows of numbers that count up, each a function of its index."""

    def __init__(self, rows: int = 32) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = (torch.arange(6) * (index % 5 + 1) + index) % 40
        return {"input_ids": row, "labels": row}


def gpt2(dropout: float = 0.1) -> Any:
    torch.manual_seed(3)
    drop = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    sizes = {"vocab_size": 40, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **drop, **ends))


def arguments(directory: Path, **given: Any) -> Any:
    """8 steps an epoch of a batch of 4 each, 3 epochs."""
    quiet = {"report_to": "none", "disable_tqdm": True, "logging_steps": 1, "use_cpu": True}
    usual = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "no"}
    rate = {"learning_rate": 0.02, "seed": 5}
    return transformers.TrainingArguments(str(directory), **(quiet | usual | rate | given))


def trainer(directory: Path, *callbacks: Any, model: Any = None, **given: Any) -> Any:
    return transformers.Trainer(
        gpt2() if model is None else model,
        arguments(directory, **given),
        train_dataset=Numbers(),
        eval_dataset=Numbers(8),
        callbacks=list(callbacks),
    )


def pruning(begin: int = 10, length: int = 60, interval: Any = "percent", **given: Any) -> Any:
    ramp = PolynomialDecaySchedule(total_iters=length, begin_step=begin)
    asked = given if "config" in given else {"target_sparsity": 0.75} | given
    return ScheduledPruningCallback(ramp, interval=interval, **asked)


def zeros(model: nn.Module) -> dict[str, float]:
    there = dict(model.named_parameters())
    return {name: float((there[name] == 0).float().mean()) for name in PRUNED}


def assert_same(one: Any, other: Any) -> None:
    """Weights, optimizer states, learning rates, masks and dense values of two trainings."""
    models = (one.model.state_dict(), other.model.state_dict())
    optimizers = (one.optimizer.state_dict(), other.optimizer.state_dict())
    pruners = tuple(callback_of(each).pruner.state_dict() for each in (one, other))
    assert callback_of(one).clock == callback_of(other).clock
    for pair in (models, optimizers, pruners):
        _assert_equal(*pair)


def callback_of(one: Any) -> Any:
    callbacks = one.callback_handler.callbacks
    return next(each for each in callbacks if isinstance(each, ScheduledPruningCallback))


def _assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            _assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            _assert_equal(*pair)
    else:
        assert one == other
