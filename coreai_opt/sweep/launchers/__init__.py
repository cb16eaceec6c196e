"""Handing runs to Hydra's launchers: joblib, SLURM, Ray, and whatever else is installed."""
