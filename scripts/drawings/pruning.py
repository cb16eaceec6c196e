"""Draw the pictures of docs/choosing.md with the library itself.

python scripts/drawings/pruning.py
"""

from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from coreai_opt.models import ConvNet
from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig
from coreai_opt.pruning.spec import (
    BlockStructured,
    ChannelStructured,
    NMStructured,
    PruningSpec,
    Unstructured,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SCHEMES: dict[str, Any] = {
    "Unstructured()": Unstructured(),
    "ChannelStructured(axis=0)": ChannelStructured(axis=0),
    "NMStructured(n=2, m=4)": NMStructured(n=2, m=4),
    "BlockStructured((4, 4))": BlockStructured(block_shape=(4, 4)),
}
CRITERIA = {"default": "default (magnitude)", "random": "random", "taylor": "taylor"}
ALLOCATIONS = ("uniform", "erdos_renyi", "global")


def main() -> None:
    torch.manual_seed(0)
    IMAGES.mkdir(exist_ok=True)
    # Rows and columns of different strength, as trained layers have them.
    strength = torch.rand(16, 1) + torch.rand(1, 24)
    weight = torch.randn(16, 24) * strength
    shown = {name: pruned(weight, PruningSpec(pruning_scheme=s)) for name, s in SCHEMES.items()}
    draw(weight, shown, "schemes.png")
    by = {title: pruned(weight, PruningSpec(pruning_algo=key)) for key, title in CRITERIA.items()}
    draw(weight, by, "criteria.png")
    draw_allocations()


def pruned(weight: Tensor, spec: PruningSpec) -> Tensor:
    """Return the mask of a weight after one backward pass and one update."""
    impl = spec.pruning_algo(weight, spec)
    parameter = torch.nn.Parameter(weight.clone())
    inputs = torch.randn(64, weight.shape[1]) * torch.linspace(2, 0.1, weight.shape[1])
    (inputs @ impl(parameter).t()).square().mean().backward()
    impl.update(parameter, spec.target_sparsity)
    mask: Tensor = impl.mask
    return mask


def draw(weight: Tensor, masks: dict[str, Tensor], name: str) -> None:
    """Draw the magnitudes that each mask keeps; what is pruned is white."""
    figure, axes = plt.subplots(1, len(masks), figsize=(3 * len(masks), 2.4))
    for axis, (title, mask) in zip(axes, masks.items(), strict=True):
        kept = torch.where(mask, weight.abs(), torch.nan)
        axis.imshow(kept.numpy(), cmap="Blues", vmin=-0.5, vmax=float(weight.abs().max()))
        axis.set_title(f"{title}\n{1 - float(mask.float().mean()):.0%} pruned", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    save(figure, name)


def draw_allocations() -> None:
    """Draw the sparsity of each layer of a small network under the three allocations."""
    figure, axis = plt.subplots(figsize=(7, 2.6))
    for index, allocation in enumerate(ALLOCATIONS):
        torch.manual_seed(0)
        model = ConvNet(input_shape=[1, 28, 28], num_classes=10)
        everything = ModuleMagnitudePrunerConfig(
            op_state_spec={"*": PruningSpec(target_sparsity=0.9)}
        )
        config = MagnitudePrunerConfig(global_config=everything, allocation=allocation)  # type: ignore[arg-type]
        MagnitudePruner(model, config).prepare()
        layers = count_sparsity(model).layers
        places = [place + 0.27 * (index - 1) for place in range(len(layers))]
        axis.bar(places, [100 * layer.sparsity for layer in layers], 0.25, label=allocation)
    axis.set_xticks(range(len(layers)))
    axis.set_xticklabels([f"{layer.name}\n{layer.elements:,}" for layer in layers], fontsize=8)
    axis.set_ylabel("sparsity, %")
    axis.legend(fontsize=8, ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    save(figure, "allocations.png")


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(IMAGES / name, dpi=100, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
