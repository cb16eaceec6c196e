"""Plugins of our extras are imported once an option of theirs is composed, and not before."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.sweep.plugins import LAUNCHERS, is_installed
from tests.conftest import ROOT, Command

FOUND = """
import json, sys
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.sweep.plugins import take_names
register_nodes()
if sys.argv[1] == "all":
    Plugins.instance()
take_names()
take_names()
found = {"names": ConfigStore.instance().list("hydra/launcher")}
def known():
    imported = {name.split(".")[1] for name in sys.modules if name.startswith("hydra_plugins.")}
    classes = [one.__name__ for one in Plugins.instance().discover(Launcher)]
    with_config = [name for name in sys.modules if name.startswith("hydra_plugins.hydra_")]
    return {"modules": sorted(with_config), "classes": sorted(classes)}
found["before"] = known()
for name in sys.argv[2:]:
    node = ConfigStore.instance().load(f"hydra/launcher/{name}.yaml").node
    found[name] = OmegaConf.to_container(node)
found["after"] = known()
found["names after"] = ConfigStore.instance().list("hydra/launcher")
print(json.dumps(found, default=str))
"""

NAMES = ["base_joblib", "base_ray", "ray_aws", "submitit_local", "submitit_slurm"]

needs_all = pytest.mark.skipif(
    not all(is_installed(plugin) for plugin in LAUNCHERS), reason="needs all launchers' extras"
)


def found(how: str, *names: str) -> dict[str, Any]:
    program = [sys.executable, "-c", FOUND, how, *names]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@needs_all
def test_launchers_are_imported_when_their_options_are_composed() -> None:
    told = found("few", "base_joblib")
    before, after = told["before"], told["after"]
    assert not [name for name in before["modules"] if name.count(".") > 1]
    assert before["classes"] == ["BasicLauncher"]
    assert after["classes"] == ["BasicLauncher", "JoblibLauncher"]
    assert not [name for name in after["modules"] if "ray" in name and name.count(".") > 1]
    assert told["names"] == told["names after"]


@needs_all
def test_what_is_found_late_is_what_hydra_finds_at_once() -> None:
    late, at_once = found("few", *NAMES), found("all", *NAMES)
    assert late["names"] == at_once["names"] == ["base_joblib.yaml", "base_ray.yaml", "basic.yaml",
        "ray_aws.yaml", "submitit_local.yaml", "submitit_slurm.yaml"]  # fmt: skip
    for key in (*NAMES, "after", "names after"):
        assert late[key] == at_once[key], key


@pytest.mark.skipif(not is_installed("hydra_joblib_launcher"), reason="needs the extra joblib")
def test_a_config_file_may_choose_a_launcher(command: Command, work: Path) -> None:
    (work / "mine" / "experiment").mkdir(parents=True)
    file = work / "mine" / "experiment" / "side_by_side.yaml"
    file.write_text("# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\n")
    done = command("--config-dir", "mine", "--cfg", "hydra", "experiment=side_by_side")
    assert done.returncode == 0, done.stderr
    assert "_target_: hydra_plugins.hydra_joblib_launcher.joblib_launcher" in done.stdout
    assert "deprecat" not in done.stderr.lower()
