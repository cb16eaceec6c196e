"""Models whose weights have several names."""

import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """Two layers with one weight of 20, and one of their own."""

    first_name, second_name = "first", "second"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.between = nn.Linear(5, 4)
        self.second = nn.Linear(4, 5)
        self.second.weight = self.first.weight

    def forward(self, batch: Tensor) -> Tensor:
        return self.second(self.between(self.first(batch)))

    def batch(self) -> Tensor:
        return torch.rand(3, 4)


class Language(nn.Module):
    """An embedding whose weight is that of the head."""

    first_name, second_name = "embedding", "head"

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.between = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, batch: Tensor) -> Tensor:
        return self.head(self.between(self.embedding(batch)))

    def batch(self) -> Tensor:
        return torch.tensor([[0, 1, 2, 3, 4]])


class Twice(nn.Module):
    """One module under two names."""

    first_name, second_name = "first", "again"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.between = nn.Linear(5, 4)
        self.again = self.first

    def forward(self, batch: Tensor) -> Tensor:
        return self.again(self.between(self.first(batch)))

    def batch(self) -> Tensor:
        return torch.rand(3, 4)
