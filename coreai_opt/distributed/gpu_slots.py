"""GPU slots: jobs of one machine share its GPUs, a locked file a slot.

Jobs of different commands do not meet on one device, and a killed job leaves its slot free.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from coreai_opt.distributed.ranks import restore_environment

VARIABLE = "CUDA_VISIBLE_DEVICES"
POLL_S = 0.5


def visible_devices(given: Any = None) -> list[str]:
    """Return the names of the GPUs that jobs may use, as ``CUDA_VISIBLE_DEVICES`` takes them.

    Args:
        given: a number of GPUs, a list of their names, or None for those of the machine that
            ``CUDA_VISIBLE_DEVICES`` does not hide.

    Example:
        >>> visible_devices(2), visible_devices(["3", "GPU-5d1a"]), visible_devices(0)
        (['0', '1'], ['3', 'GPU-5d1a'], [])
    """
    if given is not None:
        names = range(given) if isinstance(given, int) else given
        return [str(name) for name in names]
    if VARIABLE in os.environ:
        return [name for name in os.environ[VARIABLE].split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(_gpus_of_machine())]


def _gpus_of_machine() -> int:
    # Not torch: it takes a second to import, and the command itself uses no GPU.
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    done = subprocess.run([program, "-L"], capture_output=True, text=True, check=False, timeout=60)
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


@contextmanager
def gpu_slot(devices: Sequence[str], jobs_per_device: int = 1) -> Iterator[str | None]:
    """Take a free slot on one of the devices, and hide the other devices from CUDA.

    Args:
        devices: names of GPUs; none = nothing is changed.
        jobs_per_device: how many jobs share one, >= 1.

    Yields:
        The device, None where there are none.
    """
    if not devices:
        yield None
        return
    before = os.environ.get(VARIABLE)
    # CUDA reads the variable once: a worker that has used CUDA stays with its device.
    stays = before is not None and before in devices and _has_looked()
    wanted = [str(before)] if stays else list(devices)
    lock, device = _free_slot(wanted, jobs_per_device)
    os.environ[VARIABLE] = device
    try:
        yield device
    finally:
        lock.release()
        # CUDA does not read the variable again in this process.
        if not _has_looked():
            restore_environment({VARIABLE: before})


def _free_slot(devices: Sequence[str], jobs_per_device: int) -> tuple[FileLock, str]:
    folder = Path(tempfile.gettempdir(), f"coreai-opt-devices-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        # A second job goes to a device that is shared only when none is free.
        for number in range(jobs_per_device):
            for device in devices:
                lock = FileLock(folder / f"{device.replace('/', '-')}-{number}.lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                return lock, device
        time.sleep(POLL_S)


def _has_looked() -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
