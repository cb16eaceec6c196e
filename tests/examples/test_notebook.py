"""The notebook: clean as it is committed, and every cell of it runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.examples import EXAMPLES, NOTEBOOK

NOTEBOOKS = sorted(EXAMPLES.rglob("*.ipynb"))

Cell = dict[str, Any]


def cells_of(notebook: Path) -> list[Cell]:
    cells: list[Cell] = json.loads(notebook.read_text())["cells"]
    return cells


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_nothing_of_a_run_is_committed(notebook: Path) -> None:
    cells = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert [cell["id"] for cell in cells if cell["outputs"]] == []
    assert [cell["id"] for cell in cells if cell["execution_count"] is not None] == []
    # Which Python has run it, and other traces.
    assert json.loads(notebook.read_text())["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert {tuple(cell["metadata"]) for cell in cells} == {()}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_its_links_lead_to_files(notebook: Path) -> None:
    texts = ["".join(cell["source"]) for cell in cells_of(notebook)]
    targets = [target for text in texts for target in re.findall(r"\]\(([^)#\s]+)", text)]
    assert len(targets) > 3
    assert [target for target in targets if not (EXAMPLES / target).exists()] == []


def execute(folder: Path) -> list[Cell]:
    """Run the notebook in a folder by the documented command, and return its code cells."""
    program, verb, notebook = shlex.split(NOTEBOOK)
    shutil.copy(EXAMPLES.parent / notebook, folder)
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        [scripts / program, verb, Path(notebook).name, "--output=done.ipynb"],
        cwd=folder,
        env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [cell for cell in cells_of(folder / "done.ipynb") if cell["cell_type"] == "code"]


def shown(cells: list[Cell], of: str) -> list[str]:
    """Return what the cell that holds these words has shown, as text."""
    (cell,) = [cell for cell in cells if of in "".join(cell["source"])]
    data = [output["data"] for output in cell["outputs"] if "data" in output]
    streams = ["".join(output["text"]) for output in cell["outputs"] if "text" in output]
    html = ["".join(one.get("text/html", one.get("text/plain", ""))) for one in data]
    return [*streams, *html]


def table(html: str) -> list[list[str]]:
    """Return the rows of an HTML table that pandas has made, without its head."""
    rows = re.findall(r"<tr>(.*?)</tr>", html.partition("<tbody>")[2], re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in rows]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_cell_runs_and_what_it_says_is_true(work: Path) -> None:
    pytest.importorskip("pandas", reason="needs the extra pandas")
    cells = execute(work)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    written = json.dumps(cells)
    assert written.count("image/png") == 2

    # Three trainings: accuracies observed are 95.5, 94.6 and 95.5, guessing has 10.
    rows = {row[0]: row[1:] for row in table(shown(cells, "def row")[-1])}
    assert list(rows) == ["dense", "at once", "ramp"]
    assert {name: row[1:3] for name, row in rows.items()} == {
        "dense": ["0.00%", "26,122"],
        "at once": ["95.00%", "1,560"],
        "ramp": ["95.00%", "1,560"],
    }
    for name, floor in (("dense", 92), ("at once", 88), ("ramp", 91)):
        assert float(rows[name][0].rstrip("%")) > floor, name

    # 95 % of 8,192, 16,384 and 1,280 weights, rounded down.
    assert shown(cells, "torch.save")[0].endswith(f": {7782 + 15564 + 1216:,} zeros\n")

    # Of the sweep: schedule, seed, status, sparsity and so on, behind the index.
    runs = table(shown(cells, "runs = sweep(")[-1])
    points = {(run[1], run[2]) for run in runs}
    assert points == {(name, seed) for name in ("constant", "none", "poly") for seed in "12"}
    assert {run[3] for run in runs} == {"completed"}
    assert {(run[1] == "none", float(run[4])) for run in runs} == {(True, 0.0), (False, 0.95)}
    means = {row[0]: float(row[3]) for row in table(shown(cells, "runs = load(")[-1])}
    assert means["constant"] < means["poly"]
    assert min(means["none"], means["poly"]) > 0.9
