"""The knobs of what is pruned: each reaches the weights, and a bad one is refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.identity import config_hash
from coreai_opt.config.validation import find_problems
from coreai_opt.pruning import PruningError
from coreai_opt.training.run import run
from tests.helpers.quick_runs import QUICK_FOR_THEIRS

pytestmark = pytest.mark.usefixtures("without_picture")

BAD = {
    "criterion=magnitud": "no criterion is called 'magnitud'; allowed: default, random, taylor",
    "allocation=erdos": "allocation=erdos: should be 'uniform', 'erdos_renyi' or 'global'",
    "allow_regrowth=maybe": "allow_regrowth=maybe: should be a valid boolean",
    "pruning=n_m n=5": "m=4: n is 5, more than m; allowed: n from 1 to m",
    "pruning=n_m m=0": "m=0: should be greater than or equal to 1; allowed: weights in a group",
    "pruning=n_m n=two": "n=two: should be a valid integer",
    "pruning=block block_shape=[0]": "(0,) has a 0; allowed: sizes >= 1, or -1",
    "pruning=block block_shape=3": "block_shape=3: should be a valid tuple; allowed: size of",
    "pruning=channel axis=x": "axis=x: should be a valid integer",
    "pruning=channel target_sparsity=2": "target_sparsity=2: should be less than or equal to 1",
    "pruning.global_config.module_state_spec={weight:null}": "not allowed in global_config",
    "pruning.global_config.op_type_config={linaer:null}": "did you mean 'linear'?",
    "pruning.module_type_configs={torch.nn.Linear:{op_input_spec:{x:1}}}": (
        "pruning does not support op_input_spec"
    ),
}


@pytest.mark.parametrize(("overrides", "sentence"), BAD.items(), ids=BAD.keys())
def test_a_bad_value_is_one_sentence(compose_config: Any, overrides: str, sentence: str) -> None:
    said = [problem.sentence for problem in find_problems(compose_config(*overrides.split(" ")))]
    assert len(said) == 1, said
    assert sentence in said[0]
    assert said[0].count("allowed: ") <= 1


def layers(record: dict[str, Any]) -> list[float]:
    """Return the share of zeros of each layer."""
    found = record["sparsity"]["layers"]
    return [1 - layer["nonzero"] / layer["elements"] for layer in found]


# The layers are 16 x 64 and 10 x 16.
SCHEMES = {
    "pruning=channel": [0.5, 0.5],
    "pruning=channel axis=0 target_sparsity=0.25": [0.25, 0.2],
    "pruning=n_m": [0.5, 0.5],
    "pruning=n_m n=1 m=8": [0.875, 0.875],
    "pruning=block target_sparsity=0.75": [0.75, 0.75],
    "pruning=block block_shape=[2,-1] target_sparsity=0.5": [0.5, 0.4],
    "criterion=random target_sparsity=0.75": [0.75, 0.75],
    "criterion=taylor target_sparsity=0.75": [0.75, 0.75],
    "allow_regrowth=false target_sparsity=0.75": [0.75, 0.75],
}
UNREACHABLE = "ignore::coreai_opt.pruning.errors.UnreachableSparsityWarning"


@pytest.mark.filterwarnings(UNREACHABLE)
@pytest.mark.parametrize(("overrides", "sparsity"), SCHEMES.items(), ids=SCHEMES.keys())
def test_a_run_prunes_in_the_pattern_that_is_asked_for(
    quick_run: Any, overrides: str, sparsity: list[float]
) -> None:
    record = quick_run(*overrides.split(" "))
    assert record["status"] == "completed"
    assert layers(record) == pytest.approx(sparsity, abs=1e-12)


def test_allocations_prune_as_much_in_other_places(quick_run: Any) -> None:
    found = {
        name: quick_run(f"allocation={name}", "target_sparsity=0.75", name=name)
        for name in ("uniform", "erdos_renyi", "global")
    }
    assert layers(found["uniform"]) == [0.75, 0.75]
    first, last = layers(found["erdos_renyi"])
    assert first > 0.75 > last
    pruned = {name: record["parameters"]["nonzero"] for name, record in found.items()}
    assert abs(pruned["erdos_renyi"] - pruned["uniform"]) <= 2
    assert pruned["global"] == pruned["uniform"]
    assert [layer["target"] for layer in found["global"]["sparsity"]["layers"]] == [0.75, 0.75]
    assert len({record["config_hash"] for record in found.values()}) == 3


def test_a_criterion_is_part_of_the_identity_and_regrowth_too(compose_config: Any) -> None:
    knobs = ["criterion=default", "criterion=random", "allow_regrowth=false", "allocation=global"]
    assert len({config_hash(compose_config(knob)) for knob in knobs}) == 4
    assert config_hash(compose_config(knobs[0])) == config_hash(compose_config())


def test_a_criterion_of_ones_own_goes_by_its_dotted_path(
    quick_run: Any, user_module: str, tmp_path: Any
) -> None:
    (tmp_path / "their_criterion.py").write_text(
        "from coreai_opt.pruning.spec import PruneImplBase\n"
        "class Largest(PruneImplBase):\n"
        "    def score(self, weight):\n"
        "        return -weight.abs()\n"
    )
    record = quick_run("criterion=their_criterion.Largest", "target_sparsity=0.75")
    assert layers(record) == [0.75, 0.75]
    config = record["config"]["pruning"]["global_config"]["op_state_spec"]["weight"]
    assert config["pruning_algo"] == "their_criterion.Largest"


def test_a_criterion_that_cannot_be_imported_is_a_short_sentence(quick_run: Any) -> None:
    with pytest.raises(ConfigError, match=r"cannot be made: 'no\.such\.Thing' cannot be imported"):
        quick_run("criterion=no.such.Thing")


def test_a_pattern_that_does_not_fit_names_layer_and_shape(quick_run: Any) -> None:
    said = r"'network\.layers\.1\.weight' of shape \[16, 64\].* multiple of 7"
    with pytest.raises((ConfigError, PruningError), match=said):
        quick_run("pruning=n_m", "m=7")


@pytest.mark.filterwarnings("ignore::coreai_opt.pruning.errors.LeftDenseWarning")
def test_a_network_of_functional_calls_is_followed(
    compose_config: Any, user_module: str, tmp_path: Path
) -> None:
    follows = "callbacks.scheduled_pruning.follow_calls=true"
    knobs = [f"model._target_={user_module}.Functional", "target_sparsity=0.75", follows]
    run(compose_config(*QUICK_FOR_THEIRS, *knobs, run_dir=tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    named = {layer["name"]: layer["target"] for layer in record["sparsity"]["layers"]}
    assert named == {"network.kernel": 0.75, "network.unused.weight": None}
    assert record["sparsity"]["achieved"] == 0.75
    (left,) = record["sparsity"]["left_dense"]
    assert (left["type"], left["weights"]) == ("Linear", 1)
    whole = record["sparsity"]["all_weights"]
    assert whole["elements"] - whole["nonzero"] == 0.75 * (whole["elements"] - left["elements"])
    assert record["sparsity"]["of_all_weights"] == 1 - whole["nonzero"] / whole["elements"]


def test_types_of_modules_are_known_by_their_paths(quick_run: Any) -> None:
    record = quick_run("pruning.module_name_configs={network.layers.3:null}")
    assert [layer["target"] for layer in record["sparsity"]["layers"]] == [0.9, None]
    with pytest.raises((ConfigError, PruningError), match=r"'torch\.nn\.Conv2d' is the type of no"):
        quick_run("pruning.module_type_configs={torch.nn.Conv2d:null}", name="other")
