"""What only the training of an app can tell to be wrong, and an app with a key of our name."""

from pathlib import Path

import pytest

from tests.helpers.apps import LIST_ROOT, Home, assert_at_target

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_what_only_a_trainer_knows_to_be_wrong_ends_the_job(home: Home, tmp_path: Path) -> None:
    where = home.copy(LIST_ROOT, tmp_path)
    done = home.run(where, "+prune=poly", "prune.dense=[encoder.layer9]", "hydra.run.dir=run")
    assert done.returncode == 1
    # Hydra shows the app's calls above the sentence, and a hint below.
    error = done.stderr.partition("\nSet the environment variable HYDRA_FULL_ERROR")[0]
    sentence = error.rstrip().splitlines()[-1]
    assert "'encoder.layer9' matches no module " in sentence
    assert "; allowed: features.0, features.3, head" in sentence
    assert not list((where / "run").glob("*.ckpt"))


def test_an_app_that_has_a_prune_of_its_own_keeps_it(home: Home, tmp_path: Path) -> None:
    where = home.copy(LIST_ROOT, tmp_path)
    own, config = "prune:\n  ratio: 0.5\n", where / "config.yaml"
    config.write_text(config.read_text() + own)
    line = ["+coreai_prune=poly", "coreai_prune.target_sparsity=0.9", "hydra.run.dir=run"]
    done = home.run(where, *line)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_at_target(home, LIST_ROOT, where / "run" / "best.ckpt")
    assert own in (where / "run" / ".hydra" / "config.yaml").read_text()
