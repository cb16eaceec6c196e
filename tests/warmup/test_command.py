"""The command that shows a store of trunks and removes from it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coreai_opt.warmup import store as trunk_store
from coreai_opt.warmup.claim import Claim
from coreai_opt.warmup.command import _age, _size, main
from coreai_opt.warmup.store import TrunkStore
from tests.conftest import ROOT

IDS = [letter * 16 for letter in "0123"]

Say = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "it's a=b, ü [red]"


@pytest.fixture
def say(root: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Give arguments, return the exit code and the lines that are printed."""

    def run(*words: str, root: Path = root) -> tuple[int, list[str]]:
        code = 0
        try:
            main([*words, "--root", str(root)])
        except SystemExit as error:
            code = int(error.code or 0)
        said = capsys.readouterr()
        return code, (said.out + said.err).splitlines()

    return run


def put(root: Path, id: str, made_by: str = "runs/1", size: int = 2_000_000) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"x" * size)

    TrunkStore(root).put(id, write, steps=4000, seconds=12.34, made_by=made_by)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def rows(lines: list[str]) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells if row}


def test_the_table_says_what_there_is(root: Path, say: Say) -> None:
    put(root, IDS[0], made_by="[red]runs/1[/red]")
    TrunkStore(root).decline(IDS[1], "the schedule jumped over step 40")
    put(root, IDS[2])
    (root / IDS[2] / "entry.json").unlink()
    with Claim(root / f"{IDS[3]}.claim") as claim:
        claim.step, claim.total_steps = 1500, 4000
        claim._publish()
        code, lines = say("list")
    table = rows(lines)
    assert code == 0
    assert any(str(root) in line for line in lines)
    steps, seconds, size, _, maker, state = table[IDS[0]]
    assert (steps, seconds, size) == ("4,000", "12.3", "2.0 MB")
    assert (maker, state) == ("[red]runs/1[/red]", "ok")
    assert table[IDS[1]][-2:] == ["the schedule jumped over step 40", "declined"]
    assert table[IDS[2]][-2:] == ["it has no entry.json", "incomplete"]
    assert table[IDS[3]][-2].startswith(f"process {os.getpid()} on ")
    assert table[IDS[3]][-2].endswith(", step 1,500 of 4,000")
    assert table[IDS[3]][-1] == "claimed"


@pytest.mark.parametrize("words", [["list"], ["prune", "--all"], ["prune", "--id", "x"]])
def test_a_store_without_trunks_is_one_sentence(root: Path, say: Say, words: list[str]) -> None:
    said = f"{str(root)!r} is not there: no sweep has made a trunk in it"
    assert say(*words) == (0, [said])
    root.mkdir()
    assert say(*words) == (0, [f"{str(root)!r} has no trunks"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["prune"], "nothing is selected; give --older-than-days N, --id ID, or --all"),
        (["prune", "--dry-run"], "nothing is selected; give"),
        (["prune", "--all", "--id", IDS[0]], "--all and --id contradict each other; give one"),
        (["prune", "--older-than-days", "-1"], "--older-than-days is -1; allowed: 0 or more"),
        (["prune", "--older-than-days", "nan"], "--older-than-days is nan; allowed: 0 or more"),
        (["prune", "--older-than-days", "x"], "invalid float value: 'x'"),
        (["prune", "--id", "ab"], f"no trunk 'ab' in .*; there are: {IDS[0]}"),
        (["prune", "--id", "../x"], "no trunk '../x' in"),
        (["clean"], "invalid choice: 'clean'"),
        (["list", "--all"], "unrecognized arguments: --all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_one_sentence_and_remove_nothing(
    root: Path, say: Say, words: list[str], sentence: str
) -> None:
    put(root, IDS[0])
    code, lines = say(*words)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("error: ")
    assert re.search(sentence, lines[0])
    assert names(root) == [IDS[0]]


def test_a_store_that_is_a_file_is_one_sentence(tmp_path: Path, say: Say) -> None:
    (tmp_path / "file").write_text("x")
    for words in (["list"], ["prune", "--all"]):
        code, lines = say(*words, root=tmp_path / "file")
        assert (code, len(lines)) == (1, 1)
        assert lines[0].endswith("cannot be read: Not a directory")


def test_prune_removes_by_id(root: Path, say: Say) -> None:
    for id in IDS:
        put(root, id)
    code, lines = say("prune", "--id", IDS[1], IDS[2], "--id", IDS[3])
    assert code == 0
    assert [line.split()[1] for line in lines[:-1]] == IDS[1:]
    assert lines[-1] == "3 trunks, 6.0 MB freed"
    assert names(root) == IDS[:1]


def test_prune_removes_what_is_older(root: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Clock":
            return cls.fromtimestamp(time.time() - 3 * 86400, UTC)

    with monkeypatch.context() as patch:
        patch.setattr(trunk_store, "datetime", Clock)
        put(root, IDS[0])
    put(root, IDS[1])
    # Half an entry has no time of its own but that of its files.
    for id, age in ((IDS[2], timedelta(days=3)), (IDS[3], timedelta(days=1))):
        put(root, id)
        (root / id / "entry.json").unlink()
        moment = (datetime.now() - age).timestamp()
        for path in (root / id / "trunk.ckpt", root / id):
            os.utime(path, (moment, moment))
    before = names(root)
    code, lines = say("prune", "--older-than-days", "2", "--dry-run")
    assert (code, names(root)) == (0, before)
    assert [line.split()[3] for line in lines[:-1]] == [IDS[0], IDS[2]]
    assert lines[-1] == "2 trunks, 4.0 MB would be freed"
    assert say("prune", "--older-than-days", "2", "--id", IDS[0], IDS[1])[0] == 0
    assert names(root) == IDS[1:]
    assert say("prune", "--older-than-days", "2")[0] == 0
    assert names(root) == [IDS[1], IDS[3]]


def test_what_is_being_made_is_kept_unless_forced(root: Path, say: Say) -> None:
    put(root, IDS[0])
    with Claim(root / f"{IDS[0]}.claim"), Claim(root / f"{IDS[1]}.claim"):
        code, lines = say("prune", "--all")
        assert code == 0
        assert [line.split()[1] for line in lines[:2]] == IDS[:2]
        assert all(line.startswith("kept: ") and "--force" in line for line in lines[:2])
        assert lines[2:] == ["0 trunks, 0 B freed"]
        assert names(root) == [IDS[0], f"{IDS[0]}.claim", f"{IDS[1]}.claim"]
        assert say("prune", "--all", "--force")[0] == 0
        assert names(root) == []


def test_only_what_is_the_stores_own_is_removed(tmp_path: Path, say: Say) -> None:
    """A directory given by mistake: what looks much like a store, and is none."""
    kept = ["thesis.tex", "data/trunk.ckpt", "data/entry.json", f".{IDS[0]}.part"]
    kept += [f"{IDS[0]}/model.bin", f"{IDS[0]}/entry.json", f"{IDS[1]}x/entry.json", IDS[2]]
    kept += [f"{IDS[1].upper()}.CLAIM", f"{IDS[3]}.claims", ".git/HEAD", f"{IDS[3]}.claim/x"]
    home = tmp_path / "home"
    for name in kept:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    put(tmp_path / "other", IDS[3])
    (home / IDS[3]).symlink_to(tmp_path / "other" / IDS[3])
    (home / f"{IDS[2]}.declined").symlink_to(home / "thesis.tex")
    (home / ("a" * 16)).mkdir()
    before = sorted(home.rglob("*"))
    code, lines = say("prune", "--all", "--force", root=home)
    assert (code, lines) == (0, [f"{str(home)!r} has no trunks"])
    assert sorted(home.rglob("*")) == before
    assert TrunkStore(tmp_path / "other").get(IDS[3]) is not None


def test_a_link_in_an_entry_is_removed_and_not_followed(tmp_path: Path, say: Say) -> None:
    put(tmp_path / "store", IDS[0])
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (tmp_path / "store" / IDS[0] / "entry.json").unlink()
    (tmp_path / "store" / IDS[0] / "entry.json").symlink_to(tmp_path / "precious")
    TrunkStore(tmp_path / "store").decline(IDS[0], "too short")
    (tmp_path / "store" / IDS[0] / "trunk.ckpt").unlink()
    (tmp_path / "store" / IDS[0] / "trunk.ckpt").symlink_to(tmp_path / "precious")
    assert say("prune", "--all", root=tmp_path / "store")[0] == 0
    assert names(tmp_path / "store") == []
    assert names(tmp_path / "precious") == ["file"]


def test_a_path_that_stays_exits_with_2(
    root: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, IDS[0])

    def fixed(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", fixed)
    code, lines = say("prune", "--all")
    assert code == 2
    assert lines[0] == "0 trunks, 0 B freed"
    assert lines[1].endswith("cannot be removed: Permission denied")


def test_the_command_runs_by_itself_and_says_its_default_root(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "coreai_opt.warmup.command"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ask = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([*program, "list"], **ask)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("'multirun/trunks' is not there")
    assert not list(tmp_path.iterdir())


def test_the_script_hands_its_arguments_on() -> None:
    script = ROOT / "scripts" / "trunks"
    assert os.access(script, os.X_OK)
    assert script.read_text().endswith('-m coreai_opt.warmup.command "$@"\n')


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (3 * 10**12, "3.0 TB")],
)
def test_sizes(count: int, text: str) -> None:
    assert _size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 days")],
)
def test_ages(seconds: float, text: str) -> None:
    assert _age(seconds) == text
