"""Weights in a file: what is read into a network, and what is refused."""

import argparse
import functools
import importlib
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.serialization import get_safe_globals

from coreai_opt.models import Classifier
from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.training.initial_weights import load_initial_weights
from tests.conftest import ROOT
from tests.helpers.weight_files import Content, refused, same, saved, under

NAMES = [
    "w.pt",
    "epoch=9-step=5.ckpt",
    'it\'s a "name".pt',
    "a  b\t[1]{2}%3$.pt",
    "größe, 重み.pth",
]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))


CONTENTS: dict[str, Content] = {
    "alone": lambda state: state,
    "lightning": lambda state: {
        "epoch": 3,
        "state_dict": under("network.")(state),
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}}],
    },
    "as it is": lambda state: {"state_dict": state, "epoch": 3},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": torch.tensor(0.5)},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
    "ddp": under("module."),
    "compiled ddp": under("module._orig_mod."),
    "lightning's prefix twice": lambda state: {"state_dict": under("a.b.network.")(state)},
    "another order": lambda state: dict(reversed(state.items())),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_what_people_save_is_loaded(tmp_path: Path, content: Content) -> None:
    given, model = network(), network()
    load_initial_weights(model, saved(content(given.state_dict()), tmp_path / "w.pt"))
    assert same(model, given)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    given, model = network(), network()
    load_initial_weights(model, saved(given.state_dict(), tmp_path / name))
    assert same(model, given)


def test_the_format_of_before_zip_is_loaded(tmp_path: Path) -> None:
    given, model = network(), network()
    old = tmp_path / "w.tar"
    torch.save(given.state_dict(), old, _use_new_zipfile_serialization=False)
    load_initial_weights(model, old)
    assert same(model, given)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_are_loaded(tmp_path: Path, prefix: str) -> None:
    given, model = network(), network()
    save_file(under(prefix)(given.state_dict()), tmp_path / "w.safetensors")
    load_initial_weights(model, tmp_path / "w.safetensors")
    assert same(model, given)


def test_a_prefix_of_the_networks_own_stays(tmp_path: Path) -> None:
    given, model = nn.ModuleDict({"a": network()}), nn.ModuleDict({"a": network()})
    load_initial_weights(model, saved(given.state_dict(), tmp_path / "w.pt"))
    assert same(model, given)
    load_initial_weights(model, saved(under("a.")(given.state_dict()), tmp_path / "w.pt"))
    assert same(model, given)


def test_a_parameter_may_be_called_as_a_container(tmp_path: Path) -> None:
    given, model = nn.ParameterDict({"model": torch.ones(2)}), nn.ParameterDict()
    model["model"] = torch.zeros(2)
    load_initial_weights(model, saved(given.state_dict(), tmp_path / "w.pt"))
    assert same(model, given)


def test_other_types_of_numbers_are_converted(tmp_path: Path) -> None:
    given, model = network(), network()
    doubles = {key: value.double() for key, value in given.state_dict().items()}
    load_initial_weights(model, saved(doubles, tmp_path / "w.pt"))
    assert same(model, given)
    assert model[0].weight.dtype == torch.float32


def test_the_version_that_a_prefixed_file_says_counts(tmp_path: Path) -> None:
    """BatchNorm counted no batches once: only a file of that time may lack the count."""
    state = Classifier(network()).state_dict()
    del state["network.1.num_batches_tracked"]
    path = saved(state, tmp_path / "w.pt")
    assert refused(network(), path).startswith(
        "does not fit the model; missing keys: 1 (1.num_batches_tracked); allowed: weights of"
    )
    load_initial_weights(network(), saved(dict(state), path))


def test_a_lazy_layer_takes_the_shape_of_the_file(tmp_path: Path) -> None:
    path = saved(nn.Sequential(nn.Linear(5, 4)).state_dict(), tmp_path / "w.pt")
    model = nn.Sequential(nn.LazyLinear(4))
    load_initial_weights(model, path)
    assert model[0].weight.shape == (4, 5)
    assert torch.equal(model[0].weight, torch.load(path)["0.weight"])
    said = refused(nn.Sequential(nn.LazyLinear(4), nn.Linear(2, 2)), path)
    assert said.startswith("does not fit the model; missing keys: 2 (1.weight, 1.bias); allowed")


def test_a_parametrization_of_the_users_own_is_loaded(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))

    given, model = make(), make()
    load_initial_weights(model, saved(given.state_dict(), tmp_path / "w.pt"))
    assert same(model, given)


class Masked(nn.Module):
    """A user's own, whose buffer has the name of our masks."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(3, 3))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def test_masks_of_the_models_own_are_loaded(tmp_path: Path) -> None:
    def make() -> nn.Module:
        layer = nn.Linear(3, 3)
        nn.utils.parametrize.register_parametrization(layer, "weight", Masked())
        return nn.Sequential(layer)

    given, model = make(), make()
    load_initial_weights(model, saved(given.state_dict(), tmp_path / "w.pt"))
    assert same(model, given)


@pytest.mark.parametrize("prefix", ["", "network."])
def test_a_checkpoint_with_masks_on_the_model_is_that_of_the_plain_one(
    tmp_path: Path, prefix: str
) -> None:
    given, model = network(), network()
    pruner = MagnitudePruner(given, MagnitudePrunerConfig())
    path = saved(under(prefix)(pruner.prepare().state_dict()), tmp_path / "w.pt")
    load_initial_weights(model, path)
    assert same(model, pruner.finalize())
    assert int((model[0].weight == 0).sum()) == model[0].weight.numel() // 2


def test_a_mask_without_its_weight_is_refused(tmp_path: Path) -> None:
    given = network()
    state = MagnitudePruner(given, MagnitudePrunerConfig()).prepare().state_dict()
    del state["0.parametrizations.weight.original"]
    said = refused(network(), saved(state, tmp_path / "w.pt"))
    assert "holds masks that cannot be read" in said
    assert "0.parametrizations.weight.0.mask" in said


def changed(**values: Any) -> dict[str, Any]:
    """Return the state dict with other values; None = the key is left out."""
    state = {**network().state_dict(), **{key.replace("_", "."): values[key] for key in values}}
    return {key: value for key, value in state.items() if value is not None}


MISFITS = {
    "missing keys: 2 (0.weight, 3.bias)": {"0_weight": None, "3_bias": None},
    "unexpected keys: 1 (epoch)": {"epoch": 3},
    "unexpected keys: 5 (x.1, x.2, x.3 and 2 more)": {f"x_{n}": torch.ones(1) for n in range(1, 6)},
    "other shapes: 1 (0.weight [4, 6] in the file, [4, 5] in the model)": {
        "0_weight": torch.ones(4, 6)
    },
    "other shapes: 1 (0.weight float in the file, [4, 5] in the model)": {"0_weight": 0.5},
    "missing keys: 1 (3.bias); unexpected keys: 1 (3.offset); other shapes: 1 (3.weight [3] "
    "in the file, [3, 4] in the model)": {
        "3_bias": None,
        "3_offset": torch.ones(3),
        "3_weight": torch.ones(3),
    },
}


@pytest.mark.parametrize(("sentence", "values"), MISFITS.items(), ids=MISFITS.keys())
def test_weights_of_another_model_are_one_sentence(
    tmp_path: Path, sentence: str, values: dict[str, Any]
) -> None:
    said = refused(network(), saved(changed(**values), tmp_path / "w.pt"))
    assert said == f"does not fit the model; {sentence}; allowed: weights of this very model"
    prefixed = saved(under("module.")(changed(**values)), tmp_path / "w.pt")
    assert refused(network(), prefixed) == said


def test_a_prefix_that_helps_nothing_or_is_not_on_all_keys_stays(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    saved({"x.y.weight": torch.ones(2)}, path)
    assert "unexpected keys: 1 (x.y.weight);" in refused(network(), path)
    state = network().state_dict()
    mixed = {f"module.{key}" if key < "3" else key: value for key, value in state.items()}
    assert "unexpected keys: 7 (module.0.weight, " in refused(network(), saved(mixed, path))


def test_what_only_the_model_knows_is_said_in_its_words(tmp_path: Path) -> None:
    class Choosy(nn.Linear):
        def _load_from_state_dict(self, *args: Any) -> None:
            args[-1].append("weights of\nanother time")

    path = saved(Choosy(2, 2).state_dict(), tmp_path / "w.pt")
    assert "another time; allowed: weights of this" in refused(Choosy(2, 2), path)


class Evil:
    def __init__(self, made: Path) -> None:
        self._made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._made),)


class Filled(dict[str, Any]):
    """A dict of somebody's own, which torch does not fill."""


def cut_off(path: Path) -> None:
    path.write_bytes(saved(network().state_dict(), path).read_bytes()[:900])


def cut_off_old(path: Path) -> None:
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-50])


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", "hello")


CUT = "is no checkpoint, or is cut off; allowed: what torch.save(model.state_dict(), PATH) writes, "
UNPICKLED = "and that is not unpickled; allowed: what torch.save(model.state_dict(), PATH) writes"
STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("hello world\n" * 9), CUT),
    "empty": (lambda path: path.touch(), CUT),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), CUT),
    "picture": (lambda path: path.write_bytes(b"\x89PNG\r\n" + bytes(range(256))), CUT),
    "cut off": (cut_off, CUT),
    "old and cut off": (cut_off_old, CUT),
    "zip": (zipped, CUT),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1, 2])), CUT),
    "list": (lambda path: saved([1, 2], path), "holds no state dict, but a list; allowed: what "),
    "tensor": (lambda path: saved(torch.ones(2), path), "holds no state dict, but a Tensor"),
    "dict": (lambda path: saved({"net": {}, "b": 1}, path), "its keys are: net, b; allowed: "),
    "nothing": (lambda path: saved({}, path), "its keys are: none; allowed: "),
    "container": (lambda path: saved({"model": {"a": 1}}, path), "its keys are: a; allowed: "),
    "numbers": (lambda path: saved({0: torch.ones(2)}, path), "its keys are: 0; allowed: "),
    "model": (lambda path: saved(network(), path), f"container.Sequential), {UNPICKLED}"),
    "state of a class": (
        lambda path: saved(changed(_extra={"a": [argparse.Namespace(lr=0.1)]}), path),
        f"holds more than weights (argparse.Namespace), {UNPICKLED}",
    ),
    "filled": (
        lambda path: saved(network().state_dict() | {"args": Filled(lr=0.1)}, path),
        f"holds more than weights (tests.training.test_initial_weights.Filled), {UNPICKLED}",
    ),
    "beside": (
        lambda path: saved({"state_dict": {}, "args": argparse.Namespace(lr=0.1)}, path),
        "its keys are: none; allowed: ",
    ),
    "evil": (lambda path: saved({"a": Evil(path.with_name("made"))}, path), "mkdir), and that"),
    "folder": (lambda path: path.mkdir(), "cannot be read: Is a directory; allowed: what "),
}


@pytest.mark.parametrize(("write", "sentence"), STRANGE.values(), ids=STRANGE.keys())
def test_what_is_no_checkpoint_is_one_sentence(
    tmp_path: Path, write: Callable[[Path], object], sentence: str
) -> None:
    path = tmp_path / "it's a=b, ü.pt"
    write(path)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert sentence in refused(network(), path)
    assert heard == []
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"hello world", bytes(99), b"PK\x03\x04"])
def test_what_is_no_safetensors_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert refused(network(), path).startswith(CUT)
    path.unlink()
    assert "cannot be read: No such file" in refused(network(), path)


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def template_checkpoint(path: Path, **more: Any) -> nn.Module:
    """Write what the most used template does: hyperparameters with the network and partials."""
    net = network()
    hyper_parameters = {
        "net": net,
        "optimizer": functools.partial(torch.optim.Adam, lr=0.001, betas=(0.9, 0.999)),
        "scheduler": functools.partial(torch.optim.lr_scheduler.StepLR, step_size=5),
        "model_class": Masked,
        "config": OmegaConf.create({"a": {"b": [1, "${a.c}"], "c": 2.5}, "d": None}),
        "folder": path.parent,
        "device": torch.device("cpu"),
        "compile": False,
        **more,
    }
    state = under("net.")(net.state_dict())
    saved({"state_dict": state, "hyper_parameters": hyper_parameters, "epoch": 3}, path)
    return net


def test_a_checkpoint_whose_hyperparameters_hold_classes_is_read(tmp_path: Path) -> None:
    path, model = tmp_path / "epoch_003.ckpt", network()
    given, before = template_checkpoint(path), set(get_safe_globals())
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    load_initial_weights(model, path)
    assert same(model, given)
    assert set(get_safe_globals()) == before


def test_nothing_foreign_is_called_or_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module of a class may not be there, or do something when it is imported."""
    path, model = tmp_path / "w.ckpt", network()
    module = ModuleType("absent_app")
    source = "class Net: pass"
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "absent_app", module)
    made = tmp_path / "made"
    more = {
        "net": module.Net(),
        "eval": Calls(eval, f"__import__('pathlib').Path({str(made)!r}).touch()"),
        "import": Calls(importlib.import_module, "antigravity"),
        "open": Calls(open, str(made), "w"),
        "run": Calls(subprocess.run, ["touch", str(made)]),
        "getattr": Calls(getattr, made, "touch"),
    }
    given = template_checkpoint(path, **more)
    monkeypatch.delitem(sys.modules, "absent_app")
    load_initial_weights(model, path)
    assert same(model, given)
    assert not made.exists()
    assert {"absent_app", "antigravity"}.isdisjoint(sys.modules)


def test_calls_that_torch_blocks_altogether_are_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    template_checkpoint(tmp_path / "w.ckpt", evil=Calls(os.system, f"touch '{made}'"))
    said = refused(network(), tmp_path / "w.ckpt")
    assert said.startswith(f"holds more than weights (posix.system), {UNPICKLED}")
    assert not made.exists()


def test_it_needs_no_lightning() -> None:
    lines = (
        "import sys",
        "sys.modules['pytorch_lightning'] = sys.modules['lightning'] = None",
        "from coreai_opt.training.initial_weights import load_initial_weights",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True)
