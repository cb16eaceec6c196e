"""Report as a page: written once, or served while a sweep runs."""
