"""Many runs: what a sweep consists of, which of it is done, and what came out."""

from coreai_opt._lazy import lazy_exports

__all__ = ["load", "sweep"]

__getattr__, __dir__ = lazy_exports(__name__, {"coreai_opt.cli.notebook": __all__})
