"""The package can be imported on systems without POSIX modules, such as Windows."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Other libraries may import these modules where they exist, so only our own imports are refused.
CODE = """
import builtins, importlib, pkgutil
real = builtins.__import__
POSIX = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = str((globals or {}).get("__name__"))
    if level == 0 and name in POSIX and importer.startswith("softprompt"):
        raise ImportError(f"{importer} imports {name}")
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
import softprompt
names = [module.name for module in pkgutil.walk_packages(softprompt.__path__, "softprompt.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


@pytest.mark.process
def test_every_module_is_imported_without_posix_modules():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 300
