"""Prune in a plain PyTorch training loop: no Lightning, no Hydra.

The lines marked "pruning" are all that a loop of your own needs. The data are the 1,797 handwritten
digits that come with scikit-learn.

    python examples/plain_pytorch.py
"""

import math

import torch
from safetensors.torch import load_model
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

from coreai_opt.pruning import (
    InPlacePruner,
    MagnitudePrunerConfig,
    count_sparsity,
    load_pruned,
    save_pruned,
    summary,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule

EPOCHS = 16
BATCH = 64
TARGET = 0.9
FOLDER = "outputs/plain_pytorch"


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Return images of 64 grey values in [0, 1] with their labels, for training and testing."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32) / 16
    whole = TensorDataset(pixels, torch.tensor(labels))
    train, test = random_split(whole, [1400, 397], torch.Generator().manual_seed(0))
    return TensorDataset(*whole[train.indices]), TensorDataset(*whole[test.indices])


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def sparsity(model: nn.Module) -> str:
    """Return the share of zeros in the weights that the forward pass uses, counted."""
    return f"{count_sparsity(model).achieved:.2%}"


@torch.no_grad()
def accuracy(model: nn.Module, data: TensorDataset) -> float:
    images, labels = data.tensors
    model.eval()
    right: Tensor = model(images).argmax(dim=1) == labels
    return right.float().mean().item()


def train(model: nn.Module, data: TensorDataset, pruner: InPlacePruner | None = None) -> None:
    """Train a model, with a pruner also prune it on the way."""
    loader = DataLoader(data, BATCH, shuffle=True, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if pruner:
        pruner.attach(optimizer)  # pruning: its steps leave pruned weights at 0
    for epoch in range(EPOCHS):
        model.train()
        total = 0.0
        for images, labels in loader:
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if pruner:
                pruner.step()  # pruning: once after each optimizer step
            total += loss.item() * len(labels)
        if epoch % 4 == 3:
            print(f"epoch {epoch + 1:2}: loss {total / len(data):.4f}, sparsity {sparsity(model)}")


def main() -> None:
    train_data, test_data = digits()

    print("dense")
    torch.manual_seed(0)
    dense = network()
    train(dense, train_data)
    print(f"dense: test accuracy {accuracy(dense, test_data):.2%}, sparsity {sparsity(dense)}")

    print("pruned")
    torch.manual_seed(0)
    pruned = network()
    # pruning: a ramp over the first half of the training; the other half is for recovering.
    ramp = PolynomialDecaySchedule(total_iters=EPOCHS * math.ceil(len(train_data) / BATCH) // 2)
    pruner = InPlacePruner(pruned, MagnitudePrunerConfig.uniform(TARGET, ramp))
    pruner.prepare()  # pruning: makes the first masks
    train(pruned, train_data, pruner)
    print(f"pruned: test accuracy {accuracy(pruned, test_data):.2%}, sparsity {sparsity(pruned)}")

    # Weights and masks go to files; the model in memory could be trained on.
    save_pruned(pruned, FOLDER)

    # With this package the masks are there again, to train on or to sum up.
    again = load_pruned(network(), FOLDER).model
    print(f"loaded: test accuracy {accuracy(again, test_data):.2%}, sparsity {sparsity(again)}")
    print(summary(again, example_inputs=torch.zeros(1, 64)))

    # Without it they are plain weights with zeros in them.
    stock = network()
    load_model(stock, f"{FOLDER}/weights.safetensors")
    zeros = sum(int((layer.weight == 0).sum()) for layer in stock if isinstance(layer, nn.Linear))
    print(f"stock PyTorch: test accuracy {accuracy(stock, test_data):.2%}, {zeros:,} zeros")


if __name__ == "__main__":
    main()
