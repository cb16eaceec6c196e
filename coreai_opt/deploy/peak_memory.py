"""Peak memory: by how much a process of its own grows that loads a model and computes with it."""

import importlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

STATUS = Path("/proc/self/status")


def peak_bytes(run: Callable[[Tensor], Tensor], batch: Tensor, threads: int = 1) -> int | None:
    """Return by how many bytes a process grows when it loads a model and computes one batch.

    The packages that it needs are imported before. Memory comes in pages and pools: a difference
    below about a megabyte says nothing.

    Args:
        run: the model; it goes to the process as a pickle.
        batch: its inputs.
        threads: of torch, >= 1.

    Returns:
        None where it cannot be measured: the model cannot be pickled, or is of a program that is
        no module.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pickle")
        try:
            content = pickle.dumps((run, batch))
        except (pickle.PicklingError, TypeError, AttributeError):
            return None
        path.write_bytes(content)
        words = [sys.executable, "-m", __name__, str(path), type(run).__module__, str(threads)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def _peak_so_far() -> int:
    """Return the largest resident size of this process, in bytes."""
    if STATUS.is_file():
        # getrusage begins with the size of the process that has started this one.
        lines = STATUS.read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def main(path: str, module: str, threads: str) -> None:
    """Print by how many bytes this process grows."""
    torch.set_num_threads(int(threads))
    importlib.import_module(module)
    with torch.inference_mode():
        torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1))  # its libraries are loaded
        before = _peak_so_far()
        run, batch = pickle.loads(Path(path).read_bytes())
        run(batch)
    print(_peak_so_far() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
