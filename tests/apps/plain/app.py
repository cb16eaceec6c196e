"""A plain function of a typed config, without torch: no line of it knows that it is swept over."""

from dataclasses import dataclass, field

import hydra
from hydra.core.config_store import ConfigStore


@dataclass
class Noise:
    scale: float = 0.0


@dataclass
class Config:
    x: float = 1.0
    y: float = 2.0
    seed: int = 0
    noise: Noise = field(default_factory=Noise)


ConfigStore.instance().store(name="config", node=Config)


@hydra.main(config_path=None, config_name="config", version_base="1.3")
def main(cfg: Config) -> float:
    print(f"CALLED x={cfg.x:g} y={cfg.y:g} seed={cfg.seed}")
    if cfg.x < 0:
        raise ValueError(f"x={cfg.x:g} is below 0")
    return (cfg.x - 3) ** 2 + cfg.y + cfg.noise.scale * cfg.seed


if __name__ == "__main__":
    main()
