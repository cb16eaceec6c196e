"""Optuna study of a search: opened or continued, asked for points, given results."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from hydra.errors import HydraException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.hydra_internals import TRUSTED
from coreai_opt.sweep.names import slug
from coreai_opt.sweep.scheduler import Outcome
from coreai_opt.sweep.search.settings import NODE, SearchSettings

OBJECTIVES = "objectives"  # attribute of the study
STATUS = "run_status"  # attributes of a trial
ERROR = "error"


class SearchStudy:
    """A study, opened where it is kept.

    Args:
        settings: of the search.
        name: the sweep's, which is the study's where it is not given another one.
        distributions: by key.
        config: the composed config, for a search space of the user's own.

    Attributes:
        study: Optuna's own.

    Raises:
        ConfigError: the storage cannot be opened, the sampler cannot be made, or the study that is
            there is of something else.
    """

    def __init__(
        self,
        settings: SearchSettings,
        name: str,
        distributions: Mapping[str, BaseDistribution],
        config: DictConfig,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._settings, self._distributions, self._config = settings, dict(distributions), config
        self.name = study_name(settings, name)
        self._more = _own_space(settings.custom_search_space)
        self._storage = _storage(settings.storage)
        self.study = self._open()
        self._check()
        self.study.sampler = _sampler(settings.sampler, len(self.study.trials))

    def close_interrupted(self) -> None:
        """Mark the trials as failed that earlier commands have not ended: none is at work now."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self.study.tell(trial.number, state=TrialState.FAIL)

    def begin_anew(self) -> str:
        """Begin without trials, and return the name of the study that keeps the earlier ones."""
        kept = f"{self.name} before {datetime.now(UTC).isoformat(timespec='milliseconds')}"
        storage = self._storage
        optuna.copy_study(
            from_study_name=self.name,
            from_storage=storage,
            to_storage=storage,
            to_study_name=kept,
        )
        optuna.delete_study(study_name=self.name, storage=storage)
        self.study = self._open()
        self.study.sampler = _sampler(self._settings.sampler, 0)
        return kept

    def counted(self, failed_too: bool) -> int:
        """Return how many trials there are that need not be made any more.

        Args:
            failed_too: whether those count whose run has failed.
        """
        trials = self.study.get_trials(deepcopy=False)
        ended = sum(one.state in (TrialState.COMPLETE, TrialState.PRUNED) for one in trials)
        return ended + (sum(map(_has_failed_run, trials)) if failed_too else 0)

    def completed(self) -> list[FrozenTrial]:
        """Return the trials that have values."""
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    def try_again(self, most: int, failed_too: bool) -> int:
        """Let the trials that were interrupted be the next ones, and return how many they are.

        Args:
            most: so many at most.
            failed_too: whether those whose run has failed are tried again, too.
        """
        trials = self.study.get_trials(deepcopy=False)
        settled = [one.params for one in trials if one.state != TrialState.FAIL]
        # A trial that waits has no parameters yet but those that are fixed.
        waiting = [one for one in trials if one.state == TrialState.WAITING]
        settled += [one.system_attrs.get("fixed_params", {}) for one in waiting]
        again: list[dict[str, Any]] = []
        for trial in trials:
            is_again = failed_too if _has_failed_run(trial) else _is_unfinished(trial)
            if is_again and trial.params not in [*settled, *again] and self._fits(trial.params):
                again.append(trial.params)
        for params in again[:most]:
            self.study.enqueue_trial(params)
        return len(again[:most])

    def ask(self, count: int) -> list[Trial]:
        """Return new trials whose parameters are chosen."""
        trials = [self.study.ask(fixed_distributions=self._distributions) for _ in range(count)]
        if self._more is not None:
            for trial in trials:
                self._more(self._config, trial)
        return trials

    def refuse(self, trial: Trial, error: ConfigError) -> str:
        """End a trial whose config is wrong, and return why in one sentence."""
        sentence = "; ".join(str(problem) for problem in error.problems)
        trial.set_user_attr(ERROR, sentence)
        # The sampler learns from a trial that is pruned, and from one that failed it does not.
        self.study.tell(trial, state=TrialState.PRUNED)
        return sentence

    def tell(self, trial: Trial, outcome: Outcome) -> str | None:
        """End a trial, and return the missing values of a run that has completed without them."""
        run = outcome.entry.earlier()
        record = {} if run is None else run.record
        trial.set_user_attr("run_id", record.get("run_id"))
        trial.set_user_attr("run_folder", outcome.entry.name)
        trial.set_user_attr("config_hash", outcome.entry.config_hash)
        trial.set_user_attr(STATUS, outcome.end)
        values = {name: value_of(record, name) for name in self._settings.objectives}
        missing = [name for name, value in values.items() if value is None]
        if outcome.end == "completed" and not missing:
            self.study.tell(trial, [value for value in values.values() if value is not None])
            return None
        without = f"no finite number in its record: {', '.join(missing)}"
        cause = without if outcome.end == "completed" else outcome.cause
        trial.set_user_attr(ERROR, cause)
        self.study.tell(trial, state=TrialState.FAIL)
        return without if outcome.end == "completed" else None

    def _open(self) -> optuna.Study:
        study = optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            directions=list(self._settings.direction),
            load_if_exists=True,
        )
        if OBJECTIVES not in study.user_attrs:
            study.set_user_attr(OBJECTIVES, self._settings.objectives)
        return study

    def _check(self) -> None:
        """Refuse to go on with a study of something else."""
        wanted = list(zip(self._settings.objectives, self._settings.direction, strict=True))
        directions = [one.name.lower() for one in self.study.directions]
        objectives = self.study.user_attrs[OBJECTIVES]
        other = f"another {NODE}.study_name"
        if wanted != list(zip(objectives, directions, strict=False)):
            told = [f"{way} {name}" for name, way in zip(objectives, directions, strict=False)]
            now = [f"{way} {name}" for name, way in wanted]
            sentence = f"the study {self.name!r} is to {', '.join(told)}, not {', '.join(now)}"
            raise ConfigError.of(f"{NODE}.objectives", f"{sentence}; allowed: the same, or {other}")
        for trial in self.study.get_trials(deepcopy=False):
            for key, before in trial.distributions.items():
                now_known = self._distributions.get(key)
                if now_known is not None and not _go_together(before, now_known):
                    sentence = (
                        f"{key}: the study {self.name!r} has chosen from {_shown(before)}, "
                        f"and now it is {_shown(now_known)}; allowed: the same, or {other}"
                    )
                    raise ConfigError.of(key, sentence)

    def _fits(self, params: Mapping[str, Any]) -> bool:
        """Whether values are still among those that are chosen from."""
        if not set(self._distributions) <= set(params):
            return False
        return all(_holds(one, params[key]) for key, one in self._distributions.items())


def study_name(settings: SearchSettings, sweep: str) -> str:
    """Return a study's name: that of the sweep, and its objectives where it has several.

    Example:
        >>> given = {"objectives": ["val/accuracy", "sparsity"], "direction": ["max", "max"]}
        >>> study_name(SearchSettings(sampler={}, **given), "power-cf76cd")
        'power-cf76cd-val-accuracy-sparsity'
    """
    if settings.study_name is not None:
        return settings.study_name
    several = settings.objectives if len(settings.objectives) > 1 else []
    return "-".join([sweep, *map(slug, several)])


def value_of(record: Mapping[str, Any], name: str) -> float | None:
    """Return a finite number of a run's record, None where it has none of this name.

    Args:
        record: the run's.
        name: the objective's, ``sparsity`` as it was counted, a metric's, or a key of the record
            with dots.

    Example:
        >>> record = {"metrics": {"test/loss": 0.5}, "sparsity": {"achieved": 0.9}}
        >>> value_of(record, "test/loss"), value_of(record, "sparsity")
        (0.5, 0.9)
        >>> value_of(record, "test/accuracy") is None
        True
    """
    objective = record.get("objective") or {}
    if name == objective.get("name"):
        return _finite(objective.get("value"))
    if name == "sparsity":
        return _finite((record.get("sparsity") or {}).get("achieved"))
    if name in (metrics := record.get("metrics") or {}):
        return _finite(metrics[name])
    value: Any = record
    for part in name.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return _finite(value)


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _has_failed_run(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get(STATUS) == "failed"


def _is_unfinished(trial: FrozenTrial) -> bool:
    """Whether a trial was ended although its run had not."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get(STATUS) != "completed"


def _holds(distribution: Any, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution.low <= value <= distribution.high)


def _go_together(before: Any, now: Any) -> bool:
    """Whether one study may hold both: numbers may have other ends, choices must stay."""
    if type(before) is not type(now):
        return False
    if isinstance(before, CategoricalDistribution):
        return bool(before.choices == now.choices)
    return bool(before.log == now.log)


def _shown(distribution: Any) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({','.join(map(str, distribution.choices))})"
    kind = "integers" if type(distribution).__name__.startswith("Int") else "numbers"
    spread = ", by orders of magnitude" if distribution.log else ""
    return f"{kind} from {distribution.low} to {distribution.high}{spread}"


def _storage(given: Any) -> Any:
    """Return the storage, which is made where the config describes it by ``_target_``."""
    try:
        made = instantiate(given, **TRUSTED) if isinstance(given, Mapping) else given
        return optuna.storages.get_storage(made)
    except Exception as error:  # every database has errors of its own
        text = " ".join(str(error).split()) or type(error).__name__
        allowed = "a URL of a database that can be written: sqlite:///study.db"
        sentence = f"{NODE}.storage={given}: {text}; allowed: {allowed}"
        raise ConfigError.of(f"{NODE}.storage", sentence) from error


def _sampler(given: Mapping[str, Any], trials: int) -> optuna.samplers.BaseSampler:
    """Return the sampler; in a study that has trials it must not draw the same points again."""
    settings = dict(given)
    if settings.get("seed") is not None:
        settings["seed"] += trials
    try:
        sampler = instantiate(settings, **TRUSTED)
    except HydraException as error:
        cause = " ".join(str(error.__cause__ or error).split())
        sentence = f"{NODE}.sampler={given.get('_target_')}: {cause}"
    else:
        if isinstance(sampler, optuna.samplers.BaseSampler):
            return sampler
        sentence = f"{NODE}.sampler={given.get('_target_')}: is no sampler of Optuna's"
    allowed = "allowed: hydra/sweeper/sampler=tpe, random, nsgaii or cmaes"
    raise ConfigError.of(f"{NODE}.sampler", f"{sentence}; {allowed}")


def _own_space(path: str | None) -> Any:
    if path is None:
        return None
    try:
        return get_method(path)
    except (HydraException, ImportError, ValueError) as error:
        cause = " ".join(str(error).split())
        sentence = f"{NODE}.custom_search_space={path}: {cause}; allowed: my.module.function"
        raise ConfigError.of(f"{NODE}.custom_search_space", sentence) from error


def best_of(study: SearchStudy) -> Sequence[FrozenTrial]:
    """Return the best trial, or those that no other one beats in everything; each run once."""
    if not study.completed():
        return []
    several = len(study.study.directions) > 1
    found = study.study.best_trials if several else [study.study.best_trial]
    return list({str(one.user_attrs.get("config_hash", one.number)): one for one in found}.values())
