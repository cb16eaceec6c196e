"""Model: which of its weights are pruned, and what it weighs."""
