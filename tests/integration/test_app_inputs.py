"""Bad input in apps that know nothing of this package: one sentence each, and no silence."""

import re
from pathlib import Path

import pytest

from tests.helpers.apps import (
    DICT_GROUP,
    LIST_ROOT,
    REGISTRY,
    ZEN,
    App,
    Completed,
    Home,
    assert_at_target,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PLAIN = '''
"""Trains without Lightning."""

import hydra
import torch


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(cfg):
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
    print("trained")


if __name__ == "__main__":
    main()
'''

# What is typed, and the sentence, of which no other is shown.
WRONG = {
    "unknown": (["+prune.powr=2"], "prune.powr: there is no such key; allowed: .*'power'"),
    "target": (["prune.target_sparsity=1.5"], "prune.target_sparsity=1.5: .*0 to 1"),
    "percent": (["prune.begin_step=50"], ".*110 percent.*"),
    "pattern": (["prune.pattern=rows"], "prune.pattern=rows: .*unstructured, n_m, block, channel"),
}

# What a Trainer knows first: Hydra shows the app's calls above the sentence.
WRONG_LATER = {
    "epochs": (
        ["prune.interval=epoch", "prune.begin_step=1", "prune.total_iters=9"],
        "ends after 10 epochs .* the training has 5; allowed: ",
    ),
    "steps": (
        ["prune.interval=step", "prune.begin_step=1", "prune.total_iters=500"],
        "ends after 501 steps .* the training has 40; allowed: ",
    ),
    "layer": (
        ["prune.dense=[encoder.layer9]"],
        "'encoder.layer9' matches no module .*; allowed: features.0, features.3, head",
    ),
}


@pytest.fixture(scope="module")
def where(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return home.copy(LIST_ROOT, tmp_path_factory.mktemp("wrong"))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_knob_ends_the_job_with_one_sentence(home: Home, where: Path, wrong: str) -> None:
    typed, sentence = WRONG[wrong]
    done = home.run(where, "+prune=poly", *typed, "hydra.run.dir=run")
    assert done.returncode == 1
    assert re.fullmatch(f"error: {sentence}.*\n", done.stderr), done.stderr
    assert done.stdout == ""


def test_all_wrong_knobs_are_named_at_once(home: Home, where: Path) -> None:
    done = home.run(where, "+prune=poly", "prune.target_sparsity=1.5", "prune.pattern=rows")
    assert done.returncode == 1
    assert sorted(line.split("=")[0] for line in done.stderr.splitlines()) == [
        "error: prune.pattern",
        "error: prune.target_sparsity",
    ]


@pytest.mark.parametrize("wrong", WRONG_LATER)
def test_what_only_a_trainer_knows_to_be_wrong_ends_the_fit(
    home: Home, where: Path, wrong: str
) -> None:
    typed, sentence = WRONG_LATER[wrong]
    done = home.run(where, "+prune=poly", *typed, "hydra.run.dir=run")
    assert done.returncode == 1
    assert re.search(sentence, _error_of(done)), done.stderr
    assert not list((where / "run").glob("*.ckpt"))


def _error_of(done: Completed) -> str:
    """Return the message of the exception that ended a job."""
    text = done.stderr.partition("\nSet the environment variable HYDRA_FULL_ERROR")[0]
    return text.rstrip().splitlines()[-1]


def test_a_model_without_a_prunable_weight_is_refused(home: Home, tmp_path: Path) -> None:
    where = home.copy(REGISTRY, tmp_path)
    done = home.run(where, *REGISTRY.line, "net=scale")
    assert done.returncode == 1
    assert "nothing to prune" in _error_of(done)


@pytest.mark.parametrize("words", [["+prune=poly"], ["-m", "+prune=poly", "prune.power=1,2"]])
def test_an_app_without_lightning_is_told_that_nothing_was_pruned(
    home: Home, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "train.py").write_text(PLAIN)
    (tmp_path / "config.yaml").write_text("lr: 0.1\n")
    done = home.run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    said = (
        "nothing was pruned, although prune.schedule=poly was given: no Lightning Trainer was made"
    )
    assert done.stderr.count(said) == (2 if "-m" in words else 1), done.stderr


@pytest.mark.parametrize("own", ["prune: false\n", "prune: {ratio: 0.5}\n"])
def test_an_app_that_has_a_prune_of_its_own_keeps_it(home: Home, tmp_path: Path, own: str) -> None:
    where = home.copy(LIST_ROOT, tmp_path)
    config = where / "config.yaml"
    config.write_text(config.read_text() + own)
    refused = home.run(where, "+prune=poly")
    assert refused.returncode == 1
    assert "+coreai_prune=poly" in refused.stderr
    assert "Traceback" not in refused.stderr
    line = ["+coreai_prune=poly", "coreai_prune.target_sparsity=0.9", "hydra.run.dir=run"]
    done = home.run(where, *line)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_at_target(home, LIST_ROOT, where / "run" / "best.ckpt")
    assert own.strip() in (where / "run" / ".hydra" / "config.yaml").read_text().replace(
        "prune:\n  ratio: 0.5", "prune: {ratio: 0.5}"
    )


def test_a_typed_root_is_told_the_other_name(home: Home, tmp_path: Path) -> None:
    done = home.run(home.copy(ZEN, tmp_path), "+prune=poly")
    assert done.returncode == 1
    assert "+prune_typed=poly" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("app", "words"),
    [(DICT_GROUP, ["debug=default"]), (LIST_ROOT, ["+trainer.fast_dev_run=true"])],
    ids=lambda value: value.name if isinstance(value, App) else "",
)
def test_a_debug_run_is_warned_and_goes_through(
    home: Home, tmp_path: Path, app: App, words: list[str]
) -> None:
    where = home.copy(app, tmp_path)
    done = home.run(where, *app.line, *words, "hydra.run.dir=run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fast_dev_run" in done.stdout + done.stderr
