"""Config files as Hydra reads them, faster, and read once as long as they stay the same.

A sweep composes a config for every run, from the same files.
"""

import os
from functools import cache
from typing import Any

import yaml
from hydra._internal.core_plugins import file_config_source as hydras
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

__all__ = ["FileConfigSource", "register_files"]

_known: dict[tuple[str, int, int, int], tuple[Any, dict[str, str | None]]] = {}


class FileConfigSource(hydras.FileConfigSource):
    """Hydra's source of that name: files below a directory."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of a file, as Hydra's own source does."""
        path = os.path.join(self.path, self._normalize_file_name(config_path))  # noqa: PTH118
        try:
            file = os.stat(path)  # noqa: PTH116
            key = (os.path.realpath(path), file.st_ino, file.st_size, file.st_mtime_ns)
            if key not in _known:
                with open(path, encoding="utf-8") as stream:  # noqa: PTH123
                    text = stream.read()
                _known[key] = _parsed(text), ConfigSource._get_header_dict(text[:512])
        except (OSError, ValueError, yaml.YAMLError):
            return super().load_config(config_path)  # whose error is the one to be seen
        content, header = _known[key]
        # Made anew: Hydra takes the defaults list out of what it is given.
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=OmegaConf.create(content),
            header=dict(header),
        )


def register_files() -> None:
    """Let Hydra read files by this module."""
    # Not by the method: Hydra's own source may be there already, and would stay.
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def _parsed(text: str) -> Any:
    content = yaml.load(text, Loader=_loader())
    if content is not None and not isinstance(content, list | dict | str):
        raise ValueError("neither a mapping nor a list")
    return {} if content is None else content


@cache
def _loader() -> Any:
    """Return OmegaConf's loader over libyaml's parser, where PyYAML was built with it."""
    theirs = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return theirs

    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class Loader(CParser, theirs):  # type: ignore[misc, valid-type]
        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    return Loader
