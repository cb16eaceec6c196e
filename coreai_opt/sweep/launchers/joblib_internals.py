"""Private names of Hydra's joblib launcher; known to work in hydra-joblib-launcher 1.2.0.

Imported where joblib is used: the module needs joblib.
"""

from hydra_plugins.hydra_joblib_launcher import _core

from coreai_opt._private_names import private_name

__all__ = ["execute_job"]

execute_job = private_name(_core, "execute_job", "hydra-joblib-launcher 1.2.0, below 1.3")
