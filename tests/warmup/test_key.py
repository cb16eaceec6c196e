"""Which runs share their dense warm-up: those that do the same until one of them prunes."""

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from coreai_opt.config.identity import flatten
from coreai_opt.config.locations import conf_dir
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.warmup.key import warmup_config, warmup_end, warmup_key
from tests.helpers.quick_runs import QUICK

SPEC = "pruning.global_config.op_state_spec.weight"
OWN_CALLBACK = "+callbacks.mine={_target_:my.module.Callback"
LAYER = "pruning.module_name_configs={network.layers.1:{op_state_spec:{weight:{target_sparsity:%s}}"
SCHEDULE = ",sparsity_schedule:{type:constant,begin_step:%s}}}"

# Two jobs of one sweep that do the same before they prune.
SHARING = [
    ([], ["power=1"]),
    ([], ["total_iters=5"]),
    ([], ["update_frequency=3"]),
    ([], ["target_sparsity=0.5"]),
    ([], ["schedule=cosine"]),
    (["schedule=exponential", "rate=2.0"], ["schedule=exponential", "rate=3.0"]),
    ([LAYER % 0.8 + "}}"], [LAYER % 0.5 + "}}"]),
    ([LAYER % 0.8 + SCHEDULE % 9], [LAYER % 0.8 + SCHEDULE % 8]),
    ([], ["checkpoint.every_n_steps=3"]),
    ([], ["resume=never"]),
    ([], ["resume_force=true"]),
    ([], ["sweep.retry=all"]),
    ([], ["identity.ignore=[]"]),
    ([], ["callbacks.progress_bar=null"]),
    ([], ["trainer.enable_progress_bar=false"]),
    ([], ["optimizer.lr=0.10"]),
    ([], ["paths.output_root=elsewhere", "paths.sweep_root=elsewhere"]),
]

# What makes them differ before that, or differ in what a checkpoint holds.
APART = [
    "seed=2",
    "init_from=weights.pt",
    "model.hidden=[8]",
    "model=resnet",
    "data.num_train=80",
    "data.batch_size=8",
    "data.split_seed=1",
    "data.num_workers=1",
    "optimizer.lr=0.05",
    "optimizer.momentum=0.8",
    "optimizer.lr_schedule.warmup_steps=1",
    "optimizer=adamw",
    "trainer.max_epochs=4",
    "trainer.accelerator=auto",
    "trainer.log_every_n_steps=1",
    "trainer.accumulate_grad_batches=2",
    "trainer.precision=bf16-mixed",
    "+trainer.gradient_clip_val=1",
    "+trainer.val_check_interval=3",
    "interval=epoch",
    "pruning=channel",
    "allocation=global",
    "criterion=taylor",
    "allow_regrowth=false",
    "target_sparsity=0",
    f"{SPEC}.target_sparsity=0",
    "pruning.module_name_configs={network.layers.1:null}",
    LAYER % 0.5 + "}}",
    LAYER % 0 + "}}",
    "callbacks.scheduled_pruning.follow_calls=true",
    "objective.name=val/loss",
    "objective.mode=min",
    "logger=none",
    "logger=tensorboard",
    "callbacks.sparsity_monitor=null",
    "callbacks.sparsity_monitor.csv_path=null",
    "callbacks.sparsity_monitor.every_n_steps=3",
    "callbacks.best_checkpoint.save_top_k=2",
    "callbacks.last_checkpoint=null",
    OWN_CALLBACK + "}",
]

# What has the name of something that is left out, and is another thing.
NAMESAKES = [
    ("+model.schedule=cosine", "+model.schedule=linear"),
    ("+model.noise={schedule:{steps:3}}", "+model.noise={schedule:{steps:4}}"),
    ("+model.sparsity_schedule=a", "+model.sparsity_schedule=b"),
    ("+model.target_sparsity=0.1", "+model.target_sparsity=0.2"),
    ("+data.paths=a", "+data.paths=b"),
    ("+data.identity=a", "+data.identity=b"),
    (OWN_CALLBACK + ",schedule:a}", OWN_CALLBACK + ",schedule:b}"),
    (OWN_CALLBACK + ",config:1}", OWN_CALLBACK + ",config:2}"),
    ("+callbacks.mine.rate=${target_sparsity}", "+callbacks.mine.rate=0.5"),
]


GROUPS = ("data", "model", "optimizer", "logger", "pruning", "schedule")


@functools.cache
def composed(*options: str) -> DictConfig:
    """Compose the config with options of groups: what takes the time, done once for each."""
    register_nodes()
    # Theirs are the knobs of the options that are not there.
    kept = [item for item in QUICK if not ("model=resnet" in options and "model." in item)]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*kept, "begin_step=4", *options])


@pytest.fixture
def config_of(tmp_path: Path) -> Any:
    """Return a job's config, resolved, each in a directory of its own."""
    count = itertools.count()

    def make(*overrides: str) -> dict[str, Any]:
        options = [item for item in overrides if item.partition("=")[0] in GROUPS]
        cfg = composed(*options).copy()
        others = [item for item in overrides if item not in options]
        for one in OverridesParser.create().parse_overrides(others):
            OmegaConf.update(cfg, one.key_or_group, one.value(), merge=True, force_add=True)
        cfg.paths.run_dir = str(tmp_path / str(next(count)))
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        return dict(config)

    return make


def key_of(config: dict[str, Any]) -> str:
    key = warmup_key(config)
    assert key is not None
    return key


@pytest.mark.parametrize(("one", "other"), SHARING, ids=lambda value: " ".join(value) or "as is")
def test_jobs_that_differ_in_how_they_prune_share(
    config_of: Any, one: list[str], other: list[str]
) -> None:
    assert key_of(config_of(*one)) == key_of(config_of(*other))


@pytest.mark.parametrize("override", APART)
def test_jobs_that_differ_before_they_prune_do_not(config_of: Any, override: str) -> None:
    assert key_of(config_of()) != key_of(config_of(override))


@pytest.mark.parametrize(("one", "other"), NAMESAKES)
def test_a_name_alone_leaves_nothing_out(config_of: Any, one: str, other: str) -> None:
    assert key_of(config_of(one)) != key_of(config_of(other))


def test_what_the_callback_is_given_directly_counts_as_pruning_does(config_of: Any) -> None:
    def given(target: float, kind: str = "unstructured") -> str:
        weight = f"{{target_sparsity:{target},pruning_scheme:{{type:{kind}}}}}"
        spec = f"{{global_config:{{op_state_spec:{{weight:{weight}}}}}}}"
        return key_of(config_of(f"callbacks.scheduled_pruning.config={spec}"))

    assert given(0.5) == given(0.8)
    assert given(0.5) != given(0)
    assert given(0.5) != given(0.5, "channel_structured")

    def alone(target: float) -> str:
        own = f"+callbacks.scheduled_pruning.target_sparsity={target}"
        return key_of(config_of("callbacks.scheduled_pruning.config=null", own))

    assert alone(0.5) == alone(0.8) != alone(0)


def test_where_the_warm_up_ends_belongs_to_it(config_of: Any) -> None:
    assert warmup_end(config_of()) == 4
    assert key_of(config_of()) != key_of(config_of("begin_step=5"))


@pytest.mark.parametrize(
    "override",
    [
        "begin_step=0",
        "initial_sparsity=0.1",
        "warmup=off",
        "trunk=off",
        "trunk=false",  # off in YAML
        LAYER % 0.8 + SCHEDULE % 0,
        "callbacks.scheduled_pruning.masks_from=zeros",
    ],
)
def test_some_runs_have_no_warm_up_to_share(config_of: Any, override: str) -> None:
    assert warmup_key(config_of(override)) is None


OWN_SCHEDULES = """
class Late:
    def __init__(self, begin_step, power=1):
        self.begin_step, self.power = begin_step, power

    def compute_sparsity(self, step_count, target_sparsity):
        return target_sparsity if step_count >= self.begin_step else 0.0


class Wrong(Late):
    def compute_sparsity(self, step_count, target_sparsity):
        return 1 / 0
"""


def test_jobs_with_a_schedule_of_the_users_own_share(
    config_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_schedules.py").write_text(OWN_SCHEDULES)
    monkeypatch.syspath_prepend(str(tmp_path))

    def own(name: str, **fields: Any) -> dict[str, Any]:
        config: dict[str, Any] = config_of()
        config["schedule"] = {"_target_": f"late_schedules.{name}", **fields}
        config["callbacks"]["scheduled_pruning"]["schedule"] = config["schedule"]
        return config

    assert warmup_end(own("Late", begin_step=6)) == 5
    assert key_of(own("Late", begin_step=5)) == key_of(config_of())
    assert key_of(own("Late", begin_step=5)) == key_of(own("Late", begin_step=5, power=2))
    assert warmup_key(own("Late", begin_step=0)) is None
    # What is wrong with the others, their jobs say.
    wrong = [own("Late"), own("Late", begin_step=5, other=1), own("Wrong", begin_step=5)]
    assert [warmup_key(config) for config in [*wrong, own("Absent", begin_step=5)]] == [None] * 4


def test_the_former_name_of_the_knob_is_taken(config_of: Any) -> None:
    assert key_of(config_of("warmup=off", "trunk=auto")) == key_of(config_of())


def test_a_key_is_a_hash(config_of: Any) -> None:
    assert len(key_of(config_of())) == 16
    assert int(key_of(config_of()), 16) >= 0


def test_the_directory_of_a_run_is_its_own_wherever_it_is_named() -> None:
    def named(directory: str, *values: str) -> dict[str, Any]:
        nodes = {str(index): value for index, value in enumerate(values)}
        return warmup_config({"paths": {"run_dir": directory}, "logger": nodes})

    assert named("/a/1", "/a/1", "/a/1/x", "db:///a/1/y") == named(
        "/a/2", "/a/2", "/a/2/x", "db:///a/2/y"
    )
    assert named("/a/1", "/a/10") != named("/a/2", "/a/20")
    assert named("/a/1", "/b/1") == named("/a/2", "/b/1")
    assert named("/a.1", "/aX1") != named("/a.2", "/aX2")


def test_without_a_directory_nothing_is_replaced() -> None:
    assert warmup_config({"logger": {"name": "None", "version": ""}}) == {
        "logger.name": "None",
        "logger.version": "",
    }


VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab/.", max_size=4)
NAMES = st.sampled_from(["schedule", "paths", "target_sparsity", "lr", "config", "a.b"])
NODES = st.dictionaries(NAMES, VALUES, max_size=4)


@given(one=NODES, other=NODES)
def test_all_that_stands_in_a_model_counts(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = warmup_config({"model": one}) == warmup_config({"model": other})
    assert same == (flatten({"model": one}) == flatten({"model": other}))


@given(one=st.floats(0, 1), other=st.floats(0, 1))
def test_of_a_target_only_that_there_is_one(one: float, other: float) -> None:
    configs = [
        warmup_config({"pruning": {"weight": {"target_sparsity": target}}})
        for target in (one, other)
    ]
    assert (configs[0] == configs[1]) == ((one == 0) == (other == 0))
