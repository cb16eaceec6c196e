"""What a Trainer of a pruning job is given, in its own import root of Lightning."""

import importlib
import logging
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.locations import typed_path
from coreai_opt.plugin.asked import asked_of, typed_overrides
from coreai_opt.plugin.fits import Fits, fits_of
from coreai_opt.plugin.knobs import Knobs
from coreai_opt.plugin.options import GROUPS, SCHEDULES, defaults

log = logging.getLogger(__name__)

# Root -> the module with the callback of that root, and the package of all others.
HOMES = {
    "pytorch_lightning": ("coreai_opt.plugin.for_pytorch_lightning", "lightning_callbacks"),
    "lightning.pytorch": (
        "coreai_opt.plugin.for_lightning_pytorch",
        "lightning_callbacks.lightning_pytorch",
    ),
}

LOST = re.compile(rf"\+({'|'.join(GROUPS)})(@\S*)?=({'|'.join(SCHEDULES)})")

# A knob that is added where no option was: a value that nobody reads.
ALONE = re.compile(r"\+\+?(prune|coreai_prune)\.(\w+)=.*")


def callbacks_of(root: str, hydra: DictConfig) -> list[Any]:
    """Return what a job gives each of its Trainers.

    Args:
        root: of the Trainer, ``pytorch_lightning`` or ``lightning.pytorch``.
        hydra: Hydra's own node of the job's config.

    Raises:
        ConfigError: the knobs of this point of a sweep are wrong.
    """
    knobs = asked_of(hydra)
    if knobs is None:
        return []
    # A config that somebody has composed alone has no directory: the Trainer's own is taken.
    is_composed = OmegaConf.is_missing(hydra.runtime, "output_dir")
    folder = None if is_composed else hydra.runtime.output_dir
    fits = fits_of(str(folder))
    fits.trainers += 1
    knobs.check()
    module, package = HOMES[root]
    made: JobCallback = importlib.import_module(module).JobCallback(knobs, fits, folder, package)
    return [made]


def refuse_lost_group(hydra: DictConfig) -> None:
    """Refuse to train where ``+prune=poly`` has not chosen an option of ours.

    Args:
        hydra: Hydra's own node of a job's config that has no callback of ours.

    Raises:
        ConfigError: it has not.
    """
    for text in typed_overrides(hydra):
        alone = ALONE.fullmatch(text)
        if alone is not None and alone[2] in defaults("poly"):
            raise ConfigError.of(
                alone[1],
                f"{text} prunes nothing: no schedule is chosen; allowed: +{alone[1]}=poly, and "
                f"{text.lstrip('+')}",
            )
        match = LOST.fullmatch(text)
        if match is not None and match[1] not in hydra.runtime.choices:
            raise ConfigError.of(
                match[1],
                f"{text} prunes nothing: Hydra has not found the plugin, and has taken it for a "
                "value; allowed: an installation with which the command coreai-doctor finds it",
            )


class JobCallback:
    """Gives a Trainer the callbacks of a job, once it is known what callbacks it has of its own.

    They join the others in ``setup``, right behind this one. A Trainer that has a
    ``ScheduledPruning`` of its own keeps it.

    Args:
        knobs: of the job.
        fits: notes that a Trainer fits.
        output_dir: the job's directory; None = the Trainer's ``default_root_dir``.
        package: where the callbacks of the Trainer's import root are.
    """

    def __init__(self, knobs: Knobs, fits: Fits, output_dir: str | None, package: str) -> None:
        self._knobs, self._fits, self._package = knobs, fits, package
        self._output_dir = output_dir
        self._init_from = knobs.values["init_from"] and typed_path(knobs.values["init_from"])
        self._own: list[Any] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self._own is None:
            self._own = [one for one in self._made() if not _is_there(one, trainer)]
        # A tuner puts the list of before back, without them.
        there = set(map(id, trainer.callbacks))
        absent = [one for one in self._own if id(one) not in there]
        at = trainer.callbacks.index(self) + 1
        # A list of its own: Lightning is going through the one that is there.
        trainer.callbacks = [*trainer.callbacks[:at], *absent, *trainer.callbacks[at:]]
        for one in absent:
            one.setup(trainer, pl_module, stage)
        for one in self._own:
            if type(one).__name__ == "PrunedWeights":
                for fitted in self._fits.weights[-1:]:
                    one.adopt_targets(fitted)
                if stage == "fit":
                    self._fits.weights.append(one)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._fits.record()
        # Before masks are made; what goes on from a checkpoint has its weights from there.
        if self._init_from is not None and trainer.ckpt_path is None:
            from coreai_opt.training.initial_weights import load_initial_weights

            load_initial_weights(pl_module, self._init_from)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if "module_name_configs" in str(exception):
            exception.add_note("module_name_configs={NAME: None} is dense=[NAME] among the knobs")

    def _made(self) -> list[Any]:
        home, knobs = importlib.import_module(self._package), self._knobs
        made: list[Any] = []
        if not knobs.is_dense:
            made.append(
                home.ScheduledPruning(
                    schedule=knobs.schedule,
                    config=knobs.config(),
                    interval=knobs.values["interval"],
                    masks_from=knobs.values["masks_from"],
                )
            )
            if knobs.values["gate"]:
                made.append(home.TargetGate())
        made.append(home.PrunedWeights(self._output_dir))
        if knobs.values["monitor"]:
            made.append(home.SparsityMonitor(Path(self._output_dir or "", "sparsity.csv")))
        return made


def _is_there(callback: Any, trainer: Any) -> bool:
    """Return whether a Trainer has a callback of the same name of ours, of either root."""
    name = type(callback).__name__
    for one in trainer.callbacks:
        for kind in type(one).__mro__:
            if kind.__name__ == name and kind.__module__.startswith("lightning_callbacks"):
                if trainer.is_global_zero:
                    log.info("this Trainer keeps the %s that it has", name)
                return True
    return False
