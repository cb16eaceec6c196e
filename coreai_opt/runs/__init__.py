"""Run directory: paths, record, sign of life, lock, and what a later run goes on from."""
