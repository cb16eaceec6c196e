"""Plugins of our extras serve the options that ours begin with."""

from pathlib import Path

import pytest

from coreai_opt.sweep.plugins import is_installed
from tests.conftest import Command


@pytest.mark.skipif(not is_installed("hydra_joblib_launcher"), reason="needs the extra joblib")
def test_a_config_file_may_choose_a_launcher(command: Command, work: Path) -> None:
    (work / "mine" / "experiment").mkdir(parents=True)
    file = work / "mine" / "experiment" / "side_by_side.yaml"
    file.write_text("# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\n")
    done = command("--config-dir", "mine", "--cfg", "hydra", "experiment=side_by_side")
    assert done.returncode == 0, done.stderr
    assert "_target_: hydra_plugins.hydra_joblib_launcher.joblib_launcher" in done.stdout
    assert "deprecat" not in done.stderr.lower()
