"""Tests of the adapters from Lightning's hooks to the pruning library."""
