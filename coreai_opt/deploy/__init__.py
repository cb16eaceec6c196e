"""Deployment: what a sparse model becomes on a target, and what that gains.

It knows neither Hydra nor Lightning.
"""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .artefact import Artefact, DeployError, Target
    from .deployment import Deployed, Deployment, deploy
    from .sparse_inference import LayerGain, SparseModel, load_sparse, save_sparse, to_sparse

__all__ = [
    "Artefact",
    "DeployError",
    "Deployed",
    "Deployment",
    "LayerGain",
    "SparseModel",
    "Target",
    "deploy",
    "load_sparse",
    "save_sparse",
    "to_sparse",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".artefact": ["Artefact", "DeployError", "Target"],
        ".deployment": ["Deployed", "Deployment", "deploy"],
        ".sparse_inference": [
            "LayerGain",
            "SparseModel",
            "load_sparse",
            "save_sparse",
            "to_sparse",
        ],
    },
)
