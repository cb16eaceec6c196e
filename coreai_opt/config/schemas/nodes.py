"""Structured configs: ``schema/GROUP/NAME``, with a ``_target_``, derived from pydantic classes.

One table says which node has which class. The schemas in Hydra's ConfigStore are made from it, and
validation looks up the class of a node in it by ``_target_``, so that the two cannot differ.
"""

import copyreg
import sys
import types
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from itertools import count
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hydra.core.config_store import ConfigStore
from hydra.core.utils import setup_globals
from omegaconf import MISSING, OmegaConf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coreai_opt.config.schemas import settings
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.config.schedules import SparsityScheduleBase
from coreai_opt.pruning.spec.schemes import PruningScheme

PRIMITIVES = (int, float, str, bool)

SCHEMAS = "schema"
"""The group that Hydra finds them in."""

# Our schedules are exported by this package, whichever of its modules defines them.
SCHEDULE_PACKAGE = "coreai_opt.pruning.config"

# The option names that people type, where they are shorter than the key in the registry.
SCHEDULE_NAMES = {"polynomial_decay": "poly"}


NUMBERS = count()


class SchemaType(type):
    """The type of the schemas, which pickle makes anew from the class that they are derived from.

    A process that reads a pickled config needs to have imported nothing before.
    """

    _origin: tuple[Any, ...]


class Schema(metaclass=SchemaType):
    """What all schemas are."""


def _reduced(schema: SchemaType) -> Any:
    return schema.__qualname__ if schema is Schema else (_unpickled, schema._origin)


copyreg.pickle(SchemaType, _reduced)


def _unpickled(*origin: Any) -> type:
    # Hydra's rerun reads a config in a process that has composed none, and where nobody has
    # registered what ${hydra:runtime.output_dir} needs.
    if not OmegaConf.has_resolver("hydra"):
        setup_globals()
    return schema_of(*origin)


@dataclass(frozen=True)
class Node:
    """A schema: its group and name, what it instantiates, and the class of its fields."""

    group: str
    name: str
    target: str
    model: type[BaseModel]
    partial: bool = False


def nodes() -> list[Node]:
    """Return all nodes; schedules that a user has registered are among them."""
    return [*_schedule_nodes(), *_other_nodes()]


def register_nodes() -> None:
    """Put every schema into Hydra's ConfigStore; doing it twice does no harm."""
    store = ConfigStore.instance()
    for node in nodes():
        schema = schema_of(node.model, node.target, node.partial)
        store.store(node.name, schema, group=f"{SCHEMAS}/{node.group}", provider="coreai_opt")


def model_of_target(target: str) -> type[BaseModel] | None:
    """Return the class that validates nodes with this ``_target_``; None for a user's own."""
    return next((node.model for node in nodes() if node.target == target), None)


@cache
def schema_of(model: type[BaseModel], target: str | None = None, is_partial: bool = False) -> type:
    """Return a dataclass with the fields of a pydantic class, as OmegaConf can hold them.

    It is the same one each time. Names, types and defaults are taken over; ranges stay with the
    pydantic class. A tuple of any length becomes a list. What OmegaConf has no type for (literals,
    unions, any object) becomes ``str`` or ``Any``. A default that is itself made of pydantic
    objects becomes ``???``: the config file has to say it.
    """
    fields: list[tuple[str, Any, Any]] = []
    if target is not None:
        fields.append(("_target_", str, field(default=target)))
    if is_partial:
        fields.append(("_partial_", bool, field(default=True)))
    for name, info in model.model_fields.items():
        if info.default_factory is dict or _is_absent_dict(info):
            # Only an untyped null can be set to a dict on the command line: a dict that is there
            # takes no new keys, and OmegaConf 2.3 cannot merge into a typed one that is null.
            fields.append((name, Any, field(default=None)))
        else:
            fields.append((name, _omegaconf_type(info.annotation), _default(info)))
    own = {"__doc__": model.__doc__, "_origin": (model, target, is_partial)}
    schema = make_dataclass(f"{model.__name__}Schema", fields, bases=(Schema,), namespace=own)
    # cloudpickle takes a class apart unless its module has it by its name.
    schema.__module__, schema.__qualname__ = __name__, f"{schema.__name__}{next(NUMBERS)}"
    setattr(sys.modules[__name__], schema.__qualname__, schema)
    return schema


def _is_absent_dict(info: FieldInfo) -> bool:
    kinds = [get_origin(kind) for kind in get_args(info.annotation)]
    return dict in kinds and not info.is_required() and info.default is None


def _omegaconf_type(annotation: Any) -> Any:
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return _omegaconf_type(arguments[0])
    if origin is Literal:
        return str
    if origin in (Union, types.UnionType):
        return _optional(arguments)
    if origin is list or (origin is tuple and arguments[1:] == (Ellipsis,)):
        return list[_omegaconf_type(arguments[0])]  # type: ignore[misc]
    if origin is dict and arguments[0] is str:
        return dict[str, _omegaconf_type(arguments[1])]  # type: ignore[misc]
    if annotation in PRIMITIVES:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        # A base class of many (schemes, schedules) has no fields to hold: any dict may stand there.
        return schema_of(annotation) if annotation.model_fields else Any
    return Any


def _optional(arguments: tuple[Any, ...]) -> Any:
    kinds = [kind for kind in arguments if kind is not type(None)]
    if len(kinds) != 1 or len(kinds) == len(arguments):
        return Any
    inner = _omegaconf_type(kinds[0])
    return inner if inner is Any else inner | None


def _default(info: FieldInfo) -> Any:
    if info.is_required():
        return field(default=MISSING)
    value = info.get_default(call_default_factory=False)
    if info.default_factory is not None:
        return field(default=MISSING)
    if isinstance(value, PruningScheme):
        # As model_dump gives it, whose serializer would have to be built first: 20 ms.
        plain = {"type": value.registry_key(), **dict(value)}
        return field(default_factory=lambda: dict(plain))
    if isinstance(value, BaseModel):
        return field(default_factory=value.model_dump)
    if isinstance(value, tuple):
        return field(default_factory=lambda: list(value))
    if isinstance(value, list | dict):
        return field(default_factory=lambda: type(value)(value))
    return field(default=value)


def _schedule_nodes() -> list[Node]:
    made = []
    for key in SparsityScheduleBase.list_registry_keys():
        cls = SparsityScheduleBase.get_class(key)
        is_ours = cls.__module__.startswith(f"{SCHEDULE_PACKAGE}.")
        module = SCHEDULE_PACKAGE if is_ours else cls.__module__
        name = SCHEDULE_NAMES.get(key, key)
        made.append(Node("schedule", name, f"{module}.{cls.__qualname__}", cls))
    return made


@cache
def _other_nodes() -> list[Node]:
    models, data = "coreai_opt.models", "coreai_opt.data"
    image, vision = settings.ImageDataSettings, settings.TorchvisionSettings
    pruning = settings.ScheduledPruningSettings
    monitor = settings.SparsityMonitorSettings
    return [
        Node(
            "pruning",
            "magnitude",
            "coreai_opt.pruning.MagnitudePrunerConfig",
            MagnitudePrunerConfig,
        ),
        Node("model", "mlp", f"{models}.MLP", settings.MLPSettings),
        Node("model", "convnet", f"{models}.ConvNet", settings.ConvNetSettings),
        Node("model", "resnet", f"{models}.ResNet", settings.ResNetSettings),
        Node(
            "model", "transformer", f"{models}.TransformerClassifier", settings.TransformerSettings
        ),
        Node("data", "mnist_subset", f"{data}.MNISTSubset", image),
        Node("data", "digits", f"{data}.Digits", image),
        Node("data", "mnist", f"{data}.MNIST", vision),
        Node("data", "cifar10", f"{data}.CIFAR10", vision),
        Node("optimizer", "sgd", "torch.optim.SGD", settings.SGDSettings, partial=True),
        Node("optimizer", "adamw", "torch.optim.AdamW", settings.AdamWSettings, partial=True),
        Node("trainer", "trainer", "pytorch_lightning.Trainer", settings.TrainerSettings),
        Node("callbacks", "scheduled_pruning", "lightning_callbacks.ScheduledPruning", pruning),
        Node("callbacks", "sparsity_monitor", "lightning_callbacks.SparsityMonitor", monitor),
    ]
