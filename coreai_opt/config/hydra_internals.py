"""Seam to Hydra and OmegaConf: every private name of theirs that the project uses.

Known to work: hydra-core 1.3.2 to 1.4.0rc3 with OmegaConf 2.3.0 to 2.4.1. A version in which a name
is gone is told when this module is imported.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import hydra.utils
import omegaconf
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, Node, OmegaConf, ValueNode, open_dict, read_write
from omegaconf.basecontainer import BaseContainer

from coreai_opt.requirements import release_of

try:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path, get_args_parser

    apply_overrides = ConfigLoaderImpl._apply_overrides_to_config
    create_hydra = Hydra.create_main_hydra2
    DictConfig._get_node, ListConfig._get_node  # noqa: B018, looked for before anything runs
    BaseContainer._resolvers  # noqa: B018
    Node._value, Node._is_interpolation, Node._is_none, Node._is_missing  # noqa: B018
except (ImportError, AttributeError) as error:
    raise ImportError(
        f"hydra-core {hydra.__version__} lacks what this project takes from it ({error}); known "
        "to work: hydra-core 1.3.2 to 1.4.0rc3 with omegaconf 2.3.0 to 2.4.1"
    ) from error

IS_OLD = release_of(hydra.__version__) < (1, 4)
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_OLD else {}
"""What an app says of the version of Hydra whose behaviour it wants; from 1.4 on nothing."""

# OmegaConf 2.4 has given the shorter name, which was that of an older function, to the new one.
_IS_RENAMED = release_of(omegaconf.__version__) >= (2, 4)
_register: Any = OmegaConf.register_resolver if _IS_RENAMED else OmegaConf.register_new_resolver

# From 1.4 on a call says what configs may name. That is allowed_targets() here.
_UNCHECKED = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
TRUSTED: dict[str, Any] = {} if _UNCHECKED is None else {"_execution_whitelist_": _UNCHECKED}
"""Arguments of ``hydra.utils.instantiate`` for a config whose targets have been checked."""

__all__ = [
    "TRUSTED",
    "VERSION_BASE",
    "ConfigLoaderImpl",
    "apply_overrides",
    "child_node",
    "create_config_search_path",
    "create_hydra",
    "forget_search_path",
    "get_args_parser",
    "has_value",
    "plain_value",
    "raised_by",
    "raw_text",
    "resolvers_replaced",
    "trusted",
    "writable",
]


def child_node(parent: DictConfig | ListConfig, key: Any) -> Any:
    """Return the node at a key without resolving what it says, None where there is none."""
    return parent._get_node(key, validate_access=False)


def raw_text(parent: Any, key: Any) -> str:
    """Return what stands at a key as it is written, ``${power}``; ``"None"`` where nothing does."""
    node = child_node(parent, key) if isinstance(parent, DictConfig | ListConfig) else None
    return str(None if node is None else node._value())


def has_value(node: Any) -> bool:
    """Return whether a node is neither null, nor ``???``, nor an interpolation."""
    return not (node._is_none() or node._is_missing() or node._is_interpolation())


def plain_value(node: Any) -> Any:
    """Return the value of a node that says it itself, None for any other node."""
    return node._value() if isinstance(node, ValueNode) and has_value(node) else None


def raised_by(job: JobReturn) -> Any:
    """Return the error of a failed job; ``return_value`` raises it, and logs it first."""
    return job._return_value


@contextmanager
def writable(config: DictConfig) -> Iterator[None]:
    """Let a composed config be changed, and its ``hydra``: from 1.4 on that is read-only itself."""
    nodes = [config, *([config.hydra] if "hydra" in config else [])]
    with ExitStack() as stack:
        for node in nodes:
            stack.enter_context(read_write(node))
            stack.enter_context(open_dict(node))
        yield


@contextmanager
def resolvers_replaced(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let interpolations resolve by other functions; an app may have some in Hydra's place."""
    before = dict(BaseContainer._resolvers)
    for name, function in functions.items():
        _register(name, function, replace=True)
    try:
        yield
    finally:
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(before)


def trusted() -> AbstractContextManager[Any]:
    """Return a context in which Hydra makes what configs name, as before 1.4 without a warning."""
    policy: Any = getattr(hydra.utils, "execution_whitelist", None)
    return nullcontext() if policy is None else policy(_UNCHECKED)


def forget_search_path(name: str) -> None:
    """Let a plugin that changes the search path do so no more in this process."""
    kinds = Plugins.instance().plugin_type_to_subclass_list
    kinds[SearchPathPlugin] = [one for one in kinds[SearchPathPlugin] if one.__name__ != name]
