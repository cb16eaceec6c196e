"""Fixtures of the tests that run apps of others."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.apps import App, Completed, Home, homes

Pruned = Callable[[App], tuple[Path, Completed]]


@pytest.fixture(scope="module", params=homes(), ids=str)
def home(request: pytest.FixtureRequest) -> Home:
    installed: Home = request.param
    return installed


@pytest.fixture(scope="module")
def pruned(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Pruned:
    """Run an app with the one line, once for all tests that look at it."""
    done: dict[App, tuple[Path, Completed]] = {}

    def run(app: App) -> tuple[Path, Completed]:
        if app not in done:
            where = home.copy(app, tmp_path_factory.mktemp(app.name))
            done[app] = where, home.run(where, *app.line, "hydra.run.dir=run")
        where, completed = done[app]
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return where, completed

    return run
