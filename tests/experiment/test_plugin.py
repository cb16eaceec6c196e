"""The plugin in Hydra apps that know nothing of us, from the editable install of this checkout.

From the wheel and the sdist: tests/integration/test_installation.py.
"""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_search_path import SearchPathElement
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.singleton import Singleton

from coreai_opt.experiment.groups import config_groups
from coreai_opt.hydra_plugin import PROVIDER, CoreaiConfigSource, CoreaiSearchPath, _OursLast
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    find_spec("hydra_plugins") is None or find_spec("hydra_plugins.hydra_coreai_opt") is None,
    reason="the project is not installed here",
)

APP = """
import json
import sys

import hydra
from omegaconf import OmegaConf

{before}

@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    print(json.dumps(OmegaConf.to_container(cfg, resolve=True)))
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)


if __name__ == "__main__":
    main()
"""

PRUNED = ["+schedule=poly", "+callbacks=scheduled_pruning"]
QUIET = ["hydra.run.dir=out", "hydra.output_subdir=null", "hydra/job_logging=none"]

Ask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., Ask]:
    """Write an app of somebody else's into a folder, and return what runs it from another one."""

    def make(*, before: str = "", **files: str) -> Ask:
        folder, elsewhere = tmp_path / "their app's", tmp_path / "elsewhere"
        files = {"config": "lr: 0.1\n", **files}
        for name, content in files.items():
            path = folder / "conf" / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (folder / "train.py").write_text(APP.format(before=before))
        elsewhere.mkdir(exist_ok=True)

        def ask(*arguments: str, module: bool = False) -> "subprocess.CompletedProcess[str]":
            program = ["-m", "train"] if module else [str(folder / "train.py")]
            # Hydra's parser wants all overrides in one piece.
            flags = [word for word in arguments if word.startswith("-")]
            typed = [*QUIET, *(word for word in arguments if word not in flags)]
            return subprocess.run(
                [sys.executable, *program, *flags, *typed],
                cwd=folder if module else elsewhere,
                capture_output=True,
                text=True,
                timeout=100,
            )

        return ask

    return make


def config_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return config


@pytest.mark.parametrize("module", [False, True], ids=["a file", "python -m"])
def test_a_line_brings_pruning_into_any_app(app: Callable[..., Ask], module: bool) -> None:
    typed = [*PRUNED, "power=2", "target_sparsity=0.8"]
    config = config_of(app()(*typed, module=module))
    callback = config["callbacks"]["scheduled_pruning"]
    assert config["lr"] == 0.1
    assert callback["_target_"] == "lightning_callbacks.ScheduledPruning"
    assert callback["schedule"]["_target_"].endswith(".PolynomialDecaySchedule")
    assert (callback["schedule"]["power"], callback["interval"]) == (2.0, "step")
    weight = callback["config"]["global_config"]["op_state_spec"]["weight"]
    assert weight["target_sparsity"] == 0.8


def test_an_app_that_does_not_use_it_is_left_as_it_was(app: Callable[..., Ask]) -> None:
    done = app()()
    assert config_of(done) == {"lr": 0.1}
    loaded = json.loads(done.stderr.splitlines()[-1])
    ours = [name for name in loaded if name.startswith(("coreai_opt", "lightning_callbacks"))]
    assert ours == []
    assert "hydra_plugins.hydra_coreai_opt" in loaded
    assert not {"pydantic", "torch", "pytorch_lightning"} & set(loaded)


def test_composing_with_it_imports_nothing_heavy(app: Callable[..., Ask]) -> None:
    done = app()(*PRUNED)
    assert config_of(done)["target_sparsity"] == 0.9
    assert not {"torch", "pytorch_lightning"} & set(json.loads(done.stderr.splitlines()[-1]))


def test_an_app_that_selects_callbacks_of_its_own_lists_ours(app: Callable[..., Ask]) -> None:
    ask = app(
        config="defaults: [{callbacks: default}]\n", callbacks__default="mine: {_target_: my.C}\n"
    )
    assert list(config_of(ask())["callbacks"]) == ["mine"]
    callbacks = "callbacks=[default,scheduled_pruning,sparsity_monitor]"
    config = config_of(ask("+schedule=cubic", callbacks, "pruning=n_m", "n=1"))
    assert list(config["callbacks"]) == ["mine", "scheduled_pruning", "sparsity_monitor"]
    spec = config["callbacks"]["scheduled_pruning"]["config"]["global_config"]["op_state_spec"]
    assert spec["weight"]["pruning_scheme"] == {"type": "n_m", "n": 1, "m": 4, "axis": 1}
    # An app may keep the trainer's files elsewhere; runs of a sweep must not share one.
    csv_path = config["callbacks"]["sparsity_monitor"]["csv_path"]
    assert csv_path.endswith("elsewhere/out/sparsity.csv")


SHARED = "hydra: {searchpath: ['file://SHARED']}\n"
STORED = "from hydra.core.config_store import ConfigStore\n" + (
    "ConfigStore.instance().store(group='schedule', name='poly', node={'mine': 3})"
)


@pytest.mark.parametrize("where", ["its folder", "its search path", "Hydra's store"])
def test_the_options_of_an_app_win_over_ours(
    app: Callable[..., Ask], tmp_path: Path, where: str
) -> None:
    shared = tmp_path / "shared"
    (shared / "schedule").mkdir(parents=True)
    (shared / "schedule" / "poly.yaml").write_text("mine: 2\n")
    ask = {
        "its folder": lambda: app(schedule__poly="mine: 1\n"),
        "its search path": lambda: app(config=SHARED.replace("SHARED", str(shared))),
        "Hydra's store": lambda: app(before=STORED),
    }[where]()
    mine = {"its folder": 1, "its search path": 2, "Hydra's store": 3}[where]
    assert config_of(ask("+schedule=poly"))["schedule"] == {"mine": mine}
    assert config_of(ask("+schedule=linear"))["total_iters"] == 400


def test_it_serves_what_it_is_for_and_nothing_else(app: Callable[..., Ask]) -> None:
    ask = app(model__small="a: 1\n")
    groups = {
        name: options.split(", ")
        for line in ask("--help").stdout.splitlines()
        for name, _, options in [line.partition(": ")]
        if name in {group.name for group in config_groups()}
    }
    ours = {group.name: group.names() for group in config_groups()}
    assert groups == {
        "callbacks": ["scheduled_pruning", "sparsity_monitor"],
        "model": ["small"],
        "pruning": ours["pruning"],
        "schedule": [name for name in ours["schedule"] if name != "none"],
    }
    # There the callback would be made without a schedule, and prune all at once.
    done = ask("+schedule=none")
    assert "Could not find 'schedule/none'" in done.stderr
    assert done.returncode == 1
    assert "Could not find 'callbacks/last_checkpoint'" in ask("+callbacks=last_checkpoint").stderr
    assert config_of(ask("+data=digits"))["data"] == "digits"  # a value: there is no such group


VALUES = {
    "a text": ("schedule: cosine\n", "schedule=linear", "linear"),
    "a number": ("pruning: 0.1\n", "pruning=0.5", 0.5),
    "a node": ("callbacks: {mine: {a: 1}}\n", "callbacks=null", None),
    "a value in it": ("callbacks: {mine: {a: 1}}\n", "callbacks.mine.a=2", {"mine": {"a": 2}}),
}


@pytest.mark.parametrize(("config", "typed", "value"), VALUES.values(), ids=VALUES.keys())
def test_a_value_of_an_app_stays_one(
    app: Callable[..., Ask], config: str, typed: str, value: Any
) -> None:
    # Where Hydra knows a group, it takes key=value for a choice, and finds nothing to override.
    key = typed.partition("=")[0].partition(".")[0]
    assert config_of(app(config=config)(typed))[key] == value
    stored = f"ConfigStore.instance().store(name='other', node=OmegaConf.create({config!r}))"
    ask = app(before=f"from hydra.core.config_store import ConfigStore\n{stored}")
    assert config_of(ask("--config-name=other", typed))[key] == value


def test_a_node_of_an_app_takes_in_ours_when_it_is_added(app: Callable[..., Ask]) -> None:
    ask = app(config="callbacks: {mine: {a: 1}}\n", broken="a: [\n")
    assert list(config_of(ask(*PRUNED))["callbacks"]) == ["mine", "scheduled_pruning"]


def test_an_app_may_choose_ours_for_good(app: Callable[..., Ask]) -> None:
    config = "defaults: [{schedule: poly}, {callbacks: [scheduled_pruning]}, _self_]\nschedule:\n"
    ask = app(config=f"{config}  power: 2\n")
    assert config_of(ask())["schedule"]["power"] == 2
    assert config_of(ask("schedule=linear", "pruning=channel"))["axis"] == 1


def test_the_primary_config_of_the_docs_composes(app: Callable[..., Ask]) -> None:
    page = (ROOT / "docs" / "plugin.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    config = config_of(app(config=block, callbacks__default="mine: {a: 1}\n")())
    assert list(config["callbacks"]) == ["mine", "scheduled_pruning"]
    assert (config["n"], config["m"], config["target_sparsity"]) == (2, 4, 0.5)


@pytest.mark.slow
def test_workers_of_a_launcher_compose_with_it(app: Callable[..., Ask], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    ask = app(config="callbacks: {mine: {a: 1}}\n")
    typed = [*PRUNED, "power=1,2", "hydra/launcher=joblib", "hydra.sweep.dir=runs"]
    done = ask("-m", *typed, "hydra.output_subdir=of")
    assert done.returncode == 0, done.stderr
    configs = sorted((tmp_path / "elsewhere" / "runs").glob("*/of/config.yaml"))
    assert [yaml.safe_load(path.read_text())["power"] for path in configs] == [1, 2]


@pytest.mark.parametrize(
    "choice",
    [
        f"{group.name}={option.name}"
        for group in config_groups()
        if group.name in ("pruning", "schedule")
        for option in group.options
        if option.name != "none"
    ],
)
def test_every_option_composes_outside_our_own_tree(choice: str, tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.plugins import Plugins

    (tmp_path / "config.yaml").write_text("{}\n")
    kept = Singleton._instances.pop(Plugins, None)
    stored = ConfigStore.instance().repo
    ConfigStore.instance().repo = {"hydra": stored.get("hydra", {})}
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            given = [choice if choice.startswith("pruning") else f"+{choice}"]
            config = compose("config", ["+callbacks=scheduled_pruning", *given])
    finally:
        ConfigStore.instance().repo = stored
        Singleton._instances.pop(Plugins, None)
        if kept is not None:
            Singleton._instances[Plugins] = kept
    assert pickle.loads(pickle.dumps(config)) == config
    group, _, name = choice.partition("=")
    known = next(known for known in config_groups() if known.name == group)
    knobs = next(option for option in known.options if option.name == name).knobs
    assert {knob.name for knob in knobs} <= set(config)
    assert "_target_" in config[group]


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> CoreaiConfigSource:
    # Tests before this one may have registered our nodes, and what Hydra's store has is not served.
    monkeypatch.setattr(ConfigStore.instance(), "repo", {})
    return CoreaiConfigSource(PROVIDER, "coreai://conf")


def test_a_source_says_what_it_has(source: CoreaiConfigSource) -> None:
    assert source.list("", None) == ["callbacks", "pruning", "schedule"]
    assert source.list("", ObjectType.CONFIG) == []
    assert source.list("schedule", ObjectType.GROUP) == []
    assert source.list("model", None) == []
    assert source.list("callbacks/", ObjectType.CONFIG) == ["scheduled_pruning", "sparsity_monitor"]
    assert source.is_group("schedule/")
    assert not source.is_group("schedule/poly")
    assert source.is_config("schedule/poly.yaml")
    assert source.is_config("callbacks/base_scheduled_pruning")
    for path in ("schedule", "schedule/none", "schedule/base_nothing", "model/base_mlp", "config"):
        assert not source.is_config(path)


def test_what_an_app_adds_to_the_search_path_comes_before_ours() -> None:
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    search = ConfigSearchPathImpl()
    search.append("main", "file:///a")
    CoreaiSearchPath().manipulate_search_path(search)
    search.append("schema", "structured://")
    path = search.get_path()
    assert isinstance(path, _OursLast)
    schema = path.pop(-1)
    path.append(SearchPathElement("hydra.searchpath in main", "file:///b"))
    path.append(schema)
    assert [one.provider for one in path] == [
        "main",
        "hydra.searchpath in main",
        PROVIDER,
        "schema",
    ]
