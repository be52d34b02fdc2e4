"""The peak is that of this process alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILD = "from softprompt.memory import peak_memory; print(peak_memory())"
PARENT = f"""
import subprocess, sys
held = bytearray(b"x") * 400_000_000
own = int(subprocess.run([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, check=True).stdout)
from softprompt.memory import peak_memory
print(own, peak_memory())
"""


@pytest.mark.process
def test_a_child_does_not_inherit_its_parents_peak():
    done = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, check=True)
    child, parent = map(int, done.stdout.split())
    assert parent > 400_000_000
    assert 1_000_000 < child < 200_000_000
