"""Report as figures in files."""
