"""Composed configs are pickled like any other: our schemas are in no module that a reader knows."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import pytest
import torch
from omegaconf import DictConfig, OmegaConf, ValidationError

from coreai_opt.config.schemas.nodes import schema_of
from coreai_opt.pruning.config.schedules import SparsityScheduleBase

CHOSEN = ["schedule=poly", "pruning=n_m", "optimizer=adamw", "callbacks=[default,early_stopping]"]

READ = """
import pickle, sys

assert not any(name.startswith("coreai_opt") for name in sys.modules)
cfg = pickle.load(open(sys.argv[1], "rb"))
assert "torch" not in sys.modules
print(cfg.schedule._target_, cfg.paths.output_root)
"""


def through_torch(cfg: DictConfig) -> Any:
    file = io.BytesIO()
    torch.save({"hyper_parameters": cfg}, file)
    file.seek(0)
    return torch.load(file, weights_only=False)["hyper_parameters"]


@pytest.mark.parametrize(
    "through",
    [
        *(lambda cfg, p=p: pickle.loads(pickle.dumps(cfg, p)) for p in (2, 5)),
        lambda cfg: pickle.loads(cloudpickle.dumps(cfg)),
        lambda cfg: pickle.loads(pickle.dumps(pickle.loads(cloudpickle.dumps(cfg)))),
        copy.copy,
        copy.deepcopy,
        through_torch,
    ],
    ids=["pickle 2", "pickle 5", "cloudpickle", "both", "copy", "deepcopy", "torch"],
)
def test_a_composed_config_comes_back_with_its_types(
    compose_config: Any, through: Callable[[DictConfig], Any]
) -> None:
    cfg = compose_config(*CHOSEN)
    back = through(cfg)
    assert back == cfg
    assert OmegaConf.get_type(back.schedule).__name__ == OmegaConf.get_type(cfg.schedule).__name__
    with pytest.raises(ValidationError):
        back.schedule.total_iters = "many"


def test_pickle_gives_the_very_class(compose_config: Any) -> None:
    cfg = compose_config(*CHOSEN)
    back = pickle.loads(pickle.dumps(cfg))
    assert OmegaConf.get_type(back.schedule) is OmegaConf.get_type(cfg.schedule)


def test_weights_only_refuses_it_as_any_config(compose_config: Any) -> None:
    file = io.BytesIO()
    torch.save(compose_config(*CHOSEN), file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match=r"GLOBAL omegaconf\.dictconfig\.DictConfig"):
        torch.load(file, weights_only=True)


class Own(SparsityScheduleBase):
    """A schedule of a user's own, which is registered in no other process."""

    _abstract: ClassVar[bool] = True
    height: float = 0.5


def test_the_schema_of_a_users_own_class_is_pickled_by_that_class() -> None:
    cfg = OmegaConf.structured(schema_of(Own, f"{__name__}.Own"))
    back = pickle.loads(pickle.dumps(cfg))
    assert back == cfg
    assert back.height == 0.5


def test_a_process_that_knows_nothing_of_us_reads_it(compose_config: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.pickle"
    path.write_bytes(pickle.dumps(compose_config(*CHOSEN)))
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("coreai_opt.pruning.config.PolynomialDecaySchedule")


APP = """
import multiprocessing

import hydra
from omegaconf import OmegaConf


def show(cfg):
    print("child", cfg.prune.schedule)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    print("parent", OmegaConf.to_container(cfg, resolve=True)["prune"])
    child = multiprocessing.get_context("spawn").Process(target=show, args=(cfg,))
    child.start()
    child.join()


if __name__ == "__main__":
    main()
"""

KEEP = "+hydra.callbacks.keep._target_=hydra.experimental.callbacks.PickleJobInfoCallback"


@pytest.mark.slow
def test_an_app_spawns_processes_with_it_and_hydra_runs_it_again(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("lr: 0.1\n")
    (tmp_path / "app.py").write_text(APP)
    chosen = ["+prune=poly", "prune.power=2"]

    def ask(*arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "app.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if not line.startswith("[")]

    first = ask(*chosen, "hydra.run.dir=out", KEEP)
    assert first[-1] == "child poly"
    assert "'power': 2" in first[0]
    assert ask("--experimental-rerun", "out/.hydra/config.pickle") == first


def test_other_classes_of_the_process_are_pickled_as_before() -> None:
    program = "import copyreg, re; before = set(copyreg.dispatch_table)\n"
    program += "import coreai_opt.config.schemas.nodes as ours\n"
    program += "assert set(copyreg.dispatch_table) - before == {ours.SchemaType}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=180)
