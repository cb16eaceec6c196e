"""A training loop in plain torch; it saves its state after each epoch, and goes on from one."""

import time
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torch import nn


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    torch.manual_seed(cfg.seed)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9)
    inputs = torch.randn(64, 8)
    targets = inputs.sum(1, keepdim=True)
    begin = 0
    if cfg.resume_from:
        state = torch.load(cfg.resume_from, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begin = state["epoch"]
    print(f"BEGINS seed={cfg.seed} epoch={begin}", flush=True)
    loss = torch.tensor(0.0)
    for epoch in range(begin, cfg.epochs):
        loss = nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(cfg.pause_s)
        whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        # Not whole while it is written: what is killed then leaves half a file.
        torch.save({**whole, "epoch": epoch + 1}, f"state-{epoch + 1}.pt")
        for old in Path().glob("state-*.pt"):
            if old.name not in (f"state-{epoch + 1}.pt", f"state-{epoch}.pt"):
                old.unlink()
    with torch.no_grad():
        return float(nn.functional.mse_loss(model(inputs), targets))


if __name__ == "__main__":
    main()
