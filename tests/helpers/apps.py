"""The apps of tests/apps, copied and run as their users do, by any Python that has this package."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from torch import Tensor

from tests.conftest import ROOT

Completed = subprocess.CompletedProcess[str]

TARGET = 0.9
# The Pythons to run the apps with, PYTHON or PYTHON@ROOT, separated as in PATH; without it the one
# of the tests.
PYTHONS = "COREAI_APP_PYTHONS"


@dataclass(frozen=True)
class App:
    """What a test must know of an app.

    Attributes:
        name: its folder.
        pruned: the names of the weights that are to be pruned, of all others none.
        best: the checkpoints it chose as best, and what else it left, below the run's directory.
        last: the checkpoints of its last state.
        folds: how many Trainers it has.
        resume: the key of the checkpoint to go on from.
        is_typed: its root takes no new key.
        has_classes: its checkpoints hold more than tensors and plain values.
    """

    name: str
    pruned: tuple[str, ...]
    best: str
    last: str = "**/last.ckpt"
    folds: int = 1
    resume: str = "ckpt_path"
    is_typed: bool = False
    has_classes: bool = False

    @property
    def line(self) -> list[str]:
        """The one line, in words."""
        return self.words("poly", power=2, target_sparsity=TARGET)

    def words(self, schedule: str, **knobs: object) -> list[str]:
        """Return what is typed to prune by a schedule with these knobs."""
        group, node = (
            ("prune_typed", "hydra.callbacks.prune") if self.is_typed else ("prune", "prune")
        )
        return [f"+{group}={schedule}", *(f"{node}.{knob}={knobs[knob]}" for knob in knobs)]


DICT_GROUP = App(
    "dict_group",
    ("net.model.0.weight", "net.model.3.weight", "net.model.6.weight"),
    "checkpoints/epoch_*.ckpt",
    has_classes=True,
)
REGISTRY = App(
    "registry", ("net.0.weight", "net.2.weight"), "**/epoch=*.ckpt", resume="resume_from"
)
LIST_ROOT = App("list_root", ("features.0.weight", "features.3.weight", "head.weight"), "best.ckpt")
ENCODER = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight")
ZEN = App(
    "zen",
    (
        "embed.weight",
        *(f"encoder.{name}" for name in (*ENCODER, "linear2.weight")),
        "head.weight",
    ),
    "**/best.ckpt",
    is_typed=True,
)
HARD_CODED = App("hard_coded", ("layers.0.weight", "layers.2.weight"), "fold_*/best.ckpt", folds=2)
BLOCK = ("c_attn", "c_proj", "mlp.0", "mlp.2")
OWN_EMA = App(
    "own_ema",
    (*(f"gpt.h.0.{name}.weight" for name in BLOCK), "gpt.lm_head.weight"),
    "epoch=3.ckpt",
    resume="train.resume",
)
EVAL_SCRIPT = App("eval_script", ("hidden.weight", "out.weight"), "best.ckpt", resume="checkpoint")

APPS = (DICT_GROUP, REGISTRY, LIST_ROOT, ZEN, HARD_CODED, OWN_EMA, EVAL_SCRIPT)


@dataclass(frozen=True)
class Home:
    """An installation that apps run in.

    Attributes:
        python: its Python.
        root: the import root of Lightning that the apps use.
    """

    python: str
    root: str

    def __str__(self) -> str:
        return f"{Path(self.python).parent.parent.name}-{self.root}"

    def has(self, module: str) -> bool:
        find = f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({module!r}))"
        return subprocess.run([self.python, "-c", find]).returncode == 0

    def copy(self, app: App, folder: Path) -> Path:
        """Copy an app into a folder with a space in its name, and return where it is."""
        where = folder / "an app" / app.name
        shutil.copytree(
            ROOT / "tests" / "apps" / app.name,
            where,
            ignore=shutil.ignore_patterns("__pycache__", "outputs", "multirun"),
        )
        for file in [*where.rglob("*.py"), *where.rglob("*.yaml")]:
            file.write_text(file.read_text().replace("pytorch_lightning", self.root))
        if app.is_typed and not self.has("hydra_zen"):
            (where / "typed.py").replace(where / "train.py")
        return where

    def run(
        self, where: Path, *words: str, program: str = "train.py", **variables: str
    ) -> Completed:
        """Run ``python PROGRAM WORDS`` where an app is."""
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [self.python, program, *words],
            cwd=where,
            env={**clean, "OMP_NUM_THREADS": "1", **variables},
            capture_output=True,
            text=True,
            timeout=180,
        )


def homes() -> list[Home]:
    """Return every installation to test, and every import root of Lightning in it."""
    given = os.environ.get(PYTHONS)
    if not given:
        return [Home(sys.executable, "pytorch_lightning")]
    found = []
    for entry in given.split(os.pathsep):
        python, _, root = entry.partition("@")
        roots = [root] if root else ["pytorch_lightning", "lightning.pytorch"]
        here = [Home(python, root) for root in roots]
        found += [home for home in here if home.has(home.root.partition(".")[0])]
    assert found, f"no Lightning in {given}"
    return found


def tensors(home: Home, app: App, file: Path) -> Mapping[str, Tensor]:
    """Return the weights in a file, read by torch alone.

    Where the app stores plain values, ``weights_only=True`` must read the file. Where it stores
    objects of classes, it is read as the app does it: by its Python, beside its modules.
    """
    if app.has_classes and file.suffix == ".ckpt":
        file = _as_the_app_reads(home, app, file)
    state = torch.load(file, map_location="cpu", weights_only=True)
    weights: Mapping[str, Tensor] = state.get("state_dict", state)
    return weights


def _as_the_app_reads(home: Home, app: App, file: Path) -> Path:
    """Have all checkpoints of an app read at once, and return the weights of one as a file."""
    plain = file.with_suffix(".plain")
    if not plain.exists():
        read = (
            "import sys, torch\n"
            "for file in sys.argv[1:]:\n"
            "    weights = torch.load(file, weights_only=False)['state_dict']\n"
            "    torch.save(weights, file.removesuffix('.ckpt') + '.plain')\n"
            "ours = [name for name in sys.modules if name.startswith('coreai')]\n"
            "assert not ours, ours\n"
        )
        where = next(folder for folder in file.parents if folder.name == app.name)
        done = home.run(where, read, *map(str, where.rglob("*.ckpt")), program="-c")
        assert done.returncode == 0, done.stderr
    return plain


def zeros(weights: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: int((weight == 0).sum()) for name, weight in weights.items()}


def assert_at_target(home: Home, app: App, file: Path, target: float = TARGET) -> None:
    """Every weight that is to be pruned has its zeros, and no other matrix has any."""
    weights = tensors(home, app, file)
    assert set(app.pruned) <= weights.keys(), sorted(weights)
    counted = zeros(weights)
    short = {
        name: (counted[name], weights[name].numel())
        for name in app.pruned
        if abs(counted[name] - target * weights[name].numel()) >= 1
    }
    assert not short, f"{file}: not at {target}: {short}"
    matrices = {name for name, weight in weights.items() if weight.dim() > 1}
    assert not [name for name in matrices - set(app.pruned) if counted[name]]


def run_files(app: App, run: Path) -> list[Path]:
    """Return the files of weights that a pruned run leaves, all of which are at target."""
    names = [f"weights{'' if fold == 0 else f'-{fold + 1}'}.pt" for fold in range(app.folds)]
    best, last = sorted(run.glob(app.best)), sorted(run.glob(app.last))
    assert len(best) >= app.folds, sorted(run.rglob("*.ckpt"))
    assert len(last) == app.folds, sorted(run.rglob("*.ckpt"))
    return [*best, *last, *(run / name for name in names)]


def below(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def ours(imported: Iterable[str]) -> set[str]:
    """Return the modules of this package among names."""
    roots = ("coreai_opt", "lightning_callbacks", "hydra_plugins.hydra_coreai_opt")
    return {name for name in imported if name.startswith(roots)}


@contextmanager
def stock_hydra() -> Iterator[None]:
    """Hydra as an app begins with it: our own commands limit which plugins are found."""
    plugins = Singleton._instances.pop(Plugins, None)
    stored = ConfigStore.instance().repo
    ConfigStore.instance().repo = {"hydra": stored.get("hydra", {})}
    try:
        yield
    finally:
        ConfigStore.instance().repo = stored
        Singleton._instances.pop(Plugins, None)
        if plugins is not None:
            Singleton._instances[Plugins] = plugins
