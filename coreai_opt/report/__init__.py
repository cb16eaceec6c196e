"""The report of one or several sweeps, from the records on disk."""
