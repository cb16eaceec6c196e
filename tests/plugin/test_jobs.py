"""What a job says of itself: refused at its start, noticed at its end. In apps of their own."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from coreai_opt.config.errors import ConfigError
from coreai_opt.plugin import factory
from tests.plugin.conftest import TRAINS, MakeApp, Said

# What is wrong with it, in the order of the node.
BAD = [
    "+prune=poly",
    "prune.power=-1",
    "prune.target_sparsity=1.5",
    "prune.interval=hour",
    "+prune.powr=2",
]
SENTENCES = [
    "error: prune.interval=hour: should be 'step', 'epoch' or 'percent'; allowed: ",
    "error: prune.power=-1: should be greater than 0; allowed: exponent of the ramp, > 0",
    "error: prune.powr: there is no such key; allowed: schedule, ",
    "error: prune.target_sparsity=1.5: should be less than or equal to 1; allowed: share of ",
]
NOTHING = (
    "nothing was pruned, although prune.schedule=poly was given: no Lightning Trainer was made in "
    "this job; allowed: a job that trains with a Trainer which it makes itself"
)


def test_a_bad_job_ends_before_the_code_of_the_app(app: MakeApp) -> None:
    said = app()(*BAD)
    assert (said.code, said.out) == (1, "")
    lines = sorted(said.err.splitlines())
    assert len(lines) == len(SENTENCES)
    for line, sentence in zip(lines, SENTENCES, strict=True):
        assert line.startswith(sentence)


def test_a_bad_sweep_ends_before_its_first_job(app: MakeApp, tmp_path: Path) -> None:
    ask = app()
    said = ask("-m", "+prune=poly", "prune.power=1,-2", "prune.total_iters=200", "lr=1,2")
    assert (said.code, said.out) == (1, "")
    ramp = "error: prune.total_iters=200: the ramp ends after 210 percent (it begins at 10) and"
    assert said.err.startswith(ramp)
    assert len(said.err.splitlines()) == 1
    # What varies is looked at in each job.
    said = ask("-m", "+prune=poly", "prune.power=1,-2", "hydra/job_logging=default", quiet=False)
    assert [one["prune"]["power"] for one in said.told("CONFIG")] == [1, -2]
    assert "[ERROR] - prune.power=-2: should be greater than 0; allowed: " in said.out
    swept = "hydra: {sweeper: {params: {prune.total_iters: '200,20'}}}\n"
    assert len(app(config=swept)("-m", "+prune=poly").told("CONFIG")) == 2


def test_a_job_says_what_it_does_and_that_nothing_was_pruned(app: MakeApp) -> None:
    ask = app()
    said = ask("+prune=poly", "prune.pattern=n_m", quiet=False)
    begun = "prune: schedule=poly target_sparsity=0.9 pattern=n_m, whose n and m make the target 0"
    assert f"[INFO] - {begun}.5\n" in said.out
    assert said.code == 0
    assert said.err == f"warning: {NOTHING}\n"
    assert "nothing was pruned" not in said.out
    dense = ask("+prune=poly", "prune.schedule=none", quiet=False)
    assert (dense.code, dense.err) == (0, "")
    swept = ask("-m", "+coreai_prune=poly", "coreai_prune.schedule=none,poly")
    assert swept.err.count("nothing was pruned, although coreai_prune.schedule=poly was given") == 1


def test_a_job_that_failed_has_its_own_error(app: MakeApp) -> None:
    program = "import hydra\n@hydra.main(config_path=None, version_base='1.3')\ndef main(cfg):\n"
    ask = app(f"{program}    raise ValueError('theirs')\nmain()\n", has_files=False)
    said = ask("+prune=poly")
    assert said.code == 1
    assert "ValueError: theirs" in said.err
    assert "nothing was pruned" not in said.err


def test_the_values_of_a_job_are_its_own(app: MakeApp, tmp_path: Path) -> None:
    # Hydra's callback is that of the whole multirun, and a config may depend on the directory.
    folder = "prune.init_from=${hydra:runtime.output_dir}/x.pt"
    said = app()("+prune=poly", folder)
    assert said.err.startswith("error: prune.init_from=/")
    assert "out/x.pt: there is no such file" in said.err
    unread = app()("+prune=poly", "prune.power=${nothing}", "prune.gate=???")
    lines = sorted(unread.err.splitlines())
    assert lines[0].startswith("error: prune.gate is not given; give prune.gate=VALUE")
    assert lines[1].startswith("error: prune.power cannot be read: Interpolation key 'nothing' not")


@pytest.mark.slow
def test_a_node_that_was_put_away(app: MakeApp) -> None:
    said = app()("+prune=poly", "prune=null")
    assert said.code == 1


SWEPT = (
    "warning: with +prune=poly,linear a job that trains without a Trainer goes unnoticed; better: "
    "+prune=poly prune.schedule=poly,linear"
)


def zeros_of(said: Said) -> list[float]:
    assert said.code == 0, said.err
    return [first for first, _ in said.told("ZEROS")]


@pytest.mark.slow
def test_a_swept_group_prunes_all_the_same(app: MakeApp) -> None:
    ask = app(TRAINS)
    said = ask("-m", "+prune=constant,none")
    assert zeros_of(said) == pytest.approx([0.898, 0], abs=1e-3)
    assert (
        said.err.count("goes unnoticed; better: +prune=constant prune.schedule=constant,none") == 1
    )
    fixed = ask("-m", "+prune=poly,linear", "prune.power=1")
    assert fixed.err.startswith(SWEPT)
    assert "Could not override 'prune.power'" in fixed.err


@pytest.mark.slow
def test_schedules_are_swept_by_value(app: MakeApp) -> None:
    lines = ["prune.schedule=none,poly,linear", "prune.power=1,2", "prune.target_sparsity=0.5"]
    said = app(TRAINS)("-m", "+prune=poly", *lines, quiet=False)
    assert zeros_of(said) == [0, 0, 0.5, 0.5, 0.5, 0.5]
    for schedule in ("none", "linear"):
        for power in (1, 2):
            told = f"prune.power={power} does not count with prune.schedule={schedule}"
            assert said.out.count(told) == 1
    assert "does not count with prune.schedule=poly" not in said.out
    assert said.err.count("nothing was pruned") == 0


@pytest.mark.slow
def test_a_bad_point_fails_alone(app: MakeApp) -> None:
    said = app(TRAINS)("-m", "+prune=poly", "prune.power=1,-1,2", "prune.target_sparsity=0.5")
    assert [first for first, _ in said.told("ZEROS")] == [0.5, 0.5]
    assert said.code == 1
    assert "prune.power=-1: should be greater than 0" in said.err


@pytest.mark.slow
def test_the_workers_of_a_launcher_prune(app: MakeApp) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    swept = app(TRAINS)("-m", "+prune=constant,linear", "hydra/launcher=joblib")
    assert zeros_of(swept) == pytest.approx([0.898, 0.898], abs=1e-3)
    assert swept.err.count("goes unnoticed") == 1


@pytest.mark.slow
def test_an_app_with_a_prune_of_its_own_is_swept_in_workers(app: MakeApp, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    (tmp_path / "shared").mkdir()
    ask = app(config=f"prune: 0.1\nhydra: {{searchpath: ['file://{tmp_path}/shared']}}\n")
    line = ["+coreai_prune=poly", "prune=0.5", "coreai_prune.power=1,2"]
    said = ask("-m", *line, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    found = [(one["prune"], one["coreai_prune"]["power"]) for one in said.told("CONFIG")]
    assert sorted(found) == [(0.5, 1), (0.5, 2)]


TYPED = """
from dataclasses import dataclass
from hydra.core.config_store import ConfigStore

@dataclass
class Config:
    lr: float = 0.1

ConfigStore.instance().store(name="config", node=Config)
"""


@pytest.mark.slow
def test_a_typed_root_prunes_and_sweeps_over_its_own_keys(app: MakeApp) -> None:
    ask = app(TRAINS, before=TYPED, has_files=False)
    line = ["+prune_typed=constant", "hydra.callbacks.prune.target_sparsity=0.5"]
    assert zeros_of(ask(*line)) == [0.5]
    assert zeros_of(ask("-m", *line, "lr=1,2")) == [0.5, 0.5]
    bad = ask(*line, "hydra.callbacks.prune.begin_step=-1")
    assert bad.err.startswith("error: hydra.callbacks.prune.begin_step=-1: should be greater ")
    assert bad.code == 1
    swept = ask("-m", "+prune_typed=poly", "hydra.callbacks.prune.power=1,2")
    assert "Sweeping over Hydra's configuration is not supported" in swept.err
    # The group may be swept: the job's own config tells.
    assert zeros_of(ask("-m", "+prune_typed=constant,none")) == pytest.approx([0.898, 0], abs=1e-3)


SPAWNS = TRAINS.replace("max_epochs=5", "max_epochs=2, strategy='ddp_spawn', devices=2")


@pytest.mark.slow
def test_spawned_ranks_prune_and_are_noticed(app: MakeApp, tmp_path: Path) -> None:
    said = app(SPAWNS)("+prune=constant", "prune.target_sparsity=0.5")
    assert zeros_of(said) == [0.5]
    assert "nothing was pruned" not in said.err
    assert (tmp_path / "elsewhere" / "out" / "weights.pt").is_file()


ONLY_TESTS = TRAINS.replace("trainer.fit(module, loader(8))", "trainer.test(module, loader(2))")


@pytest.mark.slow
def test_a_trainer_that_only_tests_is_noticed(app: MakeApp) -> None:
    said = app(ONLY_TESTS.replace("TinyModule()", "Tested()"), before=TESTED)("+prune=poly")
    assert said.code == 0, said.err
    assert "was given: the Lightning Trainer of this job did not fit; allowed: " in said.err


TESTED = """
from tests.helpers.lightning import TinyModule

class Tested(TinyModule):
    def test_step(self, batch, batch_idx):
        pass
"""


def test_a_plugin_that_hydra_has_not_found_is_refused(tmp_path: Path, job: Any) -> None:

    with job(config="prune: poly\n"):
        hydra = HydraConfig.get()
        OmegaConf.set_readonly(hydra.overrides, False)
        hydra.overrides.task = ["lr=1", "+prune=poly", "prune_more=3"]
        with pytest.raises(ConfigError, match=r"^\+prune=poly prunes nothing: .*coreai-doctor"):
            factory.pytorch_lightning()
        hydra.overrides.task = ["+prune=0.5", "+prune=hard", "x.prune=poly"]
        assert factory.lightning_pytorch() == []
