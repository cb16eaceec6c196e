"""coreai-doctor: what it says of this environment, and of one that lacks something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coreai_opt.plugin import doctor


def ask(tmp_path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "coreai_opt.plugin.doctor"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.mark.slow
def test_it_is_well_here(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_coreai_opt", reason="the project is not installed")
    done = ask(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "+prune=poly works here"
    assert {line.partition(":")[0] for line in lines[:-1]} == {"ok"}
    assert "ok: Hydra finds the group prune" in lines


def test_a_plugin_that_another_package_hides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A hydra_plugins with an __init__.py is no namespace: what others add to it is not found.
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (line,) = doctor._plugin()
    assert line.startswith(
        "bad: Hydra does not find the plugin hydra_plugins.hydra_coreai_opt, and"
    )
    assert "; allowed: pip install " in line


def test_a_release_that_was_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda package: "2.6.3")
    (line, *_) = doctor._roots()
    assert line == (
        "bad: pytorch-lightning 2.6.3 was withdrawn; allowed: "
        "pip install 'pytorch-lightning!=2.6.2,!=2.6.3'"
    )


def test_a_bad_line_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for check in ("_libraries", "_roots", "_plugin"):
        monkeypatch.setattr(doctor, check, lambda: iter(["ok: this"]))
    monkeypatch.setattr(doctor, "entry_points", lambda group: [])
    assert doctor.main() == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "+prune=poly does not work here"
    assert sum(line.startswith("bad: no Trainer of ") for line in said) == 2
