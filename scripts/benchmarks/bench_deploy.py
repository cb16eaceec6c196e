"""Bytes and latency of sparse models on each target that runs here, against the dense model."""

import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
from benchmarking import parser, table, write
from rich.table import Table
from torch import nn

from coreai_opt.deploy import deploy
from coreai_opt.deploy.registry import TARGETS
from coreai_opt.models import MLP, ConvNet, TransformerClassifier
from coreai_opt.pruning import InPlacePruner, MagnitudePrunerConfig

SHAPE, CLASSES = (1, 28, 28), 10
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(SHAPE, CLASSES),
    "mlp, 1024 wide": lambda: MLP(SHAPE, CLASSES, (1024, 1024)),
    "convnet": lambda: ConvNet(SHAPE, CLASSES),
    "transformer": lambda: TransformerClassifier(SHAPE, CLASSES),
}


def main() -> None:
    """Measure and write."""
    made = parser("deploy", __doc__)
    made.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    arguments = made.parse_args()
    warnings.simplefilter("ignore")  # of weights that stay dense, as positions do
    results: dict[str, Any] = {}
    for name, make in MODELS.items():
        for sparsity in SPARSITIES:
            one = measured(make, sparsity, arguments.targets)
            results.setdefault(name, {})[str(sparsity)] = one
    write(arguments.json, "scripts/bench deploy", results, _table(results))


def measured(make: Callable[[], nn.Module], sparsity: float, targets: list[str]) -> dict[str, Any]:
    """Return what a model of random weights, pruned at once, becomes; one thread."""
    torch.manual_seed(0)
    model = make()
    InPlacePruner(model, MagnitudePrunerConfig.uniform(sparsity)).prepare()
    with tempfile.TemporaryDirectory() as folder:
        return deploy(model, torch.rand(64, *SHAPE), targets, folder).to_dict()["targets"]


def _table(results: dict[str, Any]) -> Table:
    columns = ["bytes", "dense", "zipped", "dense zipped", "speed-up, batch 1", "batch 32"]
    made = table("deployed, one thread", ["model", "sparsity", "target"], columns)
    for model, by_sparsity in results.items():
        for sparsity, targets in by_sparsity.items():
            for name, one in targets.items():
                if one["error"] is not None:
                    made.add_row(model, sparsity, name, one["error"])
                    continue
                keys = ("bytes", "dense_bytes", "compressed_bytes", "dense_compressed_bytes")
                latency = one["latency"] or {}
                faster = [f"{times['speedup']:.2f}" for times in latency.values()]
                made.add_row(model, sparsity, name, *(f"{one[key]:,}" for key in keys), *faster)
    return made


if __name__ == "__main__":
    main()
