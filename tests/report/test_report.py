"""The command ``report``: what it prints and writes, whatever the runs are called."""

import copy
import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from coreai_opt.report.__main__ import main
from tests.helpers.synthetic_records import (
    HOSTILE,
    hostile_sweep,
    make_record,
    make_sweep,
    write_run,
    write_sweep_file,
)


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and their text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def data(self) -> Any:
        return json.loads(next(text for text in self.texts if text.startswith('{"metric"')))


def report(*words: str | Path) -> None:
    main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    with pytest.raises(SystemExit) as stopped:
        report(*words)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


def test_a_sweep_gets_a_leaderboard_a_table_a_page_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sweep(tmp_path / "s")
    report(tmp_path / "s")
    lines = capsys.readouterr().out.splitlines()
    ranks = [words[0] for line in lines if (words := line.split()) and words[0] in ("dense", "1")]
    assert ranks == ["dense", "1"]
    assert "33 runs: 33 completed" in lines
    written = {str(path.relative_to(tmp_path / "s")) for path in (tmp_path / "s").rglob("*.*")}
    charts = ("accuracy", "heatmap", "parallel", "importance", "schedules", "layers")
    figures = {f"figures/{name}.{kind}" for name in charts for kind in ("png", "svg")}
    assert {"report.html", "results.csv", *figures} <= written
    assert (tmp_path / "s/figures/accuracy.svg").read_text().rstrip().endswith("</svg>")
    assert (tmp_path / "s/figures/accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_an_n_m_pattern_is_said_in_the_terminal_and_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record()
    spec = record["config"]["pruning"]["global_config"]["op_state_spec"]["weight"]
    spec["pruning_scheme"] = {"type": "n_m", "n": 1, "m": 4}
    write_run(tmp_path / "a", record)
    report(tmp_path, "--no-figures")
    sentence = "pattern 1:4, n of m kept, 75 % zeros"
    assert sentence in capsys.readouterr().out.splitlines()
    assert sentence in Page(tmp_path / "report.html").texts


def test_the_table_has_all_runs_with_their_numbers(tmp_path: Path) -> None:
    make_sweep(tmp_path, runs=4)
    failed = make_record(status="failed", seed=9, power=1, total_iters=100, target=0.5)
    write_run(tmp_path / "failed", failed)
    report(tmp_path, "--no-figures")
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert len(rows) == 5
    pruned = next(row for row in rows.values() if row["power"] == "1" and row["compression"])
    assert float(pruned["compression"]) == 266_610 / (133_100 + 410)
    assert float(pruned["speedup"]) == 2.0
    assert float(pruned["test/accuracy"]) == pytest.approx(0.95, abs=0.02)
    assert rows["failed"]["status"] == "failed"
    assert rows["failed"]["error_message"] == "it broke"
    assert not (tmp_path / "figures").exists()


def test_in_mid_sweep_what_has_not_come_yet_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", make_record(status="running", seed=1), is_alive=True)
    write_run(tmp_path / "b", make_record(status="running", seed=2))
    point = {"folder": "c", "overrides": ["schedule=poly", "seed=3"]}
    write_sweep_file(tmp_path, {"0" * 16: point}, ["power"])
    report(tmp_path, "--metric", "any/metric")
    told = capsys.readouterr().out
    assert "no run has completed yet" in told
    assert "2 runs: 1 running, 1 interrupted, 1 pending" in told
    page = Page(tmp_path / "report.html")
    statuses = [have["data-status"] for tag, have in page.elements if "data-status" in have]
    assert statuses == ["running", "interrupted", "pending"]
    assert page.data["accuracy"] is None


def test_failures_are_shown_with_the_command_that_runs_each_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record(status="failed", overrides=["model.name='a b'", "seed=1"])
    write_run(tmp_path / "it failed", record)
    report(tmp_path, "--no-figures")
    told = capsys.readouterr().out.splitlines()
    at = told.index("failed: it failed: RuntimeError: it broke")
    assert told[at + 1] == """  python train.py 'model.name='"'"'a b'"'"'' seed=1"""
    page = Page(tmp_path / "report.html")
    assert """python train.py 'model.name='"'"'a b'"'"'' seed=1""" in page.texts
    assert "Traceback (most recent call last):\nRuntimeError: it broke" in page.texts


def test_html_in_names_is_text_on_the_page(tmp_path: Path) -> None:
    root = hostile_sweep(tmp_path / HOSTILE.replace("/", ""))
    report(root, "--metric", HOSTILE)
    page = Page(root / "report.html")
    assert page.count("img") == 0
    assert page.count("script") == 3
    assert [name for _, have in page.elements for name in have if name.startswith("on")] == []
    assert HOSTILE in page.texts
    assert page.data["metric"] == HOSTILE
    raw = (root / "report.html").read_text(encoding="utf-8")
    embedded = raw[raw.index('id="data">') :].partition("</script>")[0]
    assert set("<>&") & set(embedded.removeprefix('id="data">')) == set()


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [None]},
        *(pytest.param(one, marks=pytest.mark.slow) for one in (-1, 1e300, "text", [1], True)),
    ],
    ids=str,
)
def test_records_with_anything_in_the_place_of_anything_are_reported(
    tmp_path: Path, value: Any
) -> None:
    make_sweep(tmp_path, runs=6)

    def spoilt(node: Any) -> Iterator[Any]:
        """Yield copies of a record in each of which one value is replaced."""
        for key in node if isinstance(node, dict) else range(len(node)):
            changed = copy.copy(node)
            changed[key] = value
            yield changed
            if isinstance(node[key], dict | list):
                for inner in spoilt(node[key]):
                    yield {**node, key: inner} if isinstance(node, dict) else [inner]

    record = make_record(0.5, power=2, total_iters=300)
    for number, wrong in enumerate(spoilt(record)):
        # A hash of its own each, or all but one would be left out.
        if wrong["config_hash"] == record["config_hash"]:
            wrong = {**wrong, "config_hash": str(number)}
        write_run(tmp_path / f"wrong {number}", wrong)
    report(tmp_path)
    assert (tmp_path / "figures" / "schedules.png").is_file()
    assert (tmp_path / "report.html").is_file()


def test_links_lead_to_the_run_directories(tmp_path: Path) -> None:
    root = tmp_path / "it's a=b, ü #1?%41"
    folder = write_run(root / "n=1 & 'x' 100%", make_record())
    write_run(root / "a:b", make_record(seed=2))
    report(root, "--out", tmp_path / "out", "--no-figures")
    links = [
        have["href"] or ""
        for tag, have in Page(tmp_path / "out/report.html").elements
        if tag == "a" and not str(have["href"]).startswith("#")
    ]
    found = {(tmp_path / "out" / unquote(link)).resolve() for link in links}
    assert found == {folder, root / "a:b"}
    assert all(re.fullmatch(r"[\w./%~-]+", link) for link in links)


def test_control_characters_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a\x1b[31mred\nline", make_record(overrides=["x=\x1b]0;title\x07"]))
    error = {"type": "E", "message": "\x1b[2J[bold]gone", "traceback": ""}
    write_run(tmp_path / "b", make_record(status="failed", seed=2, changes={"error": error}))
    report(tmp_path, "--no-figures")
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\\x1b[2J[bold]gone" in told


def test_a_name_that_is_no_text_is_shown_by_its_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "a\udcff"
    try:
        write_run(folder, make_record())
    except OSError as error:
        pytest.skip(f"this file system takes no such name: {error}")
    report(tmp_path, "--no-figures")
    page = Page(tmp_path / "report.html")
    assert "a\\udcff" in page.texts
    assert ("a", {"href": "a%FF/"}) in page.elements


def test_several_sweeps_are_reported_together_into_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a", "b")):
        write_run(tmp_path / name / "0", make_record(0.5 + number / 4, seed=number))
    report("a", "b")
    assert (tmp_path / "report" / "report.html").is_file()
    assert not (tmp_path / "a" / "report.html").exists()
    told = capsys.readouterr().out
    assert re.search(r"rank +sweep +seeds", told)
    assert re.search(r"^ 1 +b +1 +75.00 %", told, re.MULTILINE)


def test_a_report_can_be_made_again_where_it_lies(tmp_path: Path) -> None:
    make_sweep(tmp_path, runs=6)
    report(tmp_path, "--no-figures")
    before = (tmp_path / "results.csv").read_text()
    report(tmp_path, "--no-figures")
    assert (tmp_path / "results.csv").read_text() == before
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_a_chart_without_data_is_a_sentence(tmp_path: Path) -> None:
    write_run(tmp_path / "0", make_record(0.5, schedule=None))
    report(tmp_path)
    texts = " ".join(Page(tmp_path / "report.html").texts)
    assert "A heat map needs two knobs with two values each" in texts
    assert "There is no pruning schedule to draw." in texts
    assert not (tmp_path / "figures" / "heatmap.png").exists()


def test_where_runs_differ_in_their_environment_is_said(tmp_path: Path) -> None:
    for seed, sha in ((1, "a" * 40), (2, "b" * 40)):
        git = {"sha": sha, "dirty": False, "changes": None}
        write_run(tmp_path / str(seed), make_record(0.5, seed=seed, changes={"git": git}))
    report(tmp_path, "--no-figures")
    texts = Page(tmp_path / "report.html").texts
    assert any(text.startswith("The runs differ in commit:") for text in texts)
    assert any("aaaaaaaaaaaa: 1" in text for text in texts)


@pytest.mark.slow
def test_a_thousand_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_sweep(tmp_path, runs=1000)
    report(tmp_path, "--no-figures")
    assert "1,000 runs: 1,000 completed" in capsys.readouterr().out
    page = Page(tmp_path / "report.html")
    assert sum("data-status" in have for _, have in page.elements) == 1000


def test_a_directory_without_a_record_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, tmp_path)
    assert told.startswith(f"error: there is no record in {str(tmp_path)!r}; allowed: ")
    assert "there is no such directory; allowed" in refused(capsys, tmp_path / "gone")
    (tmp_path / "file").touch()
    assert "is no directory; allowed" in refused(capsys, tmp_path / "file")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--metric", "f1"], "no completed run has the metric 'f1'; allowed: "),
        (["--knobs", "power"], "'power'; allowed: two knobs, as in total_iters,power"),
        (["--knobs", "power,rate"], "'rate' does not vary; allowed: "),
        (["--mode", "best"], "invalid choice: 'best'"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    make_sweep(tmp_path)
    assert sentence in refused(capsys, tmp_path, *words)
    assert not (tmp_path / "report.html").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sweep(tmp_path, runs=4)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        write(path, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    told = refused(capsys, tmp_path)
    assert told == f"error: {str(tmp_path)!r} cannot be written to: No space left on device\n"
    assert not (tmp_path / "results.csv").exists()
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_an_output_folder_that_is_a_file_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sweep(tmp_path / "s", runs=4)
    (tmp_path / "file").touch()
    assert "cannot be written to: File exists" in refused(
        capsys, tmp_path / "s", "--out", tmp_path / "file"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "missing", "there"),
    [
        ("plotly", "report.html", "figures/accuracy.png"),
        ("jinja2", "report.html", "figures/accuracy.png"),
        ("matplotlib", "figures/accuracy.png", "report.html"),
        ("sklearn", "figures/importance.png", "report.html"),
        ("scipy", "figures/comparison.png", "report.html"),
    ],
)
def test_without_a_package_the_rest_comes_with_what_to_install(
    tmp_path: Path, package: str, missing: str, there: str
) -> None:
    make_sweep(tmp_path)
    # In a process of its own: this one has imported the package already.
    program = (
        f"import sys; sys.modules[{package!r}] = None; "
        f"from coreai_opt.report.__main__ import main; main([{str(tmp_path)!r}])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert f"{package} is not installed: pip install 'hydra-coreai-opt[report]'" in told
    assert (tmp_path / "results.csv").is_file()
    assert not (tmp_path / missing).exists()
    assert (tmp_path / there).is_file()
