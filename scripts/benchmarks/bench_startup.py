"""Time to answer: --cfg job, --help, the preview of 100 runs, and Tab."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarking import ROOT, at_least, parser, table, write
from rich.table import Table

TRAIN = str(ROOT / "train.py")

# What an app that does not prune pays: Hydra looks at the plugin, and a Trainer asks the factory.
# It is a wheel's that counts; an editable install looks for each module in many more places.
APP = """
import time
import hydra, hydra.core.hydra_config
from coreai_opt.config.hydra_internals import create_config_search_path
from hydra.core.plugins import Plugins
Plugins.instance()
import sys
for name in [one for one in sys.modules if one.startswith(("coreai_opt", "hydra_plugins.hydra_c"))]:
    del sys.modules[name]
search_path = create_config_search_path(None)
began = time.perf_counter()
from hydra_plugins.hydra_coreai_opt import CoreaiSearchPath
CoreaiSearchPath().manipulate_search_path(search_path)
from coreai_opt.plugin import factory
assert factory.pytorch_lightning() == []
print(time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Command:
    """A command line of Python; what it must and should take at most, None = for comparison.

    ``typed``: what stands in the shell when Tab is pressed, for completion. ``prints``: the
    command prints the seconds that count.
    """

    name: str
    arguments: tuple[str, ...]
    must_s: float | None = None
    aim_s: float | None = None
    typed: str = ""
    prints: bool = False


COMMANDS = (
    Command("python -c pass", ("-c", "pass")),
    Command("import torch", ("-c", "import torch")),
    Command("--cfg job", (TRAIN, "--cfg", "job"), 0.6, 0.4),
    Command("--help", (TRAIN, "--help"), 0.2, 0.1),
    Command(
        "preview of 100 runs",
        (TRAIN, "-m", "power=1,2,3,4,5", "seed=range(20)", "preview=true"),
        2.0,
        1.0,
    ),
    Command("plugin, in an app without +prune", ("-c", APP), 0.002, None, prints=True),
    *(
        Command(f"Tab behind {typed}", (TRAIN, "-sc", "query=bash"), 0.5, None, typed)
        for typed in ("python train.py schedule=", "python train.py schedule=poly trainer.max")
    ),
)


@dataclass(frozen=True)
class Taken:
    """What one process took: seconds that passed, and seconds of its own work."""

    wall: float
    cpu: float


def main() -> None:
    """Run the commands in turn, print the table and write the JSON."""
    made = parser("startup", __doc__)
    made.add_argument(
        "--repeat", type=at_least(1), default=9, help="processes of each (default: 9)"
    )
    given = made.parse_args()
    commands = measure(given.repeat)
    results = {"repeat": given.repeat, "commands": commands}
    write(given.json, "scripts/bench startup", results, _table(commands, given.repeat))


def measure(repeat: int) -> list[dict[str, Any]]:
    """Return medians for each command, of so many processes of each.

    One that is not counted goes before them. They run in turn, so that whatever else the machine
    does meets all of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            _run(command, folder)  # files are read from the disk, and modules compiled
        rounds = [[_run(command, folder) for command in COMMANDS] for _ in range(repeat)]
    by_command = zip(COMMANDS, zip(*rounds, strict=True), strict=True)
    return [_result(command, taken) for command, taken in by_command]


def _result(command: Command, taken: Sequence[Taken]) -> dict[str, Any]:
    return {
        "command": command.name,
        "wall_s": round(median(one.wall for one in taken), 4),
        "fastest_s": round(min(one.wall for one in taken), 4),
        "cpu_s": round(median(one.cpu for one in taken), 4),
        "must_s": command.must_s,
        "aim_s": command.aim_s,
    }


def _run(command: Command, folder: str) -> Taken:
    program = [sys.executable, *command.arguments]
    before, began = os.times(), time.perf_counter()
    of_shell = {"COMP_LINE": command.typed, "COMP_POINT": str(len(command.typed))}
    environment = os.environ | of_shell
    done = subprocess.run(program, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE)
    wall, after = time.perf_counter() - began, os.times()
    if command.prints:
        wall = float(done.stdout)
    own = after.children_user - before.children_user
    return Taken(wall, own + after.children_system - before.children_system)


def _table(results: Sequence[dict[str, Any]], repeat: int) -> Table:
    title = f"start-up, median of {repeat} processes, seconds"
    made = table(title, [""], ["wall", "fastest", "cpu", "must", "aim"])
    for one in results:
        bounds = ("" if one[key] is None else f"{one[key]:g}" for key in ("must_s", "aim_s"))
        times = (f"{one[key]:.4f}" for key in ("wall_s", "fastest_s", "cpu_s"))
        made.add_row(one["command"], *times, *bounds)
    return made


if __name__ == "__main__":
    main()
