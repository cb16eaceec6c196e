"""Scheduling: groups of tensors under one schedule, their clock and their shares."""
