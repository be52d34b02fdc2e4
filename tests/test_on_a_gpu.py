"""The tests of `on_a_gpu.py`, in a process of their own.

A device beside the CPU makes autograd start a thread for each device, and a process with such threads cannot
fork one that trains. Other tests do so (`together.py`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

CHECKS = Path(__file__).with_name("on_a_gpu.py")


@pytest.mark.process
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this release of torch takes no device that is written in Python",
)
def test_no_tensor_stays_on_the_cpu():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", CHECKS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKS.parents[1], timeout=1200)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
