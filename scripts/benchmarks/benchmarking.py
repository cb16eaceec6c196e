"""Options, machine and JSON that all benchmarks share."""

import argparse
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

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


def write(path: Path, command: str, results: dict[str, Any]) -> None:
    """Write results as JSON, with the command and the machine."""
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
