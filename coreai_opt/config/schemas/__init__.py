"""Schemas of config nodes: fields, ranges and defaults, from which Hydra's nodes are made."""
