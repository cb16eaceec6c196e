"""Pruning in place: masks, dense values and clock lie beside a model that stays as it is."""
