"""Import root of Lightning that the callbacks derive from.

It is that of ``installed_root``, so that neither package is needed beside the other.
"""

import importlib
from typing import TYPE_CHECKING

from coreai_opt.requirements import release_of
from lightning_callbacks._lightning.roots import installed_root

__all__ = ["pl", "rank_zero_info", "rank_zero_only", "rank_zero_warn"]

OLDEST = "2.2"

# Types are checked with one root; the other holds the same code.
if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
else:
    pl = importlib.import_module(installed_root())
    if release_of(pl.__version__) < release_of(OLDEST):
        raise ImportError(
            f"the callbacks need Lightning {OLDEST} or newer, and {pl.__name__} is "
            f"{pl.__version__}; allowed: pip install -U pytorch-lightning, or lightning"
        )
    rank_zero_info = pl.utilities.rank_zero_info
    rank_zero_only = pl.utilities.rank_zero_only
    rank_zero_warn = pl.utilities.rank_zero_warn
