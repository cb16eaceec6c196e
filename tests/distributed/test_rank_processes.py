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
    time.sleep(120)
"""


def test_a_rank_ends_where_rank_0_has_gone_before_it_looks() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = {"LOCAL_RANK": "1", RANK_0: str(gone.pid)}
    rank = subprocess.run(
        [sys.executable, "-c", RANK], env=os.environ | environment, timeout=100, check=False
    )
    assert rank.returncode == 1
