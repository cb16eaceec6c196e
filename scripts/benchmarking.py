"""What the benchmarks share: what they ran on, and how results are written."""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = ("torch", "numpy", "pytorch-lightning", "hydra-core")


def parser(what: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all benchmarks have."""
    made = argparse.ArgumentParser(prog=f"scripts/bench {what}", description=description)
    default = ROOT / "docs" / "benchmarks" / f"{what}.json"
    made.add_argument(
        "--json", type=Path, default=default, help=f"default: {default.relative_to(ROOT)}"
    )
    return made


def machine() -> dict[str, Any]:
    """Return what a measurement was made with; without importing any of it."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
    }


def write(path: Path, command: str, results: dict[str, Any]) -> None:
    """Write results as JSON, with the command and what it ran on."""
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
