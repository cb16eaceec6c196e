"""What docs/differences.md says in numbers: the curves of power, and what n of m counts."""

import re

import pytest

from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.spec import NMStructured
from tests.conftest import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["differences.md", "schedules.md"])
def test_the_curves_of_two_powers_are_those_of_the_code(name: str) -> None:
    table = page(name).partition("| step | power 1 | power 3 |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", table, re.MULTILINE)
    assert [int(step) for step, *_ in rows] == [0, 3, 6, 9]
    for power, column in ((1.0, 1), (3.0, 2)):
        ramp = PolynomialDecaySchedule(total_iters=10, power=power)
        found = [f"{ramp.compute_sparsity(int(row[0]), 0.9):.3f}" for row in rows]
        assert found == [row[column] for row in rows]


def test_what_n_of_m_counts_is_what_the_page_says() -> None:
    rows = re.findall(r"^\| (\d):(\d) \| (\d) of \2 \| (\d+) % \|$", page("differences.md"), re.M)
    assert len(rows) == 3
    for n, m, kept, zeros in rows:
        scheme = NMStructured(n=int(n), m=int(m))
        pruned = scheme.pruned_elements((4, 8), 1.0)
        assert (kept, int(zeros)) == (n, 100 * pruned / 32)
