"""Options, sweeps, tables, machine and JSON that benchmarks share."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("torch", "numpy", "pytorch-lightning", "hydra-core")


def parser(what: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all benchmarks have."""
    made = argparse.ArgumentParser(prog=f"scripts/bench {what}", description=description)
    default = ROOT / "docs" / "benchmarks" / f"{what}.json"
    made.add_argument(
        "--json", type=writable, default=default, help=f"default: {default.relative_to(ROOT)}"
    )
    return made


def add_device(made: argparse.ArgumentParser) -> None:
    """Add the options of benchmarks that compute in this process."""
    made.add_argument(
        "--device", type=device_name, default="cpu", help="cpu or cuda (default: cpu)"
    )
    made.add_argument("--threads", type=at_least(1), help="torch's threads (default: torch's own)")


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers with a lower bound; for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}; allowed: a whole number from {least} on")
        return int(text)

    return read


def device_name(text: str) -> str:
    """Read the name of a device that is there; for argparse."""
    import torch

    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if text not in there:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed here: {' or '.join(there)}")
    return text


def writable(text: str) -> Path:
    """Read the path of a file whose folder is there; for argparse."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a file in a folder that is there")
    return path


def machine() -> dict[str, Any]:
    """Return machine and versions, without importing the packages."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
    }


def run_sweep(folder: Path, overrides: Sequence[str], **environment: str) -> float:
    """Run a sweep of train.py into a folder, and return its seconds."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", *overrides]
    began = time.monotonic()
    subprocess.run(
        [*command, f"hydra.sweep.dir={folder}"],
        check=True,
        cwd=folder.parent,
        env=os.environ | environment,
    )
    return time.monotonic() - began


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a sweep's runs, by the names of their folders."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]


def table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return a table without rows: columns of texts, then those of numbers."""
    made = Table(*texts, title=title)
    for name in numbers:
        made.add_column(name, justify="right")
    return made


def write(path: Path, command: str, results: dict[str, Any], *tables: Table) -> None:
    """Print tables of results, and write them as JSON, with the command and the machine."""
    for each in tables:
        Console().print(each)
    report = {"command": command, **machine(), **results}
    path.write_text(json.dumps(report, indent=2) + "\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
