"""The callbacks where one package of Lightning is installed, or none, or an older one."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytorch_lightning as pl

from coreai_opt.pruning import PruningError, count_sparsity
from lightning_callbacks import ResumableCheckpoint, ScheduledPruning
from lightning_callbacks._averaging import planned_epochs
from lightning_callbacks._lightning import roots as _roots
from lightning_callbacks._lightning.roots import kinds_of_root
from tests.conftest import ROOT
from tests.helpers.lightning import TinyModule, linear_ramp, loader, make_trainer

WITHOUT = "import sys; sys.modules[{name!r}] = None"
IS_OF = """
from lightning_callbacks._lightning.root import pl
assert pl.__name__ == {root!r}, pl
from lightning_callbacks import ScheduledPruning, SparsityProgressBar, TargetSparsityCheckpoint
from lightning_callbacks._lightning.roots import root_of
assert issubclass(ScheduledPruning, pl.Callback)
assert {{root_of(kind) for kind in (object, SparsityProgressBar)}} == {{pl.__name__}}
import lightning_callbacks._resume.dataloader_state, lightning_callbacks.resumable_checkpoint
"""


def python(*lines: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)


def test_without_lightning_a_callback_says_what_to_install() -> None:
    done = python(
        *(WITHOUT.format(name=name) for name in ("pytorch_lightning", "lightning")),
        "import lightning_callbacks, coreai_opt.pruning",
        "from lightning_callbacks import ScheduledPruning",
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: the callbacks need Lightning, and neither of its packages is "
        "installed; allowed: pip install pytorch-lightning, or pip install lightning"
    )


UNIFIED = pytest.param(
    "lightning.pytorch",
    marks=[
        pytest.mark.apart,
        pytest.mark.skipif(find_spec("lightning") is None, reason="needs the extra lightning"),
    ],
)


@pytest.mark.slow
@pytest.mark.parametrize("root", ["pytorch_lightning", UNIFIED])
def test_one_package_is_enough(root: str) -> None:
    other = {"pytorch_lightning": "lightning"}.get(root, "pytorch_lightning")
    done = python(
        WITHOUT.format(name=other),
        "import lightning_callbacks as callbacks",
        IS_OF.format(root=root),
        "import lightning_callbacks.lightning_pytorch" if root == "lightning.pytorch" else "",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_lightning_that_is_too_old_is_one_sentence() -> None:
    done = python(
        "import pytorch_lightning",
        "pytorch_lightning.__version__ = '1.9.5'",
        "from lightning_callbacks import ScheduledPruning",
    )
    assert done.stderr.splitlines()[-1] == (
        "ImportError: the callbacks need Lightning 2.2 or newer, and pytorch_lightning is 1.9.5; "
        "allowed: pip install -U pytorch-lightning, or lightning"
    )


def fit(folder: Path, *callbacks: pl.Callback) -> pl.LightningModule:
    module, trainer = TinyModule(), make_trainer(folder, *callbacks, max_epochs=2)
    trainer.fit(module, loader())
    return module


def test_what_older_versions_lack_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pl.callbacks, "WeightAveraging", raising=False)
    monkeypatch.delattr(pl.strategies, "ModelParallelStrategy", raising=False)
    average = pl.callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    module = fit(tmp_path, ScheduledPruning(linear_ramp(8), target_sparsity=0.75), average)
    assert count_sparsity(module).achieved == 0.75
    assert planned_epochs(module.trainer) == 2


def test_any_other_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="WaitAveraging"):
        kinds_of_root(pl.LightningModule(), "callbacks", "WaitAveraging")


def test_exact_resume_says_which_version_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pl, "__version__", "2.4.0")
    resumable = ResumableCheckpoint(tmp_path)
    with pytest.raises(PruningError) as caught:
        fit(tmp_path, resumable)
    assert str(caught.value) == (
        "ResumableCheckpoint needs Lightning 2.5.3 or newer, and pytorch_lightning is 2.4.0; "
        "allowed: pip install -U pytorch-lightning, or training without it"
    )
    fit(tmp_path, ScheduledPruning(linear_ramp(8), target_sparsity=0.75))


@pytest.mark.parametrize("is_dense", [True, False])
def test_a_lightning_that_tells_nothing_of_a_checkpoint_to_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_dense: bool
) -> None:
    """Before 2.5 it loads the states of callbacks for a fit alone."""
    other = [] if is_dense else [ScheduledPruning(linear_ramp(8), target_sparsity=0.25)]
    fit(tmp_path, *other).trainer.save_checkpoint(tmp_path / "other.ckpt")
    pruning = ScheduledPruning(linear_ramp(8), target_sparsity=0.75)
    module = fit(tmp_path, pruning)
    monkeypatch.setattr(_roots, "_version", lambda root: "2.4.0")
    monkeypatch.setattr(module.trainer._checkpoint_connector, "restore_callbacks", lambda: None)
    monkeypatch.setattr(TinyModule, "test_step", lambda *args: None, raising=False)
    module.trainer.test(module, loader(), ckpt_path=tmp_path / "other.ckpt", verbose=False)
    report = count_sparsity(module)
    assert (report.achieved, report.scheduled) == ((0, 0) if is_dense else (0.25, 0.25))
    assert (pruning.pruner is None) == is_dense
