"""Command line: arguments, help, exit codes, and Python's way to the same commands."""
