"""Training of one run: build, fit, test, export."""
