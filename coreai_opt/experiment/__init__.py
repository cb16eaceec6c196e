"""One run: from a config to a trained, pruned, exported and recorded model."""

from coreai_opt._lazy import lazy_exports

__all__ = ["ConfigError", "RunFailedError", "allowed_targets"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "coreai_opt.config.errors": ["ConfigError", "RunFailedError"],
        "coreai_opt.config.target_policy": ["allowed_targets"],
    },
)
