"""One job of any Hydra app: its record, going on, and what its Trainers tell."""
