"""coreai-doctor: whether ``+prune=poly`` would work here, a line for each thing that it needs."""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

# Import root of Lightning -> its package.
PACKAGES = {"pytorch_lightning": "pytorch-lightning", "lightning.pytorch": "lightning"}

# Releases of Lightning that were taken back.
WITHDRAWN = ("2.6.2", "2.6.3")

APP = """
import hydra

from coreai_opt.config.hydra_internals import VERSION_BASE

@hydra.main(config_path=None, **VERSION_BASE)
def main(cfg):
    print(cfg)

main()
"""

AGAIN = "pip install --force-reinstall --no-deps hydra-coreai-opt"


def main() -> int:
    """Print what was found and return 1 where ``+prune=poly`` would not work, else 0."""
    checks: tuple[Callable[[], Iterator[str]], ...] = (_libraries, _roots, _factories, _plugin)
    is_well = True
    for check in checks:
        for line in check():
            is_bad = line.startswith("bad: ")
            is_well = is_well and not is_bad
            print(line)
    print("+prune=poly works here" if is_well else "+prune=poly does not work here")
    return 0 if is_well else 1


def _libraries() -> Iterator[str]:
    for package in ("hydra-core", "omegaconf", "torch"):
        if _installed(package):
            yield f"ok: {package} {version(package)}"
        else:
            yield f"bad: {package} is not installed; allowed: pip install {package}"


def _roots() -> Iterator[str]:
    found = [root for root in PACKAGES if _installed(PACKAGES[root])]
    for root in found:
        package = PACKAGES[root]
        if version(package) in WITHDRAWN:
            yield (
                f"bad: {package} {version(package)} was withdrawn; allowed: "
                f"pip install '{package}!={',!='.join(WITHDRAWN)}'"
            )
        try:
            importlib.import_module(root)
        except Exception as error:  # whatever it is, it is what an app would meet
            yield f"bad: {root} cannot be imported: {type(error).__name__}: {error}"
        else:
            yield f"ok: {package} {version(package)}"
    if not found:
        yield "bad: no Lightning is installed; allowed: pip install lightning, or pytorch-lightning"


def _factories() -> Iterator[str]:
    """Look whether Lightning finds what gives a Trainer its callbacks."""
    for root in PACKAGES:
        found = entry_points(group=f"{root}.callbacks_factory")
        if any(one.value.startswith("coreai_opt.plugin.") for one in found):
            yield f"ok: each Trainer of {root} asks for our callbacks"
        else:
            yield f"bad: no Trainer of {root} would ask for our callbacks; allowed: {AGAIN}"


def _plugin() -> Iterator[str]:
    """Look whether an app of Hydra's finds the group, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder, "app.py")
        app.write_text(APP, encoding="utf-8")
        command = [sys.executable, str(app), "+prune=poly", "--cfg", "job"]
        environment = {name: value for name, value in os.environ.items() if name != "COMP_LINE"}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if "schedule: poly" in done.stdout:
        yield "ok: Hydra finds the group prune"
    elif done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[0]
        yield f"bad: an app with +prune=poly does not start: {last}"
    else:
        yield (
            "bad: Hydra does not find the plugin hydra_plugins.hydra_coreai_opt, and takes "
            f"+prune=poly for a value; allowed: {AGAIN}, or an editable install with "
            "--config-settings editable_mode=strict"
        )


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
