"""What a command would do: its runs, ramps, curves and time, before anything is run."""
