"""Objects of a run, built from its config: model, data, callbacks, loggers, trainer."""

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from pydantic import ValidationError
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
)
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
)
from torch import nn

from coreai_opt.config.errors import ConfigError, message_of
from coreai_opt.config.hydra_internals import TRUSTED
from coreai_opt.config.locations import typed_path
from coreai_opt.config.schemas.nodes import nodes
from coreai_opt.models import Classifier
from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning.config.schedules import SparsityScheduleBase
from coreai_opt.runs.processes import starter
from coreai_opt.training.constructor_errors import is_about_arguments, place_of
from coreai_opt.training.initial_weights import start_from
from lightning_callbacks._lightning.roots import root_of

# Packages whose constructors take any keyword, and use none.
LIBRARIES = ("torch", "pytorch_lightning", "lightning", "builtins")


@dataclass(frozen=True)
class Objects:
    """Objects of a run; ``network`` is the part of ``model`` whose weights are exported."""

    model: pl.LightningModule
    network: nn.Module
    data: pl.LightningDataModule
    trainer: pl.Trainer


def build(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    quiet: bool,
    schedule: SparsityScheduleBase | None = None,
) -> Objects:
    """Seed all random numbers, and build model, data, callbacks, loggers and trainer.

    Args:
        config: the resolved config, already checked.
        overrides: what the user set, ``key=value`` each; other values of an option may be left
            out for a class of the user's own that does not take them.
        quiet: no progress bar.
        schedule: what validation has made of ``config["schedule"]``; None = made here.

    Raises:
        ConfigError: a class that cannot be imported, or that refuses its arguments, or a file
            whose weights are not those of the model.
    """
    model, network, data = build_parts(config, overrides)
    if config.get("init_from") is not None:
        start_from(model, network, typed_path(config["init_from"]))
    trainer = _build_trainer(config, quiet, schedule)
    return Objects(model, network, data, trainer)


def build_parts(
    config: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[pl.LightningModule, nn.Module, pl.LightningDataModule]:
    """Seed all random numbers, and build the module, its network and the data, without a trainer.

    Args:
        config, overrides: as for ``build``.

    Raises:
        ConfigError: as ``build`` does.
    """
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    data = _of_our_root(_make(config["data"], "data", given), config, "data")
    return *_build_model(config, given), data


def locate(target: str, name: str) -> Any:
    """Import the object that a ``_target_`` names.

    Args:
        target: dotted path.
        name: key of the ``_target_``, for the message.

    Raises:
        ConfigError: the module cannot be imported, or has no such attribute.
    """
    module_name, _, attribute = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError.of(name, f"{name}={target} cannot be imported: {reason}") from error
    if not hasattr(module, attribute):
        known = [key for key in vars(module) if not key.startswith("_")]
        classes = [key for key in known if inspect.isclass(getattr(module, key))] or known
        hint = nearest(attribute, sorted(classes))
        raise ConfigError.of(name, f"{name}={target}: {module_name} has no {attribute!r}; {hint}")
    return getattr(module, attribute)


def _build_model(
    config: Mapping[str, Any], given: set[str]
) -> tuple[pl.LightningModule, nn.Module]:
    learning = _learning(config.get("optimizer"), given)
    model = _of_our_root(_make(config["model"], "model", given, offered=learning), config, "model")
    if isinstance(model, pl.LightningModule):
        return model, model
    if isinstance(model, nn.Module):
        if not learning:
            sentence = f"optimizer is not there, and {type(model).__name__} has none of its own"
            raise ConfigError.of("optimizer", f"{sentence}; allowed: optimizer=sgd, adamw")
        classifier = Classifier(model, **learning)
        if shape := config["data"].get("input_shape"):
            # ScheduledPruning follows the calls of forward on it, with follow_calls.
            classifier.example_input_array = torch.zeros(1, *shape)
        return classifier, model
    target = config["model"]["_target_"]
    raise ConfigError.of(
        "model._target_",
        f"model._target_={target} makes a {type(model).__name__}; "
        "allowed: a LightningModule, or an nn.Module that returns logits",
    )


def _learning(node: Mapping[str, Any] | None, given: set[str]) -> dict[str, Any]:
    """Return optimizer and learning-rate schedule, nothing where a module makes its own."""
    if node is None:
        return {}
    fields = dict(node)
    schedule = fields.pop("lr_schedule", None)
    optimizer = _make(fields, "optimizer", given)
    rates = schedule and _make(schedule, "optimizer.lr_schedule", given)
    return {"optimizer": optimizer, "lr_schedule": rates}


def _of_our_root(made: Any, config: Mapping[str, Any], group: str) -> Any:
    """Refuse objects of the other import root of Lightning, which the trainer does not know."""
    if root_of(type(made)) == "pytorch_lightning":
        return made
    target = config[group]["_target_"]
    kind = "LightningModule" if group == "model" else "LightningDataModule"
    raise ConfigError.of(
        f"{group}._target_",
        f"{group}._target_={target} is a {kind} of lightning.pytorch, and the trainer here is one "
        f"of pytorch_lightning; allowed: from pytorch_lightning import {kind}",
    )


def _build_trainer(
    config: Mapping[str, Any], quiet: bool, schedule: SparsityScheduleBase | None
) -> pl.Trainer:
    node = dict(config["trainer"])
    if quiet:
        node["enable_progress_bar"] = False
    nodes = _sharing(config, schedule) if schedule is not None else config.get("callbacks")
    callbacks = _each(nodes, "callbacks", lambda made: _is_wanted(made, node))
    loggers = _each(config.get("logger"), "logger", lambda made: True)
    with_lists = {"callbacks": callbacks, "logger": loggers or False}
    environment = _cluster_environment()
    if node.get("plugins") is None and environment is not None:
        with_lists["plugins"] = [environment]
    trainer: pl.Trainer = _instantiate(node, "trainer", with_lists)
    return trainer


def _cluster_environment() -> ClusterEnvironment | None:
    """Return Lightning's environment of processes, None = Lightning's own choice.

    Within SLURM Lightning takes even a single process for one of the job's tasks, and handles
    signals that a run handles itself.
    """
    match starter(os.environ):
        case "slurm":
            return SLURMEnvironment(auto_requeue=False)
        case "run":
            return LightningEnvironment()
        case _:
            return None


def _each(
    group_node: Mapping[str, Any] | None, group: str, wanted: Callable[[Mapping[str, Any]], bool]
) -> list[Any]:
    named = {name: node for name, node in (group_node or {}).items() if node is not None}
    for name, node in named.items():
        if not isinstance(node, Mapping) or "_target_" not in node:
            path = f"{group}.{name}"
            allowed = f"allowed: a node with a _target_, or null; +{path}._target_=my.module.Class"
            raise ConfigError.of(path, f"{path}={node}: not an object that can be made; {allowed}")
    return [_instantiate(node, f"{group}.{name}") for name, node in named.items() if wanted(node)]


def _sharing(config: Mapping[str, Any], schedule: SparsityScheduleBase) -> dict[str, Any]:
    """Return the nodes of the callbacks, with the schedule itself where they repeat its node."""
    nodes = dict(config.get("callbacks") or {})
    for name, node in nodes.items():
        same = isinstance(node, Mapping) and node.get("schedule") == config["schedule"]
        if same and node.get("_recursive_", True):
            nodes[name] = {**node, "schedule": schedule}
    return nodes


def _is_wanted(node: Mapping[str, Any], trainer: Mapping[str, Any]) -> bool:
    if "schedule" in node and node["schedule"] is None:
        return False  # schedule=none is the dense control
    is_bar = str(node["_target_"]).endswith("ProgressBar")
    return bool(trainer.get("enable_progress_bar", True)) or not is_bar


def _make(
    node: Mapping[str, Any], path: str, given: set[str], offered: Mapping[str, Any] | None = None
) -> Any:
    """Instantiate a node whose class may be the user's own.

    Defaults of our options that the class does not take are left out. Values of the user, typed or
    in an option of their own, stay, and are an error where the class refuses them.
    """
    accepted = _parameters(locate(str(node["_target_"]), f"{path}._target_"))
    ours = {key for known in nodes() if known.group == path for key in known.model.model_fields}
    fields = {
        key: value
        for key, value in node.items()
        if key not in ours or accepted is None or key in accepted or f"{path}.{key}" in given
    }
    takes = {
        key: value
        for key, value in (offered or {}).items()
        if key not in fields and accepted is not None and key in accepted
    }
    return _instantiate(fields, path, takes)


def _parameters(target: Any) -> set[str] | None:
    """Return the names that a callable takes, None when it takes any."""
    names: set[str] = set()
    # A child that takes **kwargs hands them to its parent: all constructors on the way count.
    if not inspect.isclass(target):
        chain = [target]
    else:
        classes = [kind for kind in target.__mro__ if not _is_of_a_library(kind)] or [target]
        chain = [vars(kind)["__init__"] for kind in classes if "__init__" in vars(kind)]
    for function in chain:
        parameters = inspect.signature(function).parameters.values()
        names |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return names
    return names if inspect.isclass(target) else None


def _is_of_a_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in LIBRARIES


def _reason(cause: BaseException) -> str:
    if isinstance(cause, ValidationError):
        found = cause.errors(include_url=False, include_input=False)
        messages = [details["msg"].removeprefix("Value error, ") for details in found]
        return "; ".join(dict.fromkeys(messages))
    return f"{type(cause).__name__}: {message_of(cause)}"


def _instantiate(node: Mapping[str, Any], path: str, extra: Mapping[str, Any] | None = None) -> Any:
    # Objects are arguments beside the node: Hydra 1.4 refuses them in it.
    made = {key: value for key, value in node.items() if isinstance(value, SparsityScheduleBase)}
    plain = {key: value for key, value in node.items() if key not in made}
    try:
        return instantiate(plain, _convert_="all", **TRUSTED, **made, **(extra or {}))
    except HydraException as error:
        refusal = error
    cause = refusal.__cause__
    if cause is not None and not _refuses_arguments(refusal, cause, str(node.get("_target_"))):
        # Raised out here: within the except clause Hydra's error would become its context, whose
        # cause it is.
        raise cause
    # Hydra's message carries the whole call; the cause says it in one sentence.
    reason = _reason(cause) if cause is not None else str(refusal)
    place = place_of(cause) if cause is not None else ""
    first = " ".join(f"{reason}{place}".split())
    sentence = f"{path} ({node.get('_target_')}) cannot be made: {first}"
    raise ConfigError.of(path, sentence) from refusal


def _refuses_arguments(refusal: HydraException, cause: BaseException, target: str) -> bool:
    """Whether a class refuses the arguments in the config; else its own code has failed."""
    if not str(refusal).startswith("Error in call to target"):
        return True  # Hydra has not come to the call
    if isinstance(cause, TypeError | ValueError):
        return is_about_arguments(cause, target)
    if isinstance(cause, MisconfigurationException):
        return True
    # A precision or a logger whose package is not installed.
    return isinstance(cause, ImportError) and target.partition(".")[0] in LIBRARIES
