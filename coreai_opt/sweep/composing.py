"""The configs of a sweep's points: composed once for each choice of options, then filled in.

Composing takes 0.1 s; setting the values of a point in a composed config, and reading what depends
on them, takes a millisecond.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from coreai_opt.config.aliases import alias_of
from coreai_opt.config.errors import ConfigError
from coreai_opt.config.hydra_internals import apply_overrides, raw_text, writable
from coreai_opt.sweep.apps.swept_app import PointConfig, SweptApp
from coreai_opt.sweep.axes import Assignment

# Stands for a directory that is not there yet; what can change the result does not depend on it.
SOMEWHERE = Path("RUN_DIR")

DEFAULT_SUBDIR = "${hydra.job.num}"


@dataclass
class _Base:
    """What is composed for one choice of options; the values of a point are set in copies of it."""

    task: DictConfig
    hydra: Any
    lacks: dict[str, bool] = field(default_factory=dict)


class Composer:
    """Composes the points of one command line.

    Args:
        loader: finds the config files.
        config_name: the primary config's name.
        of_hydra: overrides of Hydra's own settings, as typed.
        app: whose config it is.
    """

    def __init__(
        self,
        loader: ConfigLoader,
        config_name: str | None,
        of_hydra: Sequence[str],
        app: SweptApp,
    ) -> None:
        self._loader, self._config_name, self._of_hydra = loader, config_name, list(of_hydra)
        self._app = app
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._is_group: dict[str, bool] = {}

    def is_group(self, assignment: Assignment) -> bool:
        """Return whether an override chooses an option of a group, as Hydra decides it.

        Values of Hydra's own node are composed by Hydra as options are.
        """
        name = assignment.name
        if name.startswith("hydra."):
            return True
        if isinstance(assignment.override.value(), dict):
            return False  # values of the node that has the group's name
        if name not in self._is_group:
            options = self._loader.get_group_options(
                name, ObjectType.CONFIG, self._config_name, self._of_hydra
            )
            self._is_group[name] = bool(options)
        return self._is_group[name]

    def fitting(
        self, options: Sequence[Assignment], values: Sequence[Assignment]
    ) -> list[Assignment]:
        """Return the values that the config has a place for where these options are chosen.

        Args:
            options: the point's overrides that choose options.
            values: its overrides that set values. One of them may make the place of a later one.
        """
        base, kept = self._base(options), list[Assignment]()
        for one in values:
            makers = [known for known in kept if known.root == one.root]
            if not self._lacks(base, one) or (makers and not _misses(base.task, *makers, one)):
                kept.append(one)
        return kept

    def _lacks(self, base: _Base, assignment: Assignment) -> bool:
        key = assignment.name
        if assignment.text.startswith(("+", "~")):
            return False  # it makes its place, or takes it away
        if key not in base.lacks:
            base.lacks[key] = _misses(base.task, assignment)
        return base.lacks[key]

    def read(self, options: Sequence[Assignment], values: Sequence[Assignment]) -> PointConfig:
        """Return the resolved config of a point.

        Args:
            options: its overrides that choose options.
            values: its overrides that set values.

        Raises:
            ConfigError: Hydra does not take one of the overrides.
        """
        base = self._base(options)
        task = base.task.copy()
        try:
            apply_overrides([one.override for one in values], task)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise self._refusal(error, [*options, *values]) from error
        with _as_job(base.hydra):
            return self._app.read(task, base.hydra.hydra)

    def hydra(self, options: Sequence[Assignment]) -> DictConfig:
        """Return Hydra's own settings where these options are chosen."""
        settings: DictConfig = self._base(options).hydra.hydra
        return settings

    def alias(self, options: Sequence[Assignment], key: str) -> str | None:
        """Return the key at the root that a node takes a value from, None where it takes none."""
        return alias_of(self._base(options).task, key)

    def subdir(self, options: Sequence[Assignment]) -> str | None:
        """Return ``hydra.sweep.subdir`` where somebody has set it, None where it is the default."""
        raw = raw_text(self._base(options).hydra.hydra.sweep, "subdir")
        return None if raw == DEFAULT_SUBDIR else raw

    def raw_sweep_dir(self, options: Sequence[Assignment]) -> str:
        """Return ``hydra.sweep.dir`` as it is written."""
        return raw_text(self._base(options).hydra.hydra.sweep, "dir")

    def sweep_dir(
        self, options: Sequence[Assignment], values: Sequence[Assignment], raw: str
    ) -> str:
        """Return what a ``hydra.sweep.dir`` means.

        Args:
            options: the overrides that choose options.
            values: what it may refer to besides.
            raw: as it is written.

        Raises:
            ConfigError: it refers to what is not there.
        """
        base = self._base(options)
        config = base.task.copy()
        apply_overrides([one.override for one in values], config)
        own = base.hydra.hydra.copy()
        with read_write(own):
            own.sweep.dir = raw
            own.sweep.subdir = ""  # a job's, and it would be resolved when the node is moved
        with writable(config):
            config.hydra = own
        try:
            with _as_job(base.hydra):
                return str(config.hydra.sweep.dir)
        except OmegaConfBaseException as error:
            text = str(error).partition("\n")[0]
            raise ConfigError.of("hydra.sweep.dir", f"hydra.sweep.dir={raw}: {text}") from error

    def _base(self, options: Sequence[Assignment]) -> _Base:
        texts = tuple(option.text for option in options)
        if texts not in self._bases:
            try:
                whole = self._loader.load_configuration(
                    self._config_name, [*self._of_hydra, *texts], RunMode.RUN, from_shell=False
                )
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                raise self._refusal(error, options) from error
            task = whole.copy()
            with writable(task):
                del task["hydra"]
            with writable(whole):
                whole.hydra.runtime.output_dir = str(SOMEWHERE.absolute())
            with _as_job(None):
                HydraConfig.instance().set_config(whole)
                self._bases[texts] = _Base(task, HydraConfig.instance().cfg)
        return self._bases[texts]

    def _refusal(self, error: Exception, assignments: Sequence[Assignment]) -> ConfigError:
        return self._app.refusal(error, [*self._of_hydra, *(one.text for one in assignments)])


def _misses(task: DictConfig, *assignments: Assignment) -> bool:
    """Return whether the last of some values has no place once the others are set."""
    task, last = task.copy(), assignments[-1]
    try:
        before = [one.override for one in assignments[:-1]]
        apply_overrides(before, task)
    except (HydraException, OmegaConfBaseException, ValueError):
        return True
    try:
        apply_overrides([last.override], task)
    except ConfigCompositionException as error:
        is_missing = isinstance(error.__cause__, ConfigAttributeError | ConfigKeyError)
        # A dict with a key too many has a place, and is wrong.
        return is_missing and not _exists(task, last.name)
    return False


def _exists(task: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    try:
        node = OmegaConf.select(task, parent) if parent else task
    except OmegaConfBaseException:
        return False
    return isinstance(node, DictConfig) and name in node.keys()  # noqa: SIM118, values may be ???


@contextmanager
def _as_job(hydra: Any) -> Iterator[None]:
    """Answer ``${hydra:...}`` as in the job, for as long as a config is read."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = hydra
    try:
        yield
    finally:
        instance.cfg = before
