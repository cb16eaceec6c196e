"""Private names of Hydra's Ray launcher; known to work in hydra-ray-launcher 1.2.2.

Imported where Ray is used: the module needs Ray.
"""

from hydra_plugins.hydra_ray_launcher import _launcher_util

from coreai_opt._private_names import private_name

__all__ = ["launch_job_on_ray"]

launch_job_on_ray = private_name(
    _launcher_util, "launch_job_on_ray", "hydra-ray-launcher 1.2.2, below 1.3"
)
