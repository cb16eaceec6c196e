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
