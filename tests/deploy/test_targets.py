"""Targets: converters are run, and what they have written is opened and computed with."""

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.deploy import DeployError
from coreai_opt.deploy.registry import target_of
from coreai_opt.deploy.sizes import dense_twin, written_bytes
from coreai_opt.models import MLP, ConvNet, ResNet, TransformerClassifier
from coreai_opt.pruning import InPlacePruner, MagnitudePruner, MagnitudePrunerConfig


@pytest.fixture(autouse=True)
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take away what converters leave behind: a variable of the environment, open directories."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::coreai_opt.pruning.errors.LeftDenseWarning"),
]

PACKAGES = {"onnx": "onnxruntime", "coreml": "coremltools", "coreai": "coreai_torch"}
# Weights that are sparse in each: those that calls in evaluation mode have.
MODELS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "mlp": (MLP, 3),
    "convnet": (ConvNet, 3),
    "resnet": (ResNet, 10),
    "transformer": (TransformerClassifier, 10),
}


def sparse(make: Callable[..., nn.Module], in_place: bool = False) -> nn.Module:
    model, config = make((1, 16, 16), 10), MagnitudePrunerConfig.uniform(0.9)
    with torch.no_grad():
        # Layers of one encoder begin with the same weights, which would be stored once.
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    pruner = (InPlacePruner if in_place else MagnitudePruner)(model, config)
    pruner.prepare()
    final = model if isinstance(pruner, InPlacePruner) else pruner.finalize()
    return final.eval()


def stored_sparse(name: str, path: Path) -> int:
    """Return how many weights a file stores as sparse ones."""
    if name == "coreml":
        import coremltools

        spec = coremltools.utils.load_spec(str(path))
        blocks = spec.mlProgram.functions["main"].block_specializations.values()
        kinds = [operation.type for block in blocks for operation in block.operations]
        return kinds.count("constexpr_sparse_to_dense")
    from coreai.authoring import AIModelAsset

    return str(AIModelAsset.load(path).program).count("coreai.sparse_with_bitmask_to_dense")


@pytest.mark.parametrize("in_place", [False, True], ids=["finalized", "in place"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", PACKAGES)
def test_a_sparse_model_becomes_a_smaller_file_that_computes_the_same(
    tmp_path: Path, name: str, kind: str, in_place: bool
) -> None:
    pytest.importorskip(PACKAGES[name], reason=f"needs the extra {name}")
    make, weights = MODELS[kind]
    model, example = sparse(make, in_place), torch.randn(1, 1, 16, 16)
    (tmp_path / "it's sparse").mkdir()
    (tmp_path / "dense").mkdir()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    artefact = target_of(name).build(model, example, tmp_path / "it's sparse")
    twin = target_of(name).build(dense_twin(model), example, tmp_path / "dense")
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if name != "onnx":
        assert written_bytes(artefact.files) < written_bytes(twin.files)
        assert stored_sparse(name, artefact.files[0]) == weights
        assert stored_sparse(name, twin.files[0]) == 0
    if artefact.run is None:
        assert artefact.cannot_run == "Core ML predicts on macOS only"
        return
    with torch.inference_mode():
        for size in (1, 5):
            batch = torch.randn(size, 1, 16, 16)
            torch.testing.assert_close(artefact.run(batch), model(batch), rtol=1e-3, atol=1e-4)


class Branching(nn.Module):
    """Control flow that depends on the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs if outputs.sum() > 0 else -outputs


class Unknown(Branching):
    """An operation that no converter knows."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.special.modified_bessel_i0(self.layer(inputs))


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize(
    ("make", "sentence"),
    [(Branching, "torch.export cannot trace the model: "), (Unknown, "cannot (convert|export)")],
)
def test_what_cannot_be_converted_is_one_sentence(
    tmp_path: Path, name: str, make: Callable[[], Any], sentence: str
) -> None:
    pytest.importorskip(PACKAGES[name], reason=f"needs the extra {name}")
    model = make().eval()
    nn.init.zeros_(model.layer.weight)
    with pytest.raises(DeployError, match=rf"^{name}: .*{sentence}") as raised:
        target_of(name).build(model, torch.randn(2, 4), tmp_path)
    assert len(str(raised.value).splitlines()) == 1
