"""Every option of every group composes, is valid, and builds the objects it names."""

import importlib.util
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer

from coreai_opt.config.groups import config_groups
from coreai_opt.config.validation import find_problems
from coreai_opt.experiment import allowed_targets
from tests.helpers.building import build

OPTIONS = [(group.name, option.name) for group in config_groups() for option in group.options]
PARTS_OF_OTHERS = {("callbacks", name) for name in (
    "best_checkpoint", "early_stopping", "last_checkpoint", "progress_bar", "scheduled_pruning",
    "sparsity_monitor",
)}  # fmt: skip
PACKAGES = {
    ("data", "mnist"): "torchvision",
    ("data", "cifar10"): "torchvision",
    ("logger", "wandb"): "wandb",
    ("logger", "mlflow"): "mlflow",
}

FAKE_DATASETS = """
import numpy as np


class _Data:
    shape, classes = (28, 28), 10

    def __init__(self, root, train, download):
        assert isinstance(root, str)
        count = 60 if train else 20
        generator = np.random.default_rng(count)
        self.data = generator.integers(0, 256, (count, *self.shape)).astype("uint8")
        self.targets = [index % 10 for index in range(count)]


class MNIST(_Data):
    pass


class CIFAR10(_Data):
    shape = (32, 32, 3)
"""


def overrides_for(group: str, option: str) -> list[str]:
    both = (group, option) in PARTS_OF_OTHERS or (group, option) == ("callbacks", "default")
    chosen = f"[default,{option}]" if both and option != "default" else option
    extra = ["logger.wandb.offline=true"] if option == "wandb" else []
    return [f"{group}={chosen}", *extra]


@pytest.fixture
def restricted() -> Iterator[None]:
    """Allow what the options name, and nothing else."""
    allowed_targets([])
    yield
    allowed_targets(None)


@pytest.mark.usefixtures("restricted")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_is_valid_and_builds(
    compose_config: Any, group: str, option: str
) -> None:
    package = PACKAGES.get((group, option))
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    cfg = compose_config(*overrides_for(group, option))
    assert find_problems(cfg) == []
    assert pickle.loads(pickle.dumps(cfg)) == cfg
    if (group, option) == ("trainer", "gpu"):
        pytest.skip("needs a GPU")
    cfg.trainer.accelerator = "cpu"
    objects = build(cfg, [], True)
    assert isinstance(objects.trainer, Trainer)
    assert objects.network is not None


def test_none_of_the_groups_is_without_options() -> None:
    names = [group.name for group in config_groups()]
    assert " ".join(names) == (
        "callbacks data experiment logger model optimizer paths pruning schedule trainer"
    )
    assert all(group.options for group in config_groups())
    assert all(option.summary for group in config_groups() for option in group.options)


# The positions of the transformer are added, and no op multiplies with them.
@pytest.mark.filterwarnings("ignore:left dense. 1 weight of TransformerClassifier")
@pytest.mark.parametrize("model", ["mlp", "convnet", "resnet", "transformer"])
def test_every_model_trains_and_reaches_its_sparsity(compose_config: Any, model: str) -> None:
    from coreai_opt.training.run import run

    cfg = compose_config(
        "data=digits", "data.num_train=64", "data.num_val=32", "data.batch_size=16",
        f"model={model}", "trainer.max_epochs=2", "trainer.log_every_n_steps=2", "total_iters=4",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    run(cfg)
    text = (Path(cfg.paths.run_dir) / "sparsity.csv").read_text().splitlines()
    last = next(row for row in reversed(text) if ",total," in row).split(",")
    assert abs(float(last[5]) - 0.9) < 0.01


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_torchvision_data_trains_through_a_stand_in(quick_data_run: Any, name: str) -> None:
    record = quick_data_run(name)
    assert record["status"] == "completed"
    assert record["training"]["steps"] == 8


@pytest.fixture
def quick_data_run(compose_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run on a torchvision of the test's own: the real one has no build for this torch."""
    import json

    from coreai_opt.training.run import run

    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "datasets.py").write_text(FAKE_DATASETS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def make(name: str) -> Any:
        run(compose_config(
            f"data={name}", "data.num_train=40", "data.num_val=20", "data.batch_size=10",
            "model=convnet", "trainer.max_epochs=2", "trainer.log_every_n_steps=2",
            "total_iters=4", "trainer.accelerator=cpu",
        ))  # fmt: skip
        for loaded in ("torchvision", "torchvision.datasets"):
            sys.modules.pop(loaded, None)
        return json.loads((tmp_path / "run" / "result.json").read_text())

    return make
