"""Report on sweeps: tables, pages and figures from the records on disk."""
