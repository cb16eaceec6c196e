"""Which parts of a config have applied to something: what matches nothing is a mistake."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coreai_opt.pruning.config._names import by_type, self_and_ancestors, type_name
from coreai_opt.pruning.config._patterns import patterns_of
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig, ModuleMatch
from coreai_opt.pruning.errors import UnknownModuleError, UnknownOpError, UnknownTypeError

if TYPE_CHECKING:
    from coreai_opt.pruning.operations import WeightUse

__all__ = ["ConfigUsage"]


class ConfigUsage:
    """Notes which config applied to which op, and then says what matched nothing."""

    def __init__(self, config: MagnitudePrunerConfig) -> None:
        self._config = config
        self._uses: list[tuple[Any, WeightUse]] = []

    def note(self, match: ModuleMatch, use: "WeightUse") -> None:
        """Note that a config was found for an op that uses a weight."""
        self._uses.append((match.config, use))

    def check(self, kinds: Mapping[str, type], uses: Sequence["WeightUse"]) -> None:
        """Raise when a name or a type in the config matches nothing.

        Args:
            kinds: names and classes of all modules of the model.
            uses: all ops that use a weight.

        Raises:
            UnknownModuleError, UnknownTypeError, UnknownOpError: it lists what exists.
        """
        prunable = list(dict.fromkeys(use.module_name for use in uses))
        reached = {around for name in prunable for around in self_and_ancestors(name)}
        named = self._config.module_name_configs
        patterns = patterns_of(tuple(named))
        existing, used = patterns.used(kinds), patterns.used(reached)
        for pattern, config in named.items():
            # What is left dense need not be prunable.
            if pattern not in (existing if config is None else used):
                raise UnknownModuleError(pattern, prunable)
        for key, config in self._config.module_type_configs.items():
            among = kinds.values() if config is None else [kinds[name] for name in {"", *reached}]
            if not any(by_type({key: None}, kind) is not None for kind in among):
                exist = sorted({type_name(kinds[name]) for name in reached})
                raise UnknownTypeError(type_name(key), exist)
        for config in self._config.module_configs():
            self._check_ops(config)

    def _check_ops(self, config: Any) -> None:
        if not config.op_type_config and not config.op_name_config:
            return
        # Equal configs are one, as they are after only_for, also when they were read from a file.
        uses = [use for known, use in self._uses if known == config]
        types = sorted({use.op_type for use in uses})
        for op_type in config.op_type_config:
            if op_type not in types:
                raise UnknownOpError(op_type, types)
        names = sorted({name for use in uses for name in use.op_names})
        used = patterns_of(tuple(config.op_name_config)).used(names)
        for pattern in config.op_name_config:
            if pattern not in used:
                raise UnknownOpError(pattern, names)
