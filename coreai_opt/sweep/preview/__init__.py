"""Preview of a command: its runs, ramps, curves and time."""
