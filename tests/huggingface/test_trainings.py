"""Trainings of transformers.Trainer reach the target, on a clock that counts what is asked."""

from pathlib import Path
from typing import Any

import pytest
import torch

from coreai_opt.pruning import PruningError
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import DivergedWeightError, NoPrunableLayerError
from coreai_opt.pruning.scheduling.ramps import RampTooLongError
from tests.helpers.huggingface import (
    MARKS,
    PRUNED,
    Numbers,
    callback_of,
    gpt2,
    pruning,
    trainer,
    transformers,
    zeros,
)

pytestmark = MARKS

TARGET = dict.fromkeys(PRUNED, 0.75)


class Readings(transformers.TrainerCallback):
    """What the clock showed after each step, as one who saves then would see it."""

    def __init__(self, of: Any) -> None:
        self.of, self.seen = of, []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(self.of.clock)


def test_a_training_ends_at_the_target_and_the_model_is_as_it_was(tmp_path: Path) -> None:
    model, callback = gpt2(), pruning()
    names, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    trainer(tmp_path, callback, model=model).train()
    assert zeros(model) == TARGET
    assert list(model.state_dict()) == names
    assert [type(module) for module in model.modules()] == kinds
    assert not (model.transformer.wpe.weight == 0).any()
    assert callback.clock == 100
    assert callback.pruner.at_target()
    model.save_pretrained(tmp_path / "final")
    assert zeros(transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "final")) == TARGET


@pytest.mark.parametrize(
    ("interval", "given", "readings"),
    [
        ("step", {"num_train_epochs": 1}, range(1, 9)),
        ("step", {"gradient_accumulation_steps": 3, "num_train_epochs": 2}, range(1, 7)),
        ("epoch", {"num_train_epochs": 2}, [*[0] * 7, *[1] * 8, 2]),
        ("epoch", {"gradient_accumulation_steps": 3}, [0, 0, 1, 1, 1, 2, 2, 2, 3]),
        ("epoch", {"max_steps": 10, "num_train_epochs": 1}, [*[0] * 7, 1, 1, 1]),
        ("percent", {"max_steps": 6}, [16, 33, 50, 66, 83, 100]),
        ("percent", {"num_train_epochs": 0.5}, [25, 50, 75, 100]),
    ],
)
def test_the_clock_counts_what_is_asked(
    tmp_path: Path, interval: Any, given: dict[str, Any], readings: Any
) -> None:
    callback = pruning(0, 1, interval)
    seen = Readings(callback)
    trainer(tmp_path, callback, seen, **given).train()
    assert seen.seen == list(readings)
    assert callback.pruner.at_target()


class Gradients(transformers.TrainerCallback):
    """The norm of the gradients that the optimizer is given, and those of pruned weights."""

    def __init__(self) -> None:
        self.norms, self.pruned = [], 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        grads = {name: each.grad for name, each in model.named_parameters()}
        weights = dict(model.named_parameters())
        self.pruned += sum(int((weights[name] == 0).sum()) for name in PRUNED)
        assert not any(grads[name][weights[name] == 0].any() for name in PRUNED)
        self.norms.append(float(torch.stack([each.norm() for each in grads.values()]).norm()))


@pytest.mark.parametrize("accumulated", [1, 2])
def test_clipping_sees_masked_gradients(tmp_path: Path, accumulated: int) -> None:
    # Were they masked after it, what is left would be shorter than the bound.
    bound, seen = 0.01, Gradients()
    given = {"gradient_accumulation_steps": accumulated, "max_grad_norm": bound}
    one = trainer(tmp_path, pruning(0, 50), seen, **given)
    one.train()
    logged = [entry["grad_norm"] for entry in one.state.log_history if "grad_norm" in entry]
    assert all(norm > bound for norm in logged)
    assert seen.norms == pytest.approx([bound] * len(logged), rel=1e-3)
    assert seen.pruned > 10_000 / accumulated


class Scaled(transformers.Trainer):
    """A training with a gradient scaler, which skips its first steps: the scale is too large."""

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_steps_that_a_scaler_skips_do_not_count(tmp_path: Path, optim: str) -> None:
    callback = pruning(0, 1, "step")
    seen = Readings(callback)
    args = trainer(tmp_path, optim=optim, max_steps=12).args
    Scaled(gpt2(), args, train_dataset=Numbers(), callbacks=[callback, seen]).train()
    assert seen.seen[0] == 0
    assert 0 < seen.seen[-1] < 12
    assert seen.seen[-1] == len(set(seen.seen) - {0})


def test_layers_are_left_dense_by_the_config(tmp_path: Path) -> None:
    config = {
        "global_config": {"op_state_spec": {"weight": {"target_sparsity": 0.75}}},
        "module_name_configs": {"lm_head": None, r".*\.attn\..*": None},
    }
    one = trainer(tmp_path, pruning(config=config))
    one.train()
    dense = [name for name in PRUNED if "wte" in name or "attn" in name]
    assert zeros(one.model) == TARGET | dict.fromkeys(dense, 0.0)


def test_a_model_for_classification_is_pruned_by_the_same_lines(tmp_path: Path) -> None:
    sizes = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    bert = transformers.BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=8)
    model = transformers.BertForSequenceClassification(bert)
    rows = [{"input_ids": row["input_ids"], "labels": index % 2} for index, row in _rows(16)]
    args = trainer(tmp_path, max_steps=8).args
    with pytest.warns(UserWarning, match="left dense: 3 weights of Embedding"):
        transformers.Trainer(model, args, train_dataset=rows, callbacks=[pruning()]).train()
    linear = [each for each in model.modules() if isinstance(each, torch.nn.Linear)]
    assert {float((each.weight == 0).float().mean()) for each in linear} == {0.75}


def _rows(count: int) -> Any:
    data = Numbers(count)
    return [(index, data[index]) for index in range(count)]


@pytest.mark.parametrize(
    ("interval", "given", "message"),
    [
        ("step", {"max_steps": 9}, "after 10 steps .* and the training has 9; allowed"),
        ("epoch", {"num_train_epochs": 9.5}, "after 10 epochs .* and the training has 9; allowed"),
        ("epoch", {"max_steps": 79}, "after 10 epochs .* and the training has 9; allowed"),
        ("percent", {}, "after 101 percent .* and the training has 100; allowed"),
    ],
)
def test_a_ramp_that_is_longer_than_the_training_is_refused(
    tmp_path: Path, interval: Any, given: dict[str, Any], message: str
) -> None:
    length = 100 if interval == "percent" else 9
    one = trainer(tmp_path, pruning(1, length, interval), **given)
    with pytest.raises(RampTooLongError, match=message):
        one.train()
    assert zeros(one.model) == dict.fromkeys(PRUNED, 0.0)


class Stop(transformers.TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def test_a_training_that_ends_below_the_target_says_so(tmp_path: Path) -> None:
    callback = pruning(0, 20, "step")
    with pytest.warns(UserWarning, match=r"ended at step 5 .* ends at 20, .*: 0\.4476 of 0\.75"):
        trainer(tmp_path, callback, Stop(5)).train()


def test_a_second_training_keeps_the_masks_and_the_clock(tmp_path: Path) -> None:
    callback = pruning()
    one = trainer(tmp_path, callback, max_steps=5)
    one.train()
    pruner, masks = callback.pruner, {n: p == 0 for n, p in one.model.named_parameters()}
    one.train()
    assert callback.pruner is pruner
    assert callback.clock == 100
    for name, weight in one.model.named_parameters():
        assert torch.equal(weight == 0, masks[name])


def test_another_model_is_pruned_from_the_beginning(tmp_path: Path) -> None:
    callback = pruning()
    first = trainer(tmp_path, callback, max_steps=5)
    first.train()
    args = first.args
    second = transformers.Trainer(
        args=args, model_init=lambda: gpt2(), train_dataset=Numbers(), callbacks=[callback]
    )
    seen = Readings(callback)
    second.add_callback(seen)
    second.train()
    assert seen.seen == [20, 40, 60, 80, 100]
    assert zeros(second.model) == zeros(first.model) == TARGET


def test_two_callbacks_that_prune_are_refused(tmp_path: Path) -> None:
    one = trainer(tmp_path, pruning(), pruning())
    with pytest.raises(PruningError, match=r"two ScheduledPruningCallback among .*; allowed: one"):
        one.train()


def test_a_model_that_another_training_has_pruned_is_pruned_anew(tmp_path: Path) -> None:
    model = gpt2()
    trainer(tmp_path, pruning(), model=model).train()
    callback = pruning(target_sparsity=0.875)
    trainer(tmp_path, callback, model=model).train()
    assert callback.clock == 100
    assert zeros(model) == dict.fromkeys(PRUNED, 0.875)


def test_evaluating_and_predicting_are_left_alone(tmp_path: Path) -> None:
    callback = pruning()
    one, plain = trainer(tmp_path, callback), trainer(tmp_path / "plain")
    assert one.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    assert callback.pruner is None
    one.train()
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.evaluate()
    one.predict(Numbers(4))
    assert all(torch.equal(before[name], value) for name, value in one.model.state_dict().items())


def test_nothing_to_prune_is_one_sentence(tmp_path: Path) -> None:
    model = gpt2()
    model.requires_grad_(False)
    model.transformer.ln_f.weight.requires_grad_(True)
    with pytest.raises(NoPrunableLayerError, match="frozen"):
        trainer(tmp_path, pruning(), model=model).train()


def test_weights_that_have_become_nan_end_the_training(tmp_path: Path) -> None:
    class Spoil(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                kwargs["model"].lm_head.weight.data[:] = torch.nan

    with pytest.raises(DivergedWeightError, match="NaN in 'transformer"):
        trainer(tmp_path, pruning(), Spoil()).train()


def test_what_somebody_else_writes_is_masked_before_the_next_batch(tmp_path: Path) -> None:
    class Write(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with torch.no_grad():
                kwargs["model"].lm_head.weight.add_(1)

    class Look(transformers.TrainerCallback):
        seen: list[float] = []  # noqa: RUF012

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seen.append(float((kwargs["model"].lm_head.weight == 0).float().mean()))

    trainer(tmp_path, pruning(0, 1, "step"), Write(), Look(), max_steps=6).train()
    assert Look.seen == [0.0, *[0.75] * 5]


@pytest.mark.parametrize("name", ["fsdp", "deepspeed"])
def test_sharded_weights_are_refused(tmp_path: Path, name: str) -> None:
    one = trainer(tmp_path, pruning())
    setattr(one.args, name, {"stage": 3})
    begin = callback_of(one).on_train_begin
    with pytest.raises(PruningError, match=f"{name} shards the weights.*; allowed: one device"):
        begin(one.args, one.state, one.control, model=one.model, optimizer=None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"interval": "steps"}, "interval is 'steps'; allowed: step, epoch, percent"),
        ({"masks_from": "ones"}, "masks_from is 'ones'; allowed: schedule, zeros"),
        ({"target_sparsity": 1.5}, "1.5"),
        ({"target_sparsity": 0.5, "config": {}}, "both config and target_sparsity are given"),
    ],
)
def test_bad_values_are_refused_when_the_callback_is_made(
    given: dict[str, Any], message: str
) -> None:
    from coreai_opt.huggingface import ScheduledPruningCallback

    with pytest.raises(ValueError, match=message):
        ScheduledPruningCallback(PolynomialDecaySchedule(total_iters=5), **given)


def test_the_example_of_the_docstring_runs() -> None:
    import doctest

    from coreai_opt.huggingface import scheduled_pruning

    assert doctest.testmod(scheduled_pruning) == (0, 4)
