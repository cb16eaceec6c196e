"""What can be chosen by name in the config."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn


def mlp(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(16, hidden), nn.Tanh(), nn.Linear(hidden, 4))


def scale(hidden: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(16), nn.Unflatten(1, (4, 4)), nn.AvgPool1d(4), nn.Flatten())


def make_checkpoint(**arguments: object) -> pl.Callback:
    return ModelCheckpoint(filename="{epoch}-{val_loss:.2f}", save_last=True, **arguments)


NETS = {"mlp": mlp, "scale": scale}
CALLBACKS = {"checkpoint": make_checkpoint, "early_stopping": EarlyStopping}
