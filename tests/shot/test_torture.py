"""Killed again and again, a shot ends as if it never was. All 200 kills: python -m tests.shot.torture --kills 200"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLS = 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_forty_kills_cost_no_picture_and_leave_nothing_behind():
    """Two hundred take about a minute; which they are is decided by the seed."""
    command = [sys.executable, "-m", "tests.shot.torture", "--kills", str(KILLS), "--seed", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= KILLS
    assert all(name in done.stdout for name in ("SIGKILL", "SIGTERM", "SIGINT"))
