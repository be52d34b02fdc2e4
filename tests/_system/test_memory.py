"""The peak is that of this process alone, and free memory goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from softprompt._system import memory

CHILD = "from softprompt._system.memory import peak_memory; print(peak_memory())"
PARENT = f"""
import subprocess, sys
held = bytearray(b"x") * 400_000_000
own = int(subprocess.run([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, check=True).stdout)
from softprompt._system.memory import peak_memory
print(own, peak_memory())
"""


@pytest.mark.process
def test_a_child_does_not_inherit_its_parents_peak():
    done = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, check=True)
    child, parent = map(int, done.stdout.split())
    assert parent > 400_000_000
    assert 1_000_000 < child < 200_000_000


FREED = """
import ctypes, os, sys, psutil
from softprompt._system.memory import give_back
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: every block is in the heap
blocks = [libc.malloc(100_000) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:  # the last one stays, so the heap cannot shrink at its end
    libc.free(block)
me = psutil.Process()
before = me.memory_info().rss
done = give_back()
print(int(done), before - me.memory_info().rss)
"""


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is asked")
def test_what_the_allocator_holds_free_is_given_back():
    done = subprocess.run([sys.executable, "-c", FREED], stdout=subprocess.PIPE, text=True, check=True)
    could, returned = map(int, done.stdout.split())
    assert could and returned > 80_000_000


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert memory.give_back() is False
