"""A folder has one writer at a time; the lock ends with its holder and names it meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from softprompt._system.run_lock import FILE, held
from softprompt.errors import SoftPromptError

HOLDER = """
import os, sys, time
from softprompt._system.run_lock import held
with held([sys.argv[1]]):
    child = os.fork() if hasattr(os, "fork") else 1
    if child == 0:
        os.close(1)  # so that only the parent is waited for
        time.sleep(30)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


def test_a_thread_may_hold_a_folder_again_and_no_other_thread_may(tmp_path):
    folder = tmp_path / "out"
    with held([folder]):
        with held([folder]), held([tmp_path / "." / "out"]):
            pass
        assert (folder / FILE).exists()  # the inner ones did not let go of it
        with ThreadPoolExecutor(1) as pool, pytest.raises(SoftPromptError, match="another run") as caught:
            pool.submit(lambda: held([folder]).__enter__()).result()
        assert f"process {os.getpid()} on " in caught.value.why
    assert not folder.exists()  # nothing was written into it


@pytest.mark.process
def test_a_killed_holder_holds_nothing_even_where_its_forked_child_lives(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    with pytest.raises(SoftPromptError, match="another run") as caught, held([tmp_path]):
        pass
    assert f"process {holder.pid} on " in caught.value.why
    holder.kill()
    holder.communicate()
    try:
        with held([tmp_path]):
            os.kill(child, 0)  # it is there
    finally:
        os.kill(child, 9)
    assert not (tmp_path / FILE).exists()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SoftPromptError, match="cannot write"), held([tmp_path]):
        pass
    assert not (tmp_path / "elsewhere").exists()
