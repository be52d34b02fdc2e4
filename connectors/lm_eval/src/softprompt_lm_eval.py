"""Registers `softprompt` as a model when `lm_eval.models` is imported.

Python runs `softprompt_lm_eval.pth` at its start, which imports this file. It must therefore be small, import
nothing, and never fail.
"""

import sys

MODELS = "lm_eval.models"
TARGET = "softprompt.harness.model:SoftPromptLM"


class Finder:
    """Adds one entry to the harness's registry once the package with its models has been imported."""

    def find_spec(self, name, path=None, target=None):
        """Find the package as Python does, and register the model after it has run."""
        if name != MODELS:
            return None
        sys.meta_path.remove(self)
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                register()

            spec.loader.exec_module = exec_module
        return spec


def register():
    """Add `softprompt` to the harness's models; leave them alone where it is there, or cannot be added."""
    try:
        from lm_eval.api.registry import model_registry

        if "softprompt" not in model_registry:
            model_registry.register("softprompt", target=TARGET)
    except Exception:  # another version of the registry: the harness must work without this model
        return


sys.meta_path.insert(0, Finder())
