"""Usage of a config: the parts that have matched something. A part without a match is a mistake."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coreai_opt.pruning._torch_internals import parameters_of
from coreai_opt.pruning.config._names import by_type, first_match, self_and_ancestors, type_name
from coreai_opt.pruning.config._patterns import patterns_of
from coreai_opt.pruning.config.module import DEFAULT_PARAMETERS
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig, ModuleMatch
from coreai_opt.pruning.errors import (
    UnknownModuleError,
    UnknownOpError,
    UnknownParameterError,
    UnknownTypeError,
)

if TYPE_CHECKING:
    from coreai_opt.pruning.model.operations import WeightUse


class ConfigUsage:
    """Notes which config applied to which op, and then says what matched nothing.

    ``by_type``: the ops are those of known layers, and no model was run.
    """

    def __init__(self, config: MagnitudePrunerConfig, by_type: bool = False) -> None:
        self._config, self._by_type = config, by_type
        self._uses: list[tuple[Any, WeightUse]] = []

    def note(self, match: ModuleMatch, use: "WeightUse") -> None:
        """Note that a config was found for an op that uses a weight."""
        self._uses.append((match.config, use))

    def check(self, kinds: Mapping[str, type], uses: Sequence["WeightUse"]) -> None:
        """Raise when a name or a type in the config matches nothing; the error lists what exists.

        Args:
            kinds: names and classes of all modules of the model.
            uses: all ops that use a weight.
        """
        prunable = list(dict.fromkeys(use.module_name for use in uses))
        reached = {around for name in prunable for around in self_and_ancestors(name)}
        named = self._config.module_name_configs
        patterns = patterns_of(tuple(named))
        existing, used = patterns.used(kinds), patterns.used(reached)
        for pattern, config in named.items():
            # What is left dense need not be prunable; "" is there always.
            if pattern and pattern not in (existing if config is None else used):
                by_type_only = self._by_type and pattern in existing
                raise UnknownModuleError(pattern, prunable, by_type_only)
        for key, config in self._config.module_type_configs.items():
            among = kinds.values() if config is None else [kinds[name] for name in {"", *reached}]
            if not any(by_type({key: None}, kind) is not None for kind in among):
                exist = sorted({type_name(kinds[name]) for name in reached})
                raise UnknownTypeError(type_name(key), exist)
        own: dict[int, list[WeightUse]] = {}
        for config, use in self._uses:
            own.setdefault(id(config), []).append(use)
        for config in self._config.module_configs():
            self._check_module(config, own.get(id(config), ()))

    def _check_module(self, config: Any, own: Sequence["WeightUse"]) -> None:
        try:
            self._check_ops(config, own)
        except (UnknownOpError, UnknownParameterError):
            # Equal configs are one, as they are after only_for, also when they were read from a
            # file. To compare each with each takes a time that grows with the square.
            self._check_ops(config, [use for known, use in self._uses if known == config])

    def _check_ops(self, config: Any, uses: Sequence["WeightUse"]) -> None:
        types = sorted({use.op_type for use in uses})
        for op_type in config.op_type_config:
            if op_type not in types:
                raise UnknownOpError(op_type, types)
        names = sorted({name for use in uses for name in use.op_names})
        used = patterns_of(tuple(config.op_name_config)).used(names)
        for pattern in config.op_name_config:
            if pattern not in used:
                raise UnknownOpError(pattern, names)
        for specs in (config.op_state_spec, config.module_state_spec):
            self._check_parameters(specs, uses)
        for op_type, inner in config.op_type_config.items():
            of_type = [use for use in uses if use.op_type == op_type]
            self._check_parameters(inner and inner.op_state_spec, of_type)
        for pattern, inner in config.op_name_config.items():
            named = [use for use in uses if first_match([pattern], use.op_names)]
            self._check_parameters(inner and inner.op_state_spec, named)

    def _check_parameters(self, specs: Any, uses: Sequence["WeightUse"]) -> None:
        known = {"*", *(name for use in uses for name in use.known_as)}
        beside = {name for use in uses for name in parameters_of(use.module)}
        for name, spec in (specs or {}).items():
            # The defaults stand for what there may be; but one of them has to be there.
            is_default = name in DEFAULT_PARAMETERS and (not uses or not known.isdisjoint(specs))
            # What is left dense need not be prunable.
            stays = spec is None and name in beside
            if name not in known and not is_default and not stays:
                there = sorted({use.parameter for use in uses})
                raise UnknownParameterError(name, there, self._by_type)
