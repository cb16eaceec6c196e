"""Cross-validates: one model and one Trainer a fold, all in Python."""

from pathlib import Path

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset


class Regression(pl.LightningModule):
    def __init__(self, hidden: int, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], _: int) -> None:
        optimizer = self.optimizers()
        loss = nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, 1.0, "norm")
        optimizer.step()

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.log("mse", nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.hparams["lr"])


def fit_fold(folder: Path, model: Regression, train: Subset, held_out: Subset) -> None:
    best = ModelCheckpoint(folder, "best", monitor="mse", save_last=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=6,
        callbacks=[best, EarlyStopping("mse", patience=3)],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(train, 32), DataLoader(held_out, 32))
    print(f"{folder.name}: {float(best.best_model_score):.4f}")


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(cfg: DictConfig) -> None:
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(256, 8, generator=draw)
    data = TensorDataset(inputs, inputs[:, :2].sum(1, keepdim=True))
    for fold in range(cfg.folds):
        pl.seed_everything(cfg.seed + fold)
        held_out = list(range(fold, 256, cfg.folds))
        train = sorted(set(range(256)) - set(held_out))
        model = Regression(cfg.hidden, cfg.optimizer.lr)
        folder = Path(HydraConfig.get().runtime.output_dir) / f"fold_{fold}"
        fit_fold(folder, model, Subset(data, train), Subset(data, held_out))


if __name__ == "__main__":
    main()
