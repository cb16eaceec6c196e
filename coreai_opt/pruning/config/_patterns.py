"""Regular expressions over module names: each is compiled once, and tried once on a name."""

import re
from collections.abc import Iterable
from functools import lru_cache


class NamePatterns:
    """Regular expressions in an order; those that are not valid raise ``re.error``.

    Example:
        >>> patterns = NamePatterns(["body.0", r"body\\..*", "head"])
        >>> patterns.matching("body.0"), patterns.first("body.1"), patterns.first("tail")
        ([0, 1], 'body\\\\..*', None)
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = list(patterns)
        self._compiled = [re.compile(pattern) for pattern in self.patterns]
        self._found: dict[str, list[int]] = {}

    def matching(self, name: str) -> list[int]:
        """Return the places of the patterns that match a whole name, in their order."""
        if name not in self._found:
            tried = enumerate(self._compiled)
            self._found[name] = [place for place, one in tried if one.fullmatch(name)]
        return self._found[name]

    def first(self, *names: str) -> str | None:
        """Return the first pattern that matches one of the names, None for none."""
        places = [place for name in names for place in self.matching(name)[:1]]
        return self.patterns[min(places)] if places else None

    def used(self, names: Iterable[str]) -> set[str]:
        """Return the patterns that match at least one of the names."""
        return {self.patterns[place] for name in set(names) for place in self.matching(name)}


@lru_cache(maxsize=64)
def patterns_of(patterns: tuple[str, ...]) -> NamePatterns:
    """Return regular expressions, compiled once for as long as they are in use."""
    return NamePatterns(patterns)
