"""Models and batches of bench_steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A model, and a batch of inputs with their targets."""

    name: str
    model: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, ...]]


class TokenTagger(nn.Module):
    """A transformer encoder that predicts a token at each place."""

    def __init__(self, tokens: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, tokens)

    def forward(self, places: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(places)))


class Halved(nn.Module):
    """A model under autocast to bfloat16, as it is trained on a GPU."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            return self.model(inputs)


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10)
    )


def _small() -> nn.Module:
    layers = [layer for _ in range(100) for layer in (nn.Linear(64, 64), nn.ReLU())]
    return nn.Sequential(*layers)


def _conv() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 256, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def _resnet50() -> nn.Module:
    # Not part of this project's environments; where a GPU is, it usually is as well.
    from torchvision.models import resnet50

    model = resnet50().to(memory_format=torch.channels_last)
    return Halved(model)


def _images(count: int, side: int, classes: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, side, side), torch.randint(classes, (count,))


def _tokens(count: int, length: int, tokens: int) -> tuple[Tensor, Tensor]:
    return torch.randint(tokens, (count, length)), torch.randint(tokens, (count, length))


MODELS = {
    case.name: case
    for case in (
        Case("mlp", _mlp, lambda: (torch.randn(256, 1024), torch.randint(10, (256,)))),
        Case("conv", _conv, lambda: _images(64, 32, 10)),
        Case("transformer", lambda: TokenTagger(1000, 256, 4, 4), lambda: _tokens(16, 64, 1000)),
        Case("small-layers", _small, lambda: (torch.randn(16, 64), torch.randint(64, (16,)))),
        Case("resnet50", _resnet50, lambda: _images(128, 224, 1000)),
        Case(
            "transformer-100m",
            lambda: Halved(TokenTagger(20_000, 768, 12, 12)),
            lambda: _tokens(16, 512, 20_000),
        ),
    )
}
