"""Apps of somebody else's, in a folder of their own, and jobs of Hydra's in this process."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write

from tests.helpers.apps import stock_hydra

# Prints its config, and what has been imported by then.
SHOWS = """
import json
import sys

import hydra
from omegaconf import OmegaConf

{before}

@hydra.main(config_path={path}, config_name="config", version_base="1.3")
def main(cfg):
    print("CONFIG", json.dumps(OmegaConf.to_container(cfg, resolve=True)))
    print("MODULES", json.dumps(sorted(sys.modules)))


if __name__ == "__main__":
    main()
"""

# Trains a LightningModule of 128 and 64 weights for 8 steps an epoch, and prints its zeros.
TRAINS = """
import hydra
import torch
from omegaconf import OmegaConf

{before}

@hydra.main(config_path={path}, config_name="config", version_base="1.3")
def main(cfg):
    import pytorch_lightning as pl
    from tests.helpers.lightning import TinyModule, loader

    quiet = dict(accelerator="cpu", logger=False, enable_progress_bar=False,
                 enable_model_summary=False, enable_checkpointing=False)
    module = TinyModule()
    trainer = pl.Trainer(max_epochs=5, **quiet)
    trainer.fit(module, loader(8))
    zeros = [float((layer.weight == 0).float().mean()) for layer in (module.first, module.second)]
    print("ZEROS", zeros)


if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True)
class Said:
    """What a command of an app's has printed."""

    code: int
    out: str
    err: str

    def told(self, word: str) -> list[Any]:
        """Return what the app has printed behind a word of its own, once a job."""
        lines = [line.split(" ", 1) for line in self.out.splitlines()]
        return [json.loads(line[1]) for line in lines if line[0] == word]

    @property
    def config(self) -> dict[str, Any]:
        """The config of the only job."""
        assert self.code == 0, self.err
        (config,) = self.told("CONFIG")
        return dict(config)


Ask = Callable[..., Said]
MakeApp = Callable[..., Ask]


@pytest.fixture
def app(tmp_path: Path) -> MakeApp:
    """Write an app into a folder, and return what runs it from another one."""
    pytest.importorskip("hydra_plugins.hydra_coreai_opt", reason="the project is not installed")

    def make(
        program: str = SHOWS, *, before: str = "", has_files: bool = True, **files: str
    ) -> Ask:
        folder, elsewhere = tmp_path / "their app's", tmp_path / "elsewhere"
        folder.mkdir(exist_ok=True)
        elsewhere.mkdir(exist_ok=True)
        if has_files:
            files = {"config": "lr: 0.1\n", **files}
        for name, content in files.items():
            path = folder / "conf" / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        text = program.replace("{before}", before)
        text = text.replace("{path}", '"conf"' if has_files else "None")
        (folder / "train.py").write_text(text)

        def ask(*arguments: str, quiet: bool = True, module: bool = False) -> Said:
            # Hydra's parser wants all overrides in one piece.
            flags = [word for word in arguments if word.startswith("-")]
            typed = [word for word in arguments if word not in flags]
            where = ["hydra.run.dir=out", "hydra.sweep.dir=runs", "hydra.output_subdir=null"]
            if quiet:
                where += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
            started = ["-m", "train"] if module else [str(folder / "train.py")]
            done = subprocess.run(
                [sys.executable, *started, *flags, *where, *typed],
                cwd=folder if module else elsewhere,
                capture_output=True,
                text=True,
                timeout=180,
                env=environment(),
            )
            return Said(done.returncode, done.stdout, done.stderr)

        return ask

    return make


def environment() -> dict[str, str]:
    """Return the environment of an app: it finds the modules of these tests."""
    import os

    from tests.conftest import ROOT

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


Job = Callable[..., Any]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Begin a job of Hydra's in this process, for as long as a context lasts."""
    if find_spec("hydra_plugins") is None or find_spec("hydra_plugins.hydra_coreai_opt") is None:
        pytest.skip("the project is not installed")

    @contextmanager
    def begin(*overrides: str, config: str = "{}\n", name: str = "job") -> Iterator[DictConfig]:
        conf = tmp_path / f"conf of {name}"
        conf.mkdir(exist_ok=True)
        (conf / "config.yaml").write_text(config)
        with stock_hydra(), initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("config", list(overrides), return_hydra_config=True)
        with read_write(composed), open_dict(composed):
            composed.hydra.runtime.output_dir = str(tmp_path / name)
            composed.hydra.mode = "RUN"
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(composed)
        try:
            yield composed
        finally:
            HydraConfig.instance().cfg = before

    return begin
