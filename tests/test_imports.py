"""The package can be imported on systems without POSIX modules, such as Windows."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Other libraries may import these modules where they exist, so only our own imports are refused.
CODE = """
import builtins, importlib, pkgutil, sys
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
assert "matplotlib" not in sys.modules  # it is imported by the first plot
print(len(names))
"""


@pytest.mark.process
def test_every_module_is_imported_without_posix_modules():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 300


#: What a command or an extra needs, and a loaded model does not: each costs a part of a second.
UNUSED = {
    *("sklearn", "pandas", "pyarrow", "datasets", "peft", "trl", "lm_eval", "matplotlib", "sacrebleu"),
    *("fastapi", "starlette", "uvicorn", "gradio", "optuna", "ray", "openai", "tensorboard"),
    *("softprompt.training", "softprompt.compare", "softprompt.serve", "softprompt.evaluation"),
    *("softprompt.distillation", "softprompt.model", "softprompt.cli", "softprompt.api"),
}


@pytest.mark.process
def test_loading_a_model_imports_what_it_uses(model_folder):
    code = f"import sys, softprompt; softprompt.load({str(model_folder)!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = set(done.stdout.split())
    assert "softprompt.lm.loading" in loaded
    assert not UNUSED & loaded
