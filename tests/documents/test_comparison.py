"""What docs/comparison.md says of tools that are installed here; where one fails, it is wrong."""

import re
from importlib.metadata import PackageNotFoundError, version

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "comparison.md").read_text()
# What a row of the table is called on PyPI, where that is another name.
DISTRIBUTIONS = {
    "`torch.nn.utils.prune`": "torch",
    "Lightning `ModelPruning`": "pytorch-lightning",
    "`torch.ao.pruning`": "torch",
    "SparseML": "sparseml",
    "LLM Compressor": "llmcompressor",
    "Neural Compressor": "neural-compressor",
    "TensorFlow Model Optimization": "tensorflow-model-optimization",
    "PQuantML": "pquant-ml",
    "modelopt": "nvidia-modelopt",
    "Pruna": "pruna",
    "mushin": "mushin-py",
}
NEW = [
    "coreai-opt",
    "fasterai",
    "sparsimony",
    "PQuantML",
    "torch-kirigami",
    "modelopt",
    "Pruna",
    "mushin",
]


def rows() -> list[list[str]]:
    """Return the cells of the table, without its header."""
    table = re.findall(r"^\| .* \|$", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


def test_every_tool_has_a_whole_row_and_a_paragraph() -> None:
    tools = [row[0] for row in rows()]
    assert len(set(tools)) == len(tools) >= 20
    assert {len(row) for row in rows()} == {10}
    named = {tool.removeprefix("Lightning ") for tool in tools} - {"this project"}
    assert {tool for tool in named if f"\n\n**{tool}**" not in PAGE} == set()
    assert set(NEW) <= named


@pytest.mark.parametrize("tool", NEW)
def test_what_was_read_is_said_under_its_date(tool: str) -> None:
    part = PAGE.partition("\n## Read on 2026-11-30\n")[2].partition("\n## ")[0]
    paragraph = part.partition(f"\n**{tool}**")[2].partition("\n\n")[0]
    assert re.search(r"\bRead(:| were)\s", paragraph), paragraph


def test_what_is_installed_has_the_version_of_the_page() -> None:
    checked = 0
    for tool, told, *_ in rows()[1:]:
        try:
            found = version(DISTRIBUTIONS.get(tool, tool))
        except PackageNotFoundError:
            continue
        assert found.partition("+")[0] == told, tool
        checked += 1
    assert checked >= 3  # torch twice, and Lightning
