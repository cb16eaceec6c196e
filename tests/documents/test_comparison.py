"""What docs/comparison.md says of tools that are installed here; where one fails, it is wrong."""

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import ModelPruning
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.ao.pruning import CubicSL, WeightNormSparsifier
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "comparison.md").read_text()
# What a row of the table is called on PyPI, where that is another name.
DISTRIBUTIONS = {
    "`torch.nn.utils.prune`": "torch",
    "Lightning `ModelPruning`": "pytorch-lightning",
    "`torch.ao.pruning`": "torch",
    "SparseML": "sparseml",
    "LLM Compressor": "llmcompressor",
    "Neural Compressor": "neural-compressor",
    "TensorFlow Model Optimization": "tensorflow-model-optimization",
    "PQuantML": "pquant-ml",
    "modelopt": "nvidia-modelopt",
    "Pruna": "pruna",
    "mushin": "mushin-py",
}
NEW = [
    "coreai-opt",
    "fasterai",
    "sparsimony",
    "PQuantML",
    "torch-kirigami",
    "modelopt",
    "Pruna",
    "mushin",
]
WEIGHTS = 8 * 16 + 16 * 4  # of Net


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def zeros(self) -> int:
        return sum(int((layer.weight == 0).sum()) for layer in (self.layers[0], self.layers[2]))


class Zeros(pl.Callback):
    """Counts zeros before each batch."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        assert isinstance(pl_module, Net)
        self.counts.append(pl_module.zeros())


def half_of_what_is_left(**settings: Any) -> ModelPruning:
    given = {"amount": 0.5, "use_lottery_ticket_hypothesis": False, **settings}
    return ModelPruning("l1_unstructured", parameter_names=["weight"], **given)


def fit(net: Net, *callbacks: pl.Callback, epochs: int, **settings: Any) -> pl.Trainer:
    """Train for so many epochs of 4 batches."""
    data = DataLoader(TensorDataset(torch.randn(32, 8), torch.arange(32) % 4), batch_size=8)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, data, **settings)
    return trainer


@pytest.mark.parametrize(
    ("package", "tools"),
    [
        ("torch", ["`torch.nn.utils.prune`", "`torch.ao.pruning`"]),
        ("pytorch-lightning", ["Lightning `ModelPruning`"]),
    ],
)
def test_the_page_is_about_the_versions_that_are_pinned(package: str, tools: list[str]) -> None:
    pins = (ROOT / "constraints.txt").read_text()
    pin = re.search(rf"^{package}==(\S+)$", pins, re.MULTILINE)
    assert pin is not None
    for tool in tools:
        assert f"\n| {tool} | {pin[1]} |" in PAGE


def rows() -> list[list[str]]:
    """Return the cells of the table, without its header."""
    table = re.findall(r"^\| .* \|$", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


def test_every_tool_has_a_whole_row_and_a_paragraph() -> None:
    tools = [row[0] for row in rows()]
    assert len(set(tools)) == len(tools) >= 20
    assert {len(row) for row in rows()} == {10}
    named = {tool.removeprefix("Lightning ") for tool in tools} - {"this project"}
    assert {tool for tool in named if f"\n\n**{tool}**" not in PAGE} == set()
    assert set(NEW) <= named


@pytest.mark.parametrize("tool", NEW)
def test_what_was_read_is_said_under_its_date(tool: str) -> None:
    part = PAGE.partition("\n## Read on 2026-11-30\n")[2].partition("\n## ")[0]
    paragraph = part.partition(f"\n**{tool}**")[2].partition("\n\n")[0]
    assert re.search(r"\bRead(:| were)\s", paragraph), paragraph


def test_what_is_installed_has_the_version_of_the_page() -> None:
    checked = 0
    for tool, told, *_ in rows()[1:]:
        try:
            found = version(DISTRIBUTIONS.get(tool, tool))
        except PackageNotFoundError:
            continue
        assert found.partition("+")[0] == told, tool
        checked += 1
    assert checked >= 3  # torch twice, and Lightning


@pytest.mark.parametrize("method", [prune.l1_unstructured, prune.random_unstructured])
def test_amounts_of_torch_prune_compound(method: Callable[..., Any]) -> None:
    layer = nn.Linear(8, 8)
    counts = []
    for _ in range(3):
        method(layer, "weight", amount=0.5)
        counts.append(int((layer.weight == 0).sum()))
    assert counts == [32, 48, 56]


def test_masks_of_torch_prune_are_in_the_state_dict_under_keys_of_their_own() -> None:
    layer = nn.Linear(8, 8)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    state = layer.state_dict()
    assert sorted(state) == ["bias", "weight_mask", "weight_orig"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"weight\""):
        nn.Linear(8, 8).load_state_dict(state)
    prune.remove(layer, "weight")
    assert sorted(layer.state_dict()) == ["bias", "weight"]


def test_optimizers_move_what_torch_prune_has_pruned() -> None:
    layer = nn.Linear(8, 8)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    before = layer.weight_orig.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.1)
    layer(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    pruned = layer.weight_mask == 0
    torch.testing.assert_close(layer.weight_orig[pruned], 0.99 * before[pruned])


def test_torch_prune_has_no_schedules_and_no_n_of_m() -> None:
    methods = {
        name
        for name, one in vars(prune).items()
        if isinstance(one, type) and issubclass(one, prune.BasePruningMethod)
    }
    own = {"BasePruningMethod", "PruningContainer", "Identity", "CustomFromMask"}
    structured = {"RandomStructured", "LnStructured"}
    assert methods - own == {"RandomUnstructured", "L1Unstructured"} | structured


def test_model_pruning_prunes_at_the_ends_of_epochs_and_compounds() -> None:
    net, zeros = Net(), Zeros()
    fit(net, half_of_what_is_left(), zeros, epochs=3)
    assert zeros.counts == [0] * 4 + [WEIGHTS // 2] * 4 + [WEIGHTS * 3 // 4] * 4
    assert net.zeros() == WEIGHTS * 7 // 8


def test_model_pruning_resets_weights_by_default() -> None:
    net = Net()
    before = net.layers[0].weight.detach().clone()
    pruning = ModelPruning("l1_unstructured", parameter_names=["weight"], amount=0.5)
    fit(net, pruning, epochs=1)
    kept = net.layers[0].weight != 0
    assert 0 < int(kept.sum()) < kept.numel()
    assert torch.equal(net.layers[0].weight[kept], before[kept])


def test_model_pruning_takes_modules_and_no_names() -> None:
    pruning = ModelPruning("l1_unstructured", parameters_to_prune=[("layers.0", "weight")])
    with pytest.raises(MisconfigurationException, match=r"\(nn\.Module, parameter_name_to_prune\)"):
        fit(Net(), pruning, epochs=1)
    net = Net()
    named = half_of_what_is_left(parameters_to_prune=[(net.layers[0], "weight")])
    fit(net, named, epochs=1)
    assert net.zeros() == 8 * 16 // 2


def test_model_pruning_from_a_config_prunes_weights_and_biases() -> None:
    node = {"_target_": "pytorch_lightning.callbacks.ModelPruning", "amount": 0.5}
    net = Net()
    fit(net, instantiate(node, pruning_fn="l1_unstructured"), epochs=1)
    zeros = sum(int((parameter == 0).sum()) for parameter in net.parameters())
    assert zeros == (WEIGHTS + 16 + 4) // 2


class Saving(pl.Callback):
    """Saves a checkpoint at the end of the first epoch, when the masks have been made."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self._path, weights_only=False)


def test_model_pruning_does_not_go_on_with_its_masks(tmp_path: Path) -> None:
    path = tmp_path / "half.ckpt"
    once = {"apply_pruning": lambda epoch: epoch == 0}
    fit(Net(), half_of_what_is_left(**once), Saving(path), epochs=2)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert not [key for key in saved if key.endswith("_mask")]
    net, zeros = Net(), Zeros()
    resumed = {"ckpt_path": path, "weights_only": True}
    fit(net, half_of_what_is_left(**once), zeros, epochs=2, **resumed)
    assert zeros.counts[0] == WEIGHTS // 2
    assert net.zeros() < WEIGHTS // 4


def test_model_pruning_cannot_load_the_masks_that_it_can_save(tmp_path: Path) -> None:
    path = tmp_path / "half.ckpt"
    fit(Net(), half_of_what_is_left(make_pruning_permanent=False), Saving(path), epochs=2)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert [key for key in saved if key.endswith("_mask")]
    again = half_of_what_is_left(make_pruning_permanent=False)
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: .*_mask"):
        fit(Net(), again, epochs=2, ckpt_path=path, weights_only=True)


def test_the_sparsifiers_of_torch_ao_have_a_cubic_schedule_by_calls() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    sparsifier = WeightNormSparsifier(0.75, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    schedule = CubicSL(sparsifier, init_sl=0.0, delta_t=1, total_t=4)
    counts = []
    for _ in range(5):
        sparsifier.step()
        counts.append(int((model[0].weight == 0).sum()))
        schedule.step()
    # 64 * 0.75 * (1 - (1 - k/4)^3) = 0, 27.75, 42, 47.25, 48; it rounds.
    assert counts == [0, 28, 42, 47, 48]
    assert "mask" not in "".join(model.state_dict())
    assert "mask" in sparsifier.state_dict()["state"]["0.weight"]
    sparsifier.squash_mask()
    assert sorted(model.state_dict()) == ["0.bias", "0.weight"]
    assert int((model[0].weight == 0).sum()) == 48


def test_the_sparsifiers_of_torch_ao_make_2_of_4() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    sparsifier = WeightNormSparsifier(1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    assert (model[0].weight.view(-1, 4) == 0).sum(1).eq(2).all()
