"""Names of directories: no sign that a shell or a file system minds, never too long, stable."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreai_opt.sweep.names import run_folder, slug, sweep_name

HASH = "0123456789abcdef"

FOLDERS = {
    "sorted": ({"total_iters": "200", "power": "1"}, "power-1_total_iters-200_01234567"),
    "nothing varies": ({}, "01234567"),
    "a path": ({"init_from": "a/b c.pt"}, "init_from-a-b-c.pt_01234567"),
    "a list": ({"milestones": "[100,200]"}, "milestones-100-200_01234567"),
    "quotes and letters": ({"logger": "'ü=1'"}, "logger--1_01234567"),
    "minus": ({"optimizer.lr": "-1e-3"}, "optimizer.lr--1e-3_01234567"),
}


@pytest.mark.parametrize(("varied", "name"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_says_what_varies(varied: dict[str, str], name: str) -> None:
    assert run_folder(varied, HASH) == name


@given(st.dictionaries(st.text(min_size=1, max_size=90), st.text(max_size=200), max_size=5))
def test_a_folder_is_harmless_whatever_is_varied(varied: dict[str, str]) -> None:
    name = run_folder(varied, HASH)
    assert re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._+-]*_)?01234567", name)
    assert len(name) <= 100


@given(st.text())
def test_a_slug_names_no_other_place(text: str) -> None:
    made = slug(text)
    assert made not in (".", "..")
    assert not made.startswith((".", "-"))
    assert len(made) <= 100


def test_a_sweep_is_named_by_its_knobs_and_what_they_have_in_common() -> None:
    one = sweep_name(["power", "total_iters"], {"seed": 1.0, "model.width": 8.0})
    assert one == sweep_name(["total_iters", "power"], {"model.width": 8.0, "seed": 1.0})
    assert re.fullmatch(r"power-total_iters-[0-9a-f]{6}", one)
    assert one != sweep_name(["power", "total_iters"], {"seed": 2.0, "model.width": 8.0})
    assert len(sweep_name([f"knob_{number}" for number in range(60)], {})) == 100
