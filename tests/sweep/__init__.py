"""Tests of sweeps and of their report."""
