"""Regular expressions over names: the same answers as trying each of them each time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coreai_opt.pruning import MagnitudePrunerConfig, ModuleMagnitudePrunerConfig
from coreai_opt.pruning.config._patterns import NamePatterns
from coreai_opt.pruning.model.targets import find_targets
from coreai_opt.pruning.spec import PruningSpec

PARTS = [
    "a",
    "b",
    "0",
    "1",
    ".",
    r"\.",
    "_",
    "-",
    "*",
    "+",
    "?",
    "|",
    "(b)",
    "[01]",
    r"\d",
    "^",
    "$",
]
PATTERNS = st.lists(st.lists(st.sampled_from(PARTS), max_size=6).map("".join), max_size=8)
NAMES = st.lists(st.text("ab01._-\n", max_size=6), max_size=8)


def is_valid(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


@given(PATTERNS.map(lambda patterns: [one for one in patterns if is_valid(one)]), NAMES)
def test_answers_are_those_of_trying_each_pattern(patterns: list[str], names: list[str]) -> None:
    known = NamePatterns(patterns)
    for name in names:
        expected = [n for n, one in enumerate(patterns) if re.fullmatch(one, name)]
        assert known.matching(name) == expected
    tried = [one for one in patterns if any(re.fullmatch(one, name) for name in names)]
    assert known.used(names) == set(tried)
    assert known.first(*names) == next(iter(tried), None)


@pytest.mark.parametrize(
    ("patterns", "name", "first"),
    [
        (["0.a", "0xa"], "0xa", "0.a"),  # a dot stands for any character
        ([r"0\.a", "0xa"], "0xa", "0xa"),
        (["0xa", "0.a"], "0xa", "0xa"),
        (["0.a"], "0\na", None),
        (["(?i)HEAD", "head"], "head", "(?i)HEAD"),
        (["body", "body.*"], "body.0", "body.*"),
        (["bodyx*", "body"], "body", "bodyx*"),
        (["a|body", "body"], "body", "a|body"),
        (["ody"], "body", None),
    ],
)
def test_first_pattern_that_matches_counts(
    patterns: list[str], name: str, first: str | None
) -> None:
    assert NamePatterns(patterns).first(name) == first


@pytest.mark.parametrize(
    "form", ["{}", r"0\.{}", r"0\.{}(\..*)?"], ids=["plain", "escaped", "regex"]
)
def test_a_thousand_names_are_matched(form: str) -> None:
    layers = nn.Sequential(*(nn.Linear(1, 1) for _ in range(1000)))
    model = layers if form == "{}" else nn.Sequential(layers)
    configs = {
        form.format(number): ModuleMagnitudePrunerConfig(
            op_state_spec={"weight": PruningSpec(target_sparsity=number / 1000)}
        )
        for number in range(1000)
    }
    config = MagnitudePrunerConfig(module_name_configs=configs)
    found = find_targets(model, config)
    shares = [target.spec.target_sparsity for target in found.targets]
    assert shares == [number / 1000 for number in range(1000)]
