"""Schedules at work: which tensors share one, how far they are, what each gets."""
