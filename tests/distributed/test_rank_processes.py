"""A rank ends with the process of rank 0, even where that is gone before the rank looks."""

import os
import subprocess
import sys

import pytest

from coreai_opt.distributed.rank_processes import RANK_0

pytestmark = pytest.mark.slow

RANK = """
import time
from coreai_opt.distributed import rank_processes
rank_processes.GRACE_S = 0.1
with rank_processes.ranks_of_this_run():
    time.sleep({seconds})
"""


def end_of_a_rank(rank_0: int, seconds: int) -> int:
    environment = os.environ | {"LOCAL_RANK": "1", RANK_0: str(rank_0)}
    program = [sys.executable, "-c", RANK.format(seconds=seconds)]
    return subprocess.run(program, env=environment, timeout=170, check=False).returncode


def test_a_rank_ends_where_rank_0_has_gone_before_it_looks() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert end_of_a_rank(gone.pid, 160) == 1


def test_a_rank_with_a_wrapper_between_it_and_rank_0_goes_on() -> None:
    assert end_of_a_rank(os.getppid(), 5) == 0
