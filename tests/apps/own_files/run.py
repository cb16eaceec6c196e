"""Writes its results into files of its own, some with the names that records have elsewhere."""

import json
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="conf", config_name="main", version_base="1.3")
def main(cfg: DictConfig) -> None:
    out = Path(cfg.out)
    seen = sorted(path.name for path in out.glob("*.*s*"))
    score = cfg.model.width * cfg.model.get("depth", 1) * cfg.lr
    for name in ("result.json", "progress.json", "metrics.csv"):
        (out / name).write_text(json.dumps({"score": score, "seen": seen}))
    (out / "checkpoints").mkdir(exist_ok=True)
    if cfg.lr > 1:
        sys.exit(3)
    from coreai_opt.runs import record

    record(score=score, label="mine")


if __name__ == "__main__":
    main()
