"""The package coreai_opt.huggingface and its page."""

import re
from pathlib import Path
from typing import Any

import pytest

from coreai_opt import huggingface
from tests.conftest import ROOT
from tests.helpers.huggingface import MARKS

pytestmark = MARKS


def test_the_package_exports_sorted_names_that_are_there() -> None:
    assert huggingface.__all__ == sorted(huggingface.__all__) == dir(huggingface)
    for name in huggingface.__all__:
        assert getattr(huggingface, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = huggingface.nothing


@pytest.mark.timeout(300)
def test_the_page_is_a_whole_training_without_its_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "huggingface.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    lines = code.splitlines()
    added = [line for line in lines if line.endswith("# pruning")]
    assert len(added) == 5
    monkeypatch.chdir(tmp_path)
    kept_lines = (lines, [line for line in lines if line not in added])
    for kept, expected in zip(kept_lines, (0.9, 0.0), strict=True):
        names: dict[str, Any] = {}
        exec(compile("\n".join(kept), "documented", "exec"), names)
        assert float(names["sparsity"]) == pytest.approx(expected, abs=1e-3)
        assert float(names["accuracy"]) > 0.8
