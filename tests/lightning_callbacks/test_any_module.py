"""Whatever the module: target reached, steps counted, zeros kept, and a checkpoint that goes on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BackboneFinetuning, EMAWeightAveraging
from torch import nn

from coreai_opt.pruning import count_sparsity
from coreai_opt.pruning.errors import LeftDenseWarning
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ResumableCheckpoint, ScheduledPruning, SparsityMonitor
from tests.conftest import no_space_in_the_path
from tests.helpers.lightning import TinyModule, linear_ramp, loader, make_trainer
from tests.helpers.lightning_modules import (
    Accumulating,
    Adapted,
    Adversarial,
    Alternating,
    Backbone,
    CompiledPart,
    Evaluated,
    Frozen,
    Late,
    Recurrent,
    Transformer,
    Wrapping,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:with one optimizer step a batch the ramp"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::coreai_opt.pruning.errors.LeftDenseWarning"),
]

Make = Callable[[], Any]


class Watch(pl.Callback):
    """Keeps, after each batch, the clock and whether each mask is what the forward pass uses."""

    def __init__(self, pruning: ScheduledPruning) -> None:
        self.pruning = pruning
        self.clocks: list[int] = []
        self.held = True

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.clocks.append(self.pruning.clock)
        for tensor in pruned_tensors(pl_module):
            pruned = int(tensor.impl.sparsity * tensor.impl.mask.numel())
            effective = getattr(tensor.module, tensor.parameter)
            self.held &= int((~tensor.impl.mask).sum()) == pruned
            self.held &= not effective[~tensor.impl.mask].any()


class Run:
    """A training to 0.75 in 8 steps of the schedule, of 4 epochs with 8 batches."""

    def __init__(self, root: Path, make: Make, *callbacks: pl.Callback, epochs: int = 4) -> None:
        self.pruning = ScheduledPruning(linear_ramp(8), target_sparsity=0.75)
        self.watch, self.monitor = Watch(self.pruning), SparsityMonitor()
        torch.manual_seed(5)
        self.given = make()
        ours = (self.pruning, self.monitor, self.watch)
        self.trainer = make_trainer(root, *ours, *callbacks, max_epochs=epochs)

    def fit(self, path: Path | None = None) -> "Run":
        self.trainer.fit(self.given, loader(), ckpt_path=path)
        self.module = self.trainer.lightning_module
        return self


def compiled() -> Any:
    return torch.compile(TinyModule(), backend="eager")


def timm_like() -> Wrapping:
    return Wrapping(Backbone())


apart = pytest.mark.apart
FROM_ELSEWHERE = pytest.param(Transformer, marks=apart)

# How the module is made -> steps on the clock after each batch of an epoch of 8.
EVERY = [1, 2, 3, 4, 5, 6, 7, 8]
HALF = [0, 1, 1, 2, 2, 3, 3, 4]
MODULES = [
    pytest.param(Adversarial, EVERY, id="two-by-hand"),
    pytest.param(Accumulating, HALF, id="accumulating-by-hand"),
    pytest.param(Alternating, [1, 1, 2, 2, 3, 3, 4, 4], id="alternating-by-hand"),
    pytest.param(Late, EVERY, id="configure-model"),
    pytest.param(CompiledPart, EVERY, id="compiled-part"),
    pytest.param(compiled, EVERY, id="compiled-module"),
    pytest.param(timm_like, EVERY, id="like-timm"),
    pytest.param(Transformer, EVERY, id="hugging-face", marks=apart),
    pytest.param(Frozen, EVERY, id="frozen"),
    pytest.param(Recurrent, EVERY, id="recurrent"),
    pytest.param(Adapted, EVERY, id="lora", marks=apart),
]


@pytest.mark.parametrize(("make", "clocks"), MODULES)
def test_a_module_is_pruned_and_goes_on_from_its_checkpoint(
    tmp_path: Path, make: Make, clocks: list[int]
) -> None:
    whole = Run(tmp_path / "whole", make).fit()
    assert whole.watch.clocks == [
        clock + clocks[-1] * epoch for epoch in range(4) for clock in clocks
    ]
    assert whole.watch.held
    pruned = list(pruned_tensors(whole.module))
    elements = [tensor.impl.mask.numel() for tensor in pruned]
    kept = sum(count - int(0.75 * count) for count in elements)
    report = whole.monitor.report
    assert report is not None
    assert (report.elements, report.nonzero) == (sum(elements), kept)

    first = Run(tmp_path / "first", make, epochs=2).fit()
    first.trainer.save_checkpoint(tmp_path / "last.ckpt")
    later = Run(tmp_path / "later", make)
    with torch.no_grad():
        for parameter in later.given.parameters():
            parameter += 1  # all has to come from the checkpoint
    later.fit(tmp_path / "last.ckpt")
    assert later.pruning.clock == whole.pruning.clock
    expected, found = whole.module.state_dict(), later.module.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    assert later.pruning.pruner is not None
    plain = later.pruning.pruner.finalize()
    torch.manual_seed(5)
    assert set(plain.state_dict()) == set(state_of_plain(make(), whole.module))


def state_of_plain(made: Any, trained: pl.LightningModule) -> dict[str, Any]:
    plain = getattr(made, "_orig_mod", made)
    if isinstance(plain, Late):
        plain.configure_model()
    assert type(plain) is type(trained)
    return dict(plain.state_dict())


@pytest.mark.filterwarnings("ignore:.*overrides the configure_model")
@pytest.mark.parametrize("make", [Adversarial, Late, FROM_ELSEWHERE, CompiledPart, Recurrent])
def test_a_moving_average_of_such_a_module_has_the_masks(tmp_path: Path, make: Make) -> None:
    run = Run(tmp_path, make, EMAWeightAveraging(decay=0.5)).fit()
    report = count_sparsity(run.module)
    kept = sum(layer.elements - int(0.75 * layer.elements) for layer in report.counted)
    assert report.nonzero == kept


@pytest.mark.parametrize("make", [Late, FROM_ELSEWHERE, compiled, Recurrent])
def test_such_a_module_goes_on_within_an_epoch(tmp_path: Path, make: Make) -> None:
    class Stop(Exception):
        pass

    def at_step_12() -> Stop | None:
        return Stop() if run.pruning.clock == 12 else None

    whole = Run(tmp_path / "whole", make).fit()
    checkpoint = ResumableCheckpoint(tmp_path / "resume", interruption=at_step_12)
    run = Run(tmp_path / "first", make, checkpoint)
    with pytest.raises(Stop):
        run.fit()
    later = ResumableCheckpoint(tmp_path / "resume")
    resumed = Run(tmp_path / "first", make, later).fit(later.newest())
    expected, found = whole.module.state_dict(), resumed.module.state_dict()
    assert resumed.watch.clocks == list(range(13, 33))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def names_of(module: nn.Module) -> list[str]:
    return [tensor.name for tensor in pruned_tensors(module)]


BACKBONE = ["network.stages.1.conv_dw.weight", "network.stages.1.conv_pw.weight"]


@pytest.mark.filterwarnings("default::coreai_opt.pruning.errors.LeftDenseWarning")
def test_a_training_says_once_what_it_leaves_dense(tmp_path: Path) -> None:
    left = r"left dense: 3 weights frozen .*stem\.weight"
    with pytest.warns(LeftDenseWarning, match=left) as told:
        run = Run(tmp_path, Frozen).fit()
    assert len([one for one in told if one.category is LeftDenseWarning]) == 1
    assert names_of(run.module) == [*BACKBONE, "network.head.fc.weight"]


def as_trained(module: pl.LightningModule) -> None:
    """Leave it frozen in part."""


def frozen_whole(module: pl.LightningModule) -> None:
    module.freeze()


def not_frozen(module: pl.LightningModule) -> None:
    module.unfreeze()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("is_there", [True, False], ids=["with callbacks", "without"])
@pytest.mark.parametrize("change", [as_trained, frozen_whole, not_frozen])
def test_a_checkpoint_is_evaluated_whatever_is_frozen_then(
    tmp_path: Path, change: Callable[[pl.LightningModule], None], is_there: bool
) -> None:
    pruning = ScheduledPruning(linear_ramp(8), target_sparsity=0.75)
    kept = [pruning, SparsityMonitor()] if is_there else []
    run = Run(tmp_path, Frozen).fit()
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    module = Evaluated()
    change(module)
    trainer = make_trainer(tmp_path, *kept, max_epochs=1)
    trainer.test(module, loader(2), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    found, expected = module.state_dict(), run.module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Finetuned(Wrapping):
    """Its backbone is trained from the second epoch on."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4))
        self.backbone = Backbone()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.network(self.backbone(features))
        return outputs

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.network.parameters(), lr=0.05)


@pytest.mark.parametrize(
    ("named", "pruned"),
    [
        pytest.param([], ["network.weight"], id="not-named"),
        pytest.param(
            ["backbone"],
            [
                "network.weight",
                "backbone.stem.weight",
                *(f"backbone.stages.{at}.conv_{of}.weight" for at in (0, 1) for of in ("dw", "pw")),
                "backbone.head.fc.weight",
            ],
            id="named",
        ),
    ],
)
def test_what_a_callback_freezes_at_first_has_to_be_named(
    tmp_path: Path, named: list[str], pruned: list[str]
) -> None:
    spec = {"op_state_spec": {"weight": {"target_sparsity": 0.75}}}
    config = {"global_config": spec, "module_name_configs": dict.fromkeys(named, spec)}
    pruning = ScheduledPruning(linear_ramp(8), config=config)
    thaw = BackboneFinetuning(unfreeze_backbone_at_epoch=1, verbose=False)
    module = Finetuned()
    make_trainer(tmp_path, pruning, thaw, max_epochs=3).fit(module, loader())
    assert names_of(module) == pruned
    for tensor in pruned_tensors(module):
        effective = getattr(tensor.module, tensor.parameter)
        assert int((effective == 0).sum()) == int(0.75 * effective.numel())
    assert all(parameter.requires_grad for parameter in module.backbone.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@no_space_in_the_path
@pytest.mark.parametrize("how", ["part", "module"])
def test_a_module_that_inductor_has_compiled_is_pruned_as_the_plain_one(
    tmp_path: Path, how: str
) -> None:
    def make() -> Any:
        return CompiledPart("inductor") if how == "part" else torch.compile(TinyModule())

    plain = Run(tmp_path / "plain", TinyModule).fit()
    run = Run(tmp_path / how, make).fit()
    assert run.watch.held
    assert run.watch.clocks == list(range(1, 33))
    pairs = zip(pruned_tensors(plain.module), pruned_tensors(run.module), strict=True)
    for one, other in pairs:
        assert torch.equal(one.impl.mask, other.impl.mask)
        torch.testing.assert_close(one.original, other.original)
