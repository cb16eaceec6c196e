"""Index of regular expressions over module names: fast search for those that match a name.

Most patterns of a config are plain names, one for each layer of a deep model: to try each pattern
on each name would take a time that grows with the square.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

SPECIAL = frozenset(".^$*+?{}[]|()\\")
QUANTIFIERS = frozenset("*+?{")
HOLE = "\0"  # in place of a dot, which stands for any character but the end of a line


class NamePatterns:
    """Regular expressions in an order; each is compiled once, plain names are looked up.

    Args:
        patterns: regular expressions; those that are not valid raise ``re.error``.

    Example:
        >>> patterns = NamePatterns(["body.0", r"body\\..*", "head"])
        >>> patterns.matching("body.0"), patterns.first("body.1"), patterns.first("tail")
        ([0, 1], 'body\\\\..*', None)
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = list(patterns)
        self._plain: dict[str, list[int]] = {}  # several are one name: a.b and a\.b
        self._holes: dict[int, set[tuple[int, ...]]] = {}
        self._others: dict[str, list[tuple[int, re.Pattern[str]]]] = {}
        for order, pattern in enumerate(self.patterns):
            literal, is_whole = _literal(pattern)
            if is_whole:
                self._plain.setdefault(literal, []).append(order)
                holes = tuple(place for place, letter in enumerate(literal) if letter == HOLE)
                self._holes.setdefault(len(literal), set()).add(holes)
            else:
                prefix = literal.partition(HOLE)[0]
                self._others.setdefault(prefix, []).append((order, re.compile(pattern)))
        self._prefixes = sorted({len(prefix) for prefix in self._others})

    def matching(self, name: str) -> list[int]:
        """Return the places of the patterns that match a whole name, in their order."""
        found: list[int] = []
        for holes in self._holes.get(len(name), ()):
            if not any(name[place] == "\n" for place in holes):
                letters = list(name)
                for place in holes:
                    letters[place] = HOLE
                found += self._plain.get("".join(letters), ())
        for length in self._prefixes:
            among = self._others.get(name[:length], ()) if length <= len(name) else ()
            found += [order for order, pattern in among if pattern.fullmatch(name)]
        return sorted(found)

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


def _literal(pattern: str) -> tuple[str, bool]:
    """Return the characters that each match begins with, and whether they are all of it.

    Example:
        >>> _literal("a.b"), _literal(r"a\\.b"), _literal("ab*"), _literal("a|b")
        (('a\\x00b', True), ('a.b', True), ('a', False), ('', False))
    """
    if "|" in pattern or HOLE in pattern:
        return "", False
    letters: list[str] = []
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        if letter == "\\" and place + 1 < len(pattern) and not pattern[place + 1].isalnum():
            letters.append(pattern[place + 1])
            place += 2
        elif letter in SPECIAL - {"."}:
            # A quantifier is about the character before it, which then need not be there.
            return "".join(letters[:-1] if letter in QUANTIFIERS else letters), False
        else:
            letters.append(HOLE if letter == "." else letter)
            place += 1
    return "".join(letters), True
