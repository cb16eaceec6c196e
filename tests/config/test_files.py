"""Config files are read as Hydra reads them."""

import os
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins import file_config_source as hydras
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigLoadError
from omegaconf import OmegaConf

from coreai_opt.config.files import FileConfigSource, register_files
from coreai_opt.config.locations import conf_dir

FILES = sorted(str(path.relative_to(conf_dir())) for path in conf_dir().rglob("*.yaml"))

TEXTS = {
    "numbers": "a: 1e3\nb: .5e3\nc: 1_000.0\nd: 0x1F\ne: 1:30\nf: .inf\ng: -.5\nh: 010\n",
    "words": "a: yes\nb: no\nc: 'yes'\nd: null\ne: ~\nf:\ng: on\nh: '2'\n",
    "dates stay text": "a: 2026-11-26\nb: 12:30:15\n",
    "interpolations": 'a: ${b}\nb: "x ${a} y"\nc: ${now:%Y-%m-%d}\nd: [ "${a}", b ]\n',
    "blocks": "a: |\n  two\n  lines\nb: >\n  one\n  line\nc: {d: {e: [1, {f: 2}]}}\n",
    "anchors": "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n",
    "header": "# @package _global_\n# a comment\ndefaults:\n  - _self_\n  - /group: option\na: 1\n",
    "other letters": "ü: äöü\n'a b': \"\\u00fc\\n\"\n'#': \"# no comment\"\n",
    "a list": "- 1\n- a\n",
    "empty": "",
    "only a comment": "# nothing\n",
    "a word": "word",
}
BAD = {
    "a number": "3",
    "twice": "a: 1\na: 2\n",
    "not closed": "a: [1, 2\n",
    "a tab": "a:\n\tb: 1\n",
    "no anchor": "a: *b\n",
    "an object": "a: !!python/object:os.system {}\n",
}


def both(folder: Path, name: str) -> list[Any]:
    """What comes of a file, by our source and by Hydra's."""
    outcomes: list[Any] = []
    for source in (FileConfigSource, FileConfigSource, hydras.FileConfigSource):
        try:
            found = source("main", str(folder)).load_config(name)
        except Exception as error:
            outcomes.append((type(error), str(error)))
            continue
        told = (found.provider, found.path, found.header, found.defaults_list)
        yaml = OmegaConf.to_yaml(found.config)
        outcomes.append((told, yaml, found.config._metadata, type(found.config)))
    return outcomes


@pytest.mark.parametrize("name", FILES)
def test_our_files_are_read_as_by_hydra(name: str) -> None:
    first, again, hydras_own = both(conf_dir(), name)
    assert first == again == hydras_own


@pytest.mark.parametrize("text", [*TEXTS.values(), *BAD.values()], ids=[*TEXTS, *BAD])
def test_any_file_is_read_as_by_hydra_or_refused_as_by_hydra(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(text, encoding="utf-8")
    first, again, hydras_own = both(tmp_path, "one")
    assert first == again == hydras_own
    assert isinstance(first[0], type) == (text in BAD.values())


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    source = FileConfigSource("main", str(tmp_path))
    path.write_text("a: 1\n")
    before = path.stat()
    content = source.load_config("one").config
    content.a = 17
    assert source.load_config("one").config == {"a": 1}
    path.write_text("a: 2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert source.load_config("one").config == {"a": 2}
    path.unlink()
    with pytest.raises(ConfigLoadError, match="Config not found"):
        source.load_config("one")


def test_hydra_is_given_the_source_though_it_has_its_own() -> None:
    registry = SourcesRegistry.instance()
    before = dict(registry.types)
    try:
        register_files()
        registry.register(hydras.FileConfigSource)  # as when Hydra looks for plugins
        assert registry.resolve("file") is FileConfigSource
    finally:
        registry.types = before
