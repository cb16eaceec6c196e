"""Small networks for images ``(batch, *input_shape)``."""

import itertools
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional


class MLP(nn.Module):
    """Fully connected layers with ReLU; ``hidden=[300, 100]`` is LeNet-300-100.

    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition".

    Args:
        input_shape: channels, height, width.
        num_classes: number of logits.
        hidden: width of each hidden layer.
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (300, 100)
    ) -> None:
        super().__init__()
        widths = [prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class ConvNet(nn.Module):
    """3x3 convolutions with ReLU, each followed by a 2x2 maximum, and one linear layer.

    Args:
        input_shape: channels, height, width; height and width at least ``2 ** len(channels)``.
        num_classes: number of logits.
        channels: output channels of each convolution.
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, channels: Sequence[int] = (16, 32)
    ) -> None:
        super().__init__()
        _, height, width = input_shape
        scale = 2 ** len(channels)
        if min(height, width) < scale:
            raise ValueError(
                f"{len(channels)} convolutions halve the image to nothing: input_shape is "
                f"{tuple(input_shape)}; allowed: height and width of at least {scale}"
            )
        widths = [input_shape[0], *channels]
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(widths[-1] * (height // scale) * (width // scale), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


class ResNet(nn.Module):
    """A residual network with batch norm, of the CIFAR kind: a stem, three stages, mean pooling.

    Source: He et al. 2016, "Deep residual learning for image recognition", arXiv:1512.03385, 4.2.

    Args:
        input_shape: channels, height, width.
        num_classes: number of logits.
        width: channels of the first stage; doubled at each next one.
        blocks: residual blocks in each stage; the depth is ``6 * blocks + 2``.
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, width: int = 8, blocks: int = 1
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        fan_in = width
        for stage in range(3):
            fan_out = width * 2**stage
            for block in range(blocks):
                stages.append(_Residual(fan_in, fan_out, 2 if stage and not block else 1))
                fan_in = fan_out
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(fan_in, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(functional.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class _Residual(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(fan_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(features))


class TransformerClassifier(nn.Module):
    """A transformer encoder over the rows of an image, with learned positions and mean pooling.

    Source of the encoder: Vaswani et al. 2017, arXiv:1706.03762; norm first as in
    Xiong et al. 2020, arXiv:2002.04745.

    Args:
        input_shape: channels, height, width; each row is a token of ``channels * width`` numbers.
        num_classes: number of logits.
        width: size of a token inside, a multiple of ``heads``.
        depth: encoder layers.
        heads: attention heads.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width is {width}; allowed: a multiple of heads ({heads})")
        channels, height, row = input_shape
        self.embed = nn.Linear(channels * row, width)
        self.position = nn.Parameter(0.02 * torch.randn(height, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images.transpose(1, 2).flatten(2)) + self.position
        logits: Tensor = self.head(self.norm(self.encoder(tokens)).mean(dim=1))
        return logits
