"""The apps are run by tests/integration/test_apps.py, and nothing in them is a test."""

collect_ignore_glob = ["*"]
