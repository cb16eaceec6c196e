"""The real command line, stopped by signals and started again."""

import signal
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command, Refused
from tests.helpers.processes import QUICK, checkpoints, record_in, runs, started, wait_for

LONG = [*QUICK, "trainer.max_epochs=400", "checkpoint.every_n_steps=20"]
ENDS = "the run ends after this step, with a checkpoint"


def stopped(work: Path, *arguments: str, number: signal.Signals = signal.SIGTERM) -> str:
    """Start a long run, send it a signal once it has a checkpoint, and return what it said."""
    known = set(checkpoints(work))
    with started(work, *LONG, *arguments) as process:
        # Of this process, and not of another one that is at work as well.
        pid = f'"pid": {process.pid},'
        wait_for(
            process,
            lambda: any(
                pid in (path.parents[1] / "progress.json").read_text()
                for path in set(checkpoints(work)) - known
            ),
            "checkpoint",
        )
        process.send_signal(number)
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    return out + errors


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(work: Path) -> None:
    told = stopped(work, number=signal.SIGINT)
    assert f"Ctrl-C: {ENDS}; Ctrl-C again ends it at once\n" in told
    assert "interrupted (the same command goes on from step" in told
    told = stopped(work)
    assert f"SIGTERM: {ENDS}\n" in told
    (root,) = runs(work)
    record = record_in(root)
    step = record["resumed_at"][0]
    assert f"goes on in {root} from step {step} of 30000\n" in told
    assert (record["status"], record["attempts"]) == ("interrupted", 2)
    assert record["finished"] is not None
    assert record["wall_seconds"] > 0


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_run_at_once(work: Path) -> None:
    # The step boundary after the first one comes only after a validation that never ends.
    (work / "slow_model.py").write_text(
        "import time\n"
        "from coreai_opt.models import MLP\n"
        "class Net(MLP):\n"
        "    def forward(self, images):\n"
        "        if not self.training:\n"
        "            open('validates', 'w').close()\n"
        "            time.sleep(1000)\n"
        "        return super().forward(images)\n"
    )
    given = ["model._target_=slow_model.Net", "trainer.num_sanity_val_steps=0"]
    with started(work, *LONG, *given) as process:
        wait_for(process, (work / "validates").exists, "validation")
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    (root,) = runs(work)
    assert record_in(root)["status"] == "interrupted"


PROGRAM = """
import pathlib, runpy, signal, sys
def requeue(number, frame):
    pathlib.Path("requeued").write_text(str(number))
    {end}
signal.signal(signal.SIGUSR2, requeue)
sys.argv[0] = {script!r}
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [("pass", 140), ("sys.exit(7)", 7)])
def test_the_handler_of_a_launcher_is_called_when_the_record_is_written(
    work: Path, end: str, code: int
) -> None:
    program = work / "launcher.py"
    program.write_text(PROGRAM.format(script=str(ROOT / "train.py"), end=end))
    with started(work, *LONG, program=program) as process:
        wait_for(process, lambda: checkpoints(work), "checkpoint")
        process.send_signal(signal.SIGUSR2)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == code, errors
    assert (work / "requeued").read_text() == str(int(signal.SIGUSR2))
    (root,) = runs(work)
    assert record_in(root)["status"] == "interrupted"
    assert checkpoints(work)


@pytest.mark.slow
def test_sigusr2_without_a_handler_ends_with_140(work: Path) -> None:
    told = stopped(work, number=signal.SIGUSR2)
    assert f"SIGUSR2: {ENDS}\n" in told


@pytest.mark.slow
def test_a_signal_before_the_training_ends_the_run_at_once(work: Path) -> None:
    with started(work, *LONG) as process:
        wait_for(process, lambda: list(work.glob("outputs/*/*/progress.json")), "heartbeat")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == 143, errors
    assert "interrupted (no checkpoint)" in errors
    assert "Traceback" not in errors
    (root,) = runs(work)
    assert record_in(root)["status"] == "interrupted"
    assert not (root / "resume").exists()


# Ctrl-C arrives while a module is imported.
INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "MODULE":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from coreai_opt.train import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch.nn", "pytorch_lightning.trainer"])
def test_ctrl_c_during_an_import_ends_one_run_of_a_sweep(work: Path, module: str) -> None:
    program = work / "program.py"
    program.write_text(INTERRUPTED_IMPORT.replace("MODULE", module))
    short = ["-m", *QUICK, "trainer.max_epochs=1", "total_iters=20", "power=1,2"]
    with started(work, *short, program=program) as process:
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 2, errors
    assert "2 runs, 1 completed, 1 interrupted" in out


@pytest.mark.slow
def test_a_signal_during_the_test_leaves_the_trained_model_to_go_on_with(
    command: Command, work: Path
) -> None:
    (work / "slow_test.py").write_text(
        "import time\n"
        "import pytorch_lightning as pl\n"
        "class Slow(pl.Callback):\n"
        "    def on_test_batch_start(self, *args):\n"
        "        if not open('tests', 'a').tell():\n"
        "            open('tests', 'a').write('once')\n"
        "            time.sleep(1000)\n"
    )
    given = [*QUICK, "+callbacks.slow._target_=slow_test.Slow"]
    with started(work, *given) as process:
        wait_for(process, (work / "tests").exists, "test")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == 143, errors
    assert "interrupted (the same command goes on from step 300)" in errors
    done = command(*given)
    assert done.returncode == 0, done.stderr
    (root,) = runs(work)
    assert done.stdout.startswith(f"goes on in {root} from step 300 of 300\n")
    record = record_in(root)
    assert (record["status"], record["resumed_at"]) == ("completed", [300])


@pytest.fixture
def interrupted(work: Path) -> Path:
    """A run that was interrupted, relative to where commands are typed."""
    with started(work, *LONG) as process:
        wait_for(process, lambda: list(work.glob("outputs/*/*/checkpoints/best.ckpt")), "best.ckpt")
        process.terminate()
        process.communicate(timeout=180)
    (root,) = runs(work)
    return root.relative_to(work)


@pytest.mark.slow
def test_what_cannot_be_gone_on_with_is_one_line_and_leaves_nothing(
    refused: Refused, work: Path, interrupted: Path
) -> None:
    best = interrupted / "checkpoints" / "best.ckpt"
    damaged = work / checkpoints(work)[0].name
    damaged.write_text("damaged")
    (work / "empty").mkdir()
    (work / "old").mkdir()
    (work / "old" / "result.json").write_text("{}")
    (work / "notes.txt").write_text("text")
    before = sorted(work.rglob("*"))
    bad = {
        ("resume=nonsense",): "there is no such file or directory",
        ("resume=empty",): "a directory without a record",
        ("hydra.run.dir=old",): "old holds a record that cannot be read",
        ("resume=notes.txt",): "not a checkpoint that was written for going on",
        (f"resume={best}",): "not a checkpoint that was written for going on",
        (f"resume={damaged.name}",): "the file is damaged",
        ("resume=null",): "resume=None: should be a valid string; allowed: auto, never",
        (f"resume={interrupted}", "seed=2"): "seed: 1 -> 2",
        ("-m", "seed=1,2", f"resume={interrupted}"): "a sweep has many runs",
    }
    for arguments, sentence in bad.items():
        (line,) = refused(*arguments, *LONG).splitlines()  # -m comes first
        assert line.startswith("error: ")
        assert sentence in line
        assert sorted(work.rglob("*")) == before


@pytest.mark.slow
def test_a_run_a_file_or_nothing_is_gone_on_with_as_asked(work: Path, interrupted: Path) -> None:
    told = stopped(work, f"resume={interrupted}", "hydra.job.chdir=true")
    assert f"goes on in {work / interrupted} from step" in told
    file = checkpoints(work)[-1]
    told = stopped(work, f"resume={file.relative_to(work)}", "hydra.job.chdir=true")
    assert f"from step {int(file.name.split('-')[1])} of 30000" in told
    told = stopped(work, "resume=never")
    assert told.startswith(f"leaving behind {interrupted} (interrupted at step ")
    assert len(runs(work)) == 2


@pytest.mark.slow
def test_a_run_at_work_is_not_taken(command: Command, work: Path) -> None:
    with started(work, *LONG) as process:
        wait_for(process, lambda: checkpoints(work), "checkpoint")
        (root,) = runs(work)
        done = command(*LONG, f"resume={root.relative_to(work)}")
        assert done.returncode == 1
        assert f"process {process.pid} on" in done.stderr
        assert "is at work in it; allowed: wait for it, or end it" in done.stderr
        told = stopped(work)
        assert "goes on" not in told.partition("interrupted (")[0]
        assert process.poll() is None
    assert len(runs(work)) == 2


@pytest.mark.slow
def test_a_sweep_in_a_directory_of_its_own_goes_on(work: Path) -> None:
    given = ["-m", *QUICK, "seed=1,2", "hydra.sweep.dir='a sweep=1, ü'"]
    sweep = work / "a sweep=1, ü"
    with started(work, *given) as process:
        wait_for(process, lambda: list(sweep.glob("seed-2_*/resume/*.ckpt")), "checkpoint")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == 143, errors
    assert "interrupted (the same sweep goes on from step" in errors
    (one,), (two,) = (list(sweep.glob(f"seed-{seed}_*")) for seed in (1, 2))
    first = (one / "result.json").read_bytes()
    with started(work, *given) as process:
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert ": 2 runs, 1 done before, 1 to go on with\n" in out
    assert f"goes on in {two} from step" in out
    assert (one / "result.json").read_bytes() == first
    assert record_in(two)["status"] == "completed"
