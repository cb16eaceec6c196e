"""Who starts the ranks of a run, what each of them is told, and what is refused."""

import os
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from coreai_opt.cli.argv import replaced
from coreai_opt.config.composing import flags_of
from coreai_opt.config.errors import ConfigError
from coreai_opt.config.schemas.trainer import processes_of, strategy_problems
from coreai_opt.config.validation import find_problems
from coreai_opt.distributed import handoff as launch_notes
from coreai_opt.distributed import ranks
from coreai_opt.distributed.ranks import launch_problem, rank_arguments, run_dir_text
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.processes import is_main_process, launch_id, rank_of, starter, starts_ranks
from coreai_opt.runs.resume import Start
from tests.conftest import Compose
from tests.helpers.building import build

JOB = {"SLURM_JOB_ID": "71", "SLURM_JOB_NAME": "train"}
STEP = {**JOB, "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.mark.parametrize(
    ("environment", "expected", "rank", "by_cluster"),
    [
        pytest.param({}, "other", 0, False, id="no cluster"),
        pytest.param({"LOCAL_RANK": "1"}, "other", 1, False, id="started by the run"),
        pytest.param({"RANK": "3", "LOCAL_RANK": "1"}, "other", 3, False, id="by hand"),
        pytest.param({"NODE_RANK": "1", "LOCAL_RANK": "0"}, "other", 1, False, id="2nd machine"),
        pytest.param({**JOB, "SLURM_NTASKS": "4"}, "run", 0, False, id="sbatch script"),
        pytest.param({**JOB, "LOCAL_RANK": "1"}, "run", 1, False, id="started in the script"),
        pytest.param({**STEP, "SLURM_STEP_NUM_TASKS": "2"}, "slurm", 1, True, id="srun -n2"),
        pytest.param({**STEP, "SLURM_NTASKS": "2"}, "slurm", 1, True, id="old srun -n2"),
        pytest.param(
            {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
            "run",
            0,
            False,
            id="srun -n1 in a larger job",
        ),
        pytest.param(
            {**STEP, "SLURM_STEP_NUM_TASKS": "2", "TORCHELASTIC_RUN_ID": "x", "RANK": "0"},
            "other",
            0,
            True,
            id="torchrun in srun",
        ),
    ],
)
def test_who_starts_the_ranks(
    environment: dict[str, str], expected: str, rank: int, by_cluster: bool
) -> None:
    assert starter(environment) == expected
    assert rank_of(environment) == rank
    assert starts_ranks(environment) == by_cluster
    assert (launch_id(environment) is not None) == by_cluster


def test_a_restarted_job_is_another_launch() -> None:
    step = {**STEP, "SLURM_STEP_NUM_TASKS": "2"}
    ids = {
        launch_id({**step, "SLURM_PROCID": rank, "SLURM_RESTART_COUNT": count})
        for rank in ("0", "1")
        for count in ("0", "1")
    }
    assert ids == {"slurm-71-0-0", "slurm-71-0-1"}


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        ({}, "null", None),
        ({**JOB, "SLURM_NTASKS": "4"}, "null", "LightningEnvironment"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}, "null", "SLURMEnvironment"),
        (JOB, "[{_target_: lightning_fabric.plugins.environments.LSFEnvironment}]", "user's"),
    ],
)
def test_lightning_is_told_of_the_cluster(
    compose_config: Compose,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    given: str,
    expected: str | None,
) -> None:
    taken: dict[str, Any] = {}
    monkeypatch.setattr(
        "pytorch_lightning.Trainer.__init__", lambda self, **given: taken.update(given)
    )
    monkeypatch.setattr(
        "lightning_fabric.plugins.environments.LSFEnvironment.__init__", lambda self: None
    )
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    build(compose_config("experiment=quick", f"+trainer.plugins={given}"), [], quiet=True)
    plugins = taken.get("plugins") or []
    names = ["user's" if "LSF" in type(one).__name__ else type(one).__name__ for one in plugins]
    assert names == ([] if expected is None else [expected])
    if expected == "SLURMEnvironment":
        assert not plugins[0].auto_requeue
        assert not is_main_process()


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({}, 1),
        ({"devices": 2}, 2),
        ({"devices": "2"}, 2),
        ({"devices": "0,1,"}, 2),
        ({"devices": [3]}, 1),
        ({"devices": 2, "num_nodes": 2, "strategy": "ddp"}, 4),
        ({"devices": "auto"}, None),
        ({"devices": -1}, None),
        ({"devices": 4, "strategy": "ddp_fork"}, 1),
        ({"devices": 4, "strategy": "ddp_notebook_find_unused_parameters_true"}, 1),
    ],
)
def test_how_many_processes_a_trainer_needs(trainer: dict[str, Any], expected: int | None) -> None:
    assert processes_of(trainer) == expected


BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"


@pytest.mark.parametrize(
    ("launcher", "processes", "in_command", "by_cluster", "told"),
    [
        (BASIC, 2, True, False, None),
        (BASIC, 2, False, False, "a notebook cannot start the other ranks; allowed: python train"),
        (JOBLIB, 2, True, False, "a worker of hydra/launcher=joblib cannot start"),
        (LOCAL, 4, False, False, "a worker of hydra/launcher=submitit_local cannot start"),
        (LOCAL, 2, False, True, None),
        (JOBLIB, 1, False, False, None),
        (JOBLIB, None, False, False, None),
    ],
)
def test_which_jobs_can_start_their_ranks(
    launcher: str, processes: int | None, in_command: bool, by_cluster: bool, told: str | None
) -> None:
    problem = launch_problem(launcher, processes, in_command, by_cluster)
    assert (problem is None) == (told is None)
    if problem is not None:
        assert told is not None
        assert told in problem.sentence
        assert f"hydra.launcher.tasks_per_node={processes}, or trainer.devices=1" in str(problem)


def test_only_the_process_of_the_command_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_command", None)
    assert not ranks.is_command()
    ranks.remember_command(replaced)
    assert ranks.is_command()
    monkeypatch.setattr(ranks, "_command", (os.getppid(), replaced))  # a worker that was forked
    assert not ranks.is_command()


def test_a_rank_is_given_the_run_and_not_the_sweep() -> None:
    hydra = [
        "hydra.mode=MULTIRUN",
        "hydra.sweep.dir='/a b/it\\'s'",
        "hydra.sweep.subdir='seed-1'",
        "hydra/launcher=basic",
        "+hydra.job.env_set.COREAI_OPT_SWEEP='0:ab'",
        "+hydra.job.env_set.MINE=1",
        "hydra.job.chdir=true",
    ]
    task = ["model.hidden=[3,4]", "sweep_name='a b'", "+x=1", "~y"]
    assert rank_arguments(hydra, task) == [
        "+hydra.job.env_set.MINE=1",
        "hydra.job.chdir=true",
        *task,
    ]


def test_a_rank_finds_the_config_that_was_named() -> None:
    typed = Namespace(config_name="mine", config_dir="my conf", config_path=None)
    assert flags_of(typed) == ["--config-name=mine", "--config-dir=my conf"]


@pytest.mark.parametrize(
    "path", ["/a/b", "/it's a=b, ü", '/say "x"', "/a\\b", "/a\\", '/a\\"', "/a,b[c]{d}"]
)
def test_any_directory_reaches_a_rank(path: str) -> None:
    text = f'hydra.run.dir="{run_dir_text(path)}"'
    assert OverridesParser.create().parse_override(text).value() == path


@pytest.mark.parametrize(
    "name", ["fsdp", "fsdp_cpu_offload", "deepspeed_stage_2", "model_parallel"]
)
def test_strategies_that_shard_are_refused_in_a_sentence(
    compose_config: Compose, name: str
) -> None:
    (problem,) = find_problems(compose_config(f"trainer.strategy={name}"))
    assert str(problem) == (
        f"trainer.strategy={name}: it shards the weights, and a mask needs the whole tensor; "
        "allowed: auto, or ddp for several devices"
    )
    assert find_problems(compose_config("trainer=ddp")) == []


COPYING = {
    "trainer.strategy=ddp_spawn": "ddp_spawn",
    "trainer.strategy=ddp_fork_find_unused_parameters_true": "ddp_fork_find_unused_parameters_true",
    "trainer.strategy=ddp_notebook": "ddp_notebook",
}


@pytest.mark.parametrize("override", COPYING)
@pytest.mark.parametrize("schedule", ["poly", "none"])
def test_strategies_that_train_copies_are_refused_in_a_sentence(
    compose_config: Compose, override: str, schedule: str
) -> None:
    config = compose_config("trainer=ddp", f"schedule={schedule}", override)
    (problem,) = find_problems(config)
    assert str(problem) == (
        f"trainer.strategy={COPYING[override]}: it trains in processes that it spawns or forks, "
        "and the record is made in this one; allowed: auto, or ddp for several devices"
    )


def test_a_strategy_of_ones_own_that_trains_copies_is_refused() -> None:
    node = {"_target_": "my.DDPStrategy", "start_method": "fork"}
    (problem,) = strategy_problems({"strategy": node})
    assert str(problem).startswith("trainer.strategy=my.DDPStrategy with start_method=fork: it ")


@pytest.mark.parametrize("start", ["popen", None])
def test_a_strategy_of_ones_own_that_runs_the_command_again_is_allowed(start: str | None) -> None:
    node = {"_target_": "my_forks.DDPStrategy"} | ({"start_method": start} if start else {})
    assert strategy_problems({"strategy": node}) == []


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    def become(rank: int) -> str:
        step = {**STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank)}
        for name, value in step.items():
            monkeypatch.setenv(name, value)
        launch = launch_id(os.environ)
        assert launch is not None
        return launch

    return become


def test_other_ranks_start_as_rank_0_has_decided(tmp_path: Path, as_rank: Any) -> None:
    launch, paths = as_rank(0), RunPaths(tmp_path)
    launch_notes.publish_start(paths, "slurm-71-0-9", Start(Path("old.ckpt")))
    told: list[Start] = []
    listener = threading.Thread(target=lambda: told.append(launch_notes.await_start(paths, launch)))
    listener.start()
    time.sleep(0.3)
    assert listener.is_alive()  # what another launch has decided does not count
    launch_notes.publish_start(paths, launch, Start(Path("step-7.ckpt")))
    listener.join(5)
    assert [one.checkpoint for one in told] == [Path("step-7.ckpt")]
    launch_notes.publish_start(paths, launch, Start(is_done=True))
    assert launch_notes.await_start(paths, launch).is_done
    assert launch_notes.await_start(paths, launch).checkpoint is None


def test_other_ranks_learn_that_rank_0_refuses(tmp_path: Path, as_rank: Any) -> None:
    launch, paths = as_rank(0), RunPaths(tmp_path)
    with pytest.raises(ValueError, match="no"), launch_notes.refusal_published(paths, launch):
        raise ValueError("no\nway")
    with pytest.raises(ConfigError, match="rank 0 does not run: no way"):
        launch_notes.await_start(paths, launch)
    launch_notes.publish_directory(tmp_path, launch, None)
    with pytest.raises(ConfigError, match="rank 0 has refused the run"):
        launch_notes.await_directory(tmp_path, launch)
    launch_notes.publish_directory(tmp_path, launch, tmp_path / "run")
    assert launch_notes.await_directory(tmp_path, launch) == tmp_path / "run"
    as_rank(1)
    before = paths.start.read_bytes()
    with pytest.raises(ValueError, match="mine"), launch_notes.refusal_published(paths, launch):
        raise ValueError("mine")
    assert paths.start.read_bytes() == before


def test_they_do_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_notes, "PATIENCE_S", 0.3)
    with pytest.raises(ConfigError, match=r"rank 0 has said nothing for 0\.3 s"):
        launch_notes.await_start(RunPaths(tmp_path), "slurm-1-0-0")


def test_notes_of_other_days_are_removed(tmp_path: Path) -> None:
    launch_notes.publish_directory(tmp_path, "slurm-1-0-0", tmp_path)
    old = tmp_path / ".launch-slurm-1-0-0.json"
    launch_notes.publish_directory(tmp_path, "slurm-2-0-0", tmp_path)
    assert old.exists()
    os.utime(old, (0, 0))
    launch_notes.publish_directory(tmp_path, "slurm-3-0-0", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".launch-slurm-2-0-0.json",
        ".launch-slurm-3-0-0.json",
    ]
