"""`python -m docsite FOLDER` writes the pages from which the site is built."""

from __future__ import annotations

import sys
from pathlib import Path

from .assemble import assemble

if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
