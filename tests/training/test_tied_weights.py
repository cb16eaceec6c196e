"""Files of weights for a model that has one tensor under several names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from coreai_opt.training.initial_weights import load_initial_weights
from tests.helpers.weight_files import refused, same, saved, under


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    for path in (tmp_path / "w.pt", tmp_path / "w.safetensors"):
        given, model = Tied(), Tied()
        if path.suffix == ".pt":
            torch.save(given.state_dict(), path)
        else:
            save_model(given, str(path))  # which leaves one of the names out
        load_initial_weights(model, path)
        assert same(model, given)
        assert model.decoder.weight is model.encoder.weight


class TiedThrice(nn.Module):
    """Three names for a weight, a module under two, a buffer under two, and one storage for two."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))
        self.b.weight = self.c.weight = self.a.weight
        self.again = self.a
        self.norm, self.other = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.other.running_mean = self.norm.running_mean
        self.c.bias.data = self.b.bias.data


TIES = [
    {"a.weight", "b.weight", "c.weight", "again.weight"},
    {"a.bias", "again.bias"},
    {"b.bias", "c.bias"},
    {"norm.running_mean", "other.running_mean"},
]


def thrice() -> TiedThrice:
    model = TiedThrice()
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape))
    return model


@pytest.mark.parametrize("keep", [min, max], ids=["the first name", "the last name"])
@pytest.mark.parametrize("prefix", ["", "network."])
@pytest.mark.parametrize("kind", [".pt", ".ckpt", ".safetensors"])
def test_one_of_the_names_of_a_tied_tensor_is_enough(
    tmp_path: Path, keep: Callable[[set[str]], str], prefix: str, kind: str
) -> None:
    given, model = thrice(), thrice()
    left_out = {name for names in TIES for name in names - {keep(names)}}
    state = {key: value for key, value in given.state_dict().items() if key not in left_out}
    state, path = under(prefix)(state), tmp_path / f"w{kind}"
    if kind == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if kind == ".ckpt" else state, path)
    load_initial_weights(model, path)
    assert same(model, given)


@pytest.mark.parametrize("names", TIES, ids=["weight", "module", "storage", "buffer"])
@pytest.mark.parametrize("kind", [".pt", ".safetensors"])
def test_different_values_under_names_that_are_tied_are_refused(
    tmp_path: Path, names: set[str], kind: str
) -> None:
    state = {key: value.clone() for key, value in thrice().state_dict().items()}
    state[max(names)] += 1
    path = tmp_path / f"w{kind}"
    save_file(state, path) if kind == ".safetensors" else torch.save(state, path)
    sentence = refused(thrice(), path)
    assert sentence.startswith("holds different values under ")
    assert max(names) in sentence


def test_a_tied_tensor_that_is_under_no_name_is_missing_under_all(tmp_path: Path) -> None:
    state = Tied().state_dict()
    del state["encoder.weight"], state["decoder.weight"]
    assert "missing keys: 2 (encoder.weight, decoder.weight)" in refused(
        Tied(), saved(state, tmp_path / "w.pt")
    )


def test_equal_values_of_another_type_and_nan_are_no_difference(tmp_path: Path) -> None:
    state = Tied().state_dict()
    state["encoder.weight"][0, 0] = torch.nan
    state["decoder.weight"] = state["encoder.weight"].double()
    load_initial_weights(model := Tied(), saved(state, tmp_path / "w.pt"))
    assert model.decoder.weight is model.encoder.weight
