"""Tab completion: Hydra's own, without what nobody types."""

from hydra.plugins.completion_plugin import CompletionPlugin

__all__ = ["hide_schemas"]

SCHEMA = "base_"


def hide_schemas() -> None:
    """Leave the ``base_*`` nodes, which options begin with, out of what Hydra suggests."""
    query = CompletionPlugin._query_config_groups

    def query_options(
        self: CompletionPlugin, word: str, config_name: str | None, words: list[str]
    ) -> tuple[list[str], bool]:
        found, is_exact = query(self, word, config_name, words)
        typed = word.rpartition("=")[2]
        if typed.startswith(SCHEMA):
            return found, is_exact
        shown = [one for one in found if not one.rpartition("=")[2].startswith(SCHEMA)]
        return shown, is_exact

    CompletionPlugin._query_config_groups = query_options  # type: ignore[method-assign]
