"""Comparison of runs: pairs, differences, which knob mattered, and whether they are enough."""
