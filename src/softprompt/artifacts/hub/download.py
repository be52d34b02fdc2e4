"""`hf:ID@REVISION` becomes a folder in the cache of `huggingface_hub`.

Only the files that an artifact may have are fetched: JSON and safetensors, which are read and never
executed. They are verified as those of any folder are.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..._system.paths import expanded
from ..._system.progress import task
from ..._system.quiet import quietly
from ..._system.version import version
from ...errors import SoftPromptError
from ..manifest import BASE, MANIFEST, STATE, VECTORS
from .failures import explained
from .reference import Reference, is_reference, parse

FILES = (MANIFEST, VECTORS, STATE, BASE)


def folder_of(path: str | Path) -> tuple[Path, Reference | None]:
    """Return the folder of an artifact and, where it was on the hub, its repository and commit.

    A folder is returned as it is, with `~` and `$NAME` expanded. Raises SoftPromptError where the hub has no
    such artifact, or cannot be reached and no copy is in the cache.
    """
    if not is_reference(path):
        return Path(expanded(path)), None
    reference = parse(path)
    folder = _fetched(reference)
    if not os.path.lexists(folder / MANIFEST):
        raise SoftPromptError(
            f"{reference} is no tuned prompt",
            why=f"the repository has no {MANIFEST}",
            fix="give the id of one that `softprompt push` has uploaded",
        )
    return folder, Reference(reference.id, folder.name)


@quietly
def _fetched(reference: Reference) -> Path:
    from huggingface_hub import snapshot_download

    with task(f"fetching {reference}"), explained(reference):
        folder = snapshot_download(
            reference.id,
            revision=reference.revision,
            allow_patterns=list(FILES),
            library_name="softprompt",
            library_version=version(),
        )
    return Path(folder)
