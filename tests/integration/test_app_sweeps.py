"""Sweeps of apps that know nothing of this package, by Hydra's own sweeper and launchers."""

from pathlib import Path

import pytest

from tests.helpers.apps import (
    APPS,
    LIST_ROOT,
    REGISTRY,
    ZEN,
    App,
    Home,
    assert_at_target,
    run_files,
    tensors,
    zeros,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# REGISTRY: tests/integration/test_apps.py. The root of ZEN is typed.
SWEPT = [app for app in APPS if app not in (REGISTRY, ZEN)]


@pytest.mark.parametrize("app", SWEPT, ids=lambda app: app.name)
def test_schedules_are_swept_by_value_beside_a_dense_control(
    home: Home, tmp_path: Path, app: App
) -> None:
    where = home.copy(app, tmp_path)
    swept = ["prune.schedule=none,poly,linear", "prune.target_sparsity=0.9"]
    done = home.run(where, "-m", "+prune=poly", *swept, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    dense, *pruned = (sorted((where / "sweep" / job).glob(app.last)) for job in "012")
    plain = tensors(home, app, dense[0])
    assert not any(zeros(plain)[name] for name in app.pruned)
    for job, files in zip("12", pruned, strict=True):
        assert list(tensors(home, app, files[0])) == list(plain)
        for file in run_files(app, where / "sweep" / job):
            assert_at_target(home, app, file)


def test_an_app_with_a_typed_root_is_swept_over_its_own_keys(home: Home, tmp_path: Path) -> None:
    where = home.copy(ZEN, tmp_path)
    done = home.run(where, "-m", *ZEN.line, "seed=1,2", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    for job in "01":
        for file in run_files(ZEN, where / "sweep" / job):
            assert_at_target(home, ZEN, file)


def test_a_typed_root_and_a_swept_knob_of_ours_are_refused(home: Home, tmp_path: Path) -> None:
    where = home.copy(ZEN, tmp_path)
    done = home.run(where, "-m", "+prune_typed=poly", "hydra.callbacks.prune.power=1,2")
    assert done.returncode == 1
    assert "Sweeping over Hydra's configuration is not supported" in done.stderr


def test_a_swept_group_prunes_every_job_by_its_own_config(home: Home, tmp_path: Path) -> None:
    where = home.copy(LIST_ROOT, tmp_path)
    done = home.run(where, "-m", "+prune=poly,constant,linear", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with +prune=poly,constant,linear" in done.stderr
    weights = [
        tensors(home, LIST_ROOT, where / "sweep" / job / "weights.pt") for job in ("0", "1", "2")
    ]
    counted = [[zeros(one)[name] for name in LIST_ROOT.pruned] for one in weights]
    assert counted[0] == counted[1] == counted[2]
    assert all(counted[0])
    assert any(bool((weights[0][name] != weights[2][name]).any()) for name in LIST_ROOT.pruned)


def test_a_swept_group_beside_a_fixed_knob_is_refused_by_hydra(home: Home, tmp_path: Path) -> None:
    where = home.copy(LIST_ROOT, tmp_path)
    done = home.run(where, "-m", "+prune=poly,linear", "prune.power=1")
    assert done.returncode == 1
    assert "Could not override 'prune.power'" in done.stderr


LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local"],
    "ray": [
        "hydra/launcher=ray",
        "++hydra.launcher.ray.init.address=local",
        "+hydra.launcher.ray.init.num_cpus=2",
        "+hydra.launcher.ray.init.include_dashboard=false",
    ],
}


@pytest.mark.parametrize("name", ["joblib", "submitit", pytest.param("ray", marks=pytest.mark.ray)])
def test_workers_of_a_launcher_prune_as_those_of_hydra_do(
    home: Home, tmp_path: Path, name: str
) -> None:
    if not home.has(f"hydra_plugins.hydra_{name}_launcher"):
        pytest.skip(f"hydra-{name}-launcher is not installed there")
    where = home.copy(LIST_ROOT, tmp_path)
    launcher = [*LAUNCHERS[name], "hydra.sweep.dir=sweep"]
    swept = ["prune.schedule=poly,linear", "prune.target_sparsity=0.9"]
    done = home.run(where, "-m", "+prune=poly", *swept, *launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    for job in "01":
        for file in run_files(LIST_ROOT, where / "sweep" / job):
            assert_at_target(home, LIST_ROOT, file)
