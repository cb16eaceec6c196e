"""Pruning in any Hydra and Lightning app: the group, the knobs, the job and the Trainer."""
