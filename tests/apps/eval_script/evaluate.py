"""Evaluates a checkpoint and exports its network: no Trainer, no callbacks, no config."""

import sys
from pathlib import Path

import torch
from task import Net, loader


def main(checkpoint: Path, exported: Path) -> None:
    net = Net.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    with torch.no_grad():
        right = sum(int((net(x).argmax(1) == y).sum()) for x, y in loader())
    print(f"accuracy {right / 256:.4f}")
    plain = torch.nn.Sequential(net.hidden, torch.nn.ReLU(), net.out)
    torch.export.save(torch.export.export(plain, (torch.zeros(2, 16),)), exported)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
