"""What ``train.py`` says where the extra ``train`` is not installed, or is too old."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from coreai_opt.requirements import TRAIN, missing_for_training
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def put(folder: Path, **versions: str) -> None:
    """Install nothing but the names and versions of packages."""
    for name, version in versions.items():
        about = folder / f"{name}-{version}.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_they_are_those_of_the_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = {f"{name}{allowed}" for name, allowed in TRAIN.items()}
    assert {*extras["train"]} <= needed <= {*extras["train"], *PROJECT["dependencies"]}
    assert "hydra-coreai-opt[train]" in extras["demo"]


def test_neither_package_of_lightning_is_forced_on_anybody() -> None:
    assert [one for one in PROJECT["dependencies"] if "lightning" in one] == []
    # Launchers and searches are for apps with any Lightning, and with none.
    for name in ("joblib", "slurm", "ray", "optuna"):
        extra = PROJECT["optional-dependencies"][name]
        assert [one for one in extra if "lightning" in one or "[train]" in one] == []


def test_here_nothing_is_missing() -> None:
    assert missing_for_training() == []


ENOUGH = {
    "pytorch_lightning": "2.6.4",
    "hydra_core": "1.3.8",
    "omegaconf": "2.3.0",
    "filelock": "4.2",
}


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ({}, []),
        ({"pytorch_lightning": "2.6.10rc1", "hydra_core": "1.3.10"}, []),
        ({"pytorch_lightning": "2.6.3"}, ["pytorch-lightning>=2.6.4,<2.7 (2.6.3 is installed)"]),
        ({"pytorch_lightning": None}, ["pytorch-lightning>=2.6.4,<2.7 (not installed)"]),
        ({"hydra_core": "1.4.0rc3"}, []),
        ({"hydra_core": "1.5.0"}, ["hydra-core>=1.3.2,<1.5 (1.5.0 is installed)"]),
        (
            {"hydra_core": "1.3.1", "filelock": "3.20.0"},
            [
                "hydra-core>=1.3.2,<1.5 (1.3.1 is installed)",
                "filelock>=4.2 (3.20.0 is installed)",
            ],
        ),
    ],
)
def test_what_is_missing_is_named_with_what_is_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: dict[str, str | None],
    missing: list[str],
) -> None:
    put(tmp_path, **{name: version for name, version in (ENOUGH | there).items() if version})
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(tmp_path)])
    assert missing_for_training() == missing


def test_the_first_of_two_counts_as_it_does_in_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, version in (("first", "1.3.1"), ("second", "1.3.8")):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder, **ENOUGH | {"hydra_core": version})
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    assert missing_for_training() == ["hydra-core>=1.3.2,<1.5 (1.3.1 is installed)"]


@pytest.mark.parametrize("arguments", [["schedule=poly", "power=2"], ["--cfg", "job"]])
def test_the_command_exits_with_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    put(tmp_path, hydra_core="1.3.1", pytorch_lightning="2.4.0")
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: training needs pytorch-lightning>=2.6.4,<2.7 (2.4.0 is installed), "
        "hydra-core>=1.3.2,<1.5 (1.3.1 is installed); allowed: "
        "pip install 'hydra-coreai-opt[train]'\n"
    )
