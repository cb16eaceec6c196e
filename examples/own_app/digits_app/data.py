"""The 1,797 handwritten digits that come inside scikit-learn."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split


def loaders(batch_size: int, seed: int) -> tuple[DataLoader, DataLoader]:
    """Return loaders of 1,500 digits to train on, and of the others."""
    raw = load_digits()
    images = torch.tensor(raw.data, dtype=torch.float32) / 16
    digits = TensorDataset(images, torch.tensor(raw.target))
    generator = torch.Generator().manual_seed(seed)
    train, rest = random_split(digits, [1500, len(digits) - 1500], generator)
    return (
        DataLoader(train, batch_size, shuffle=True, generator=generator),
        DataLoader(rest, batch_size=512),
    )
