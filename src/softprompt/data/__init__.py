"""Rows are read, rendered through templates, and encoded as token ids.

Importing this package is light: it needs no torch, models or methods. Batches of tensors are made in
`softprompt.data.collate`, which is not imported here.
"""

from __future__ import annotations

from softprompt.data.encode import Encoder
from softprompt.data.example import Example
from softprompt.data.labels import distinct_labels
from softprompt.data.sources import Row, fingerprint, read_rows
from softprompt.data.split import limit_rows, split_rows
from softprompt.data.template import Rendered, Template

__all__ = [
    "Encoder",
    "Example",
    "Rendered",
    "Row",
    "Template",
    "distinct_labels",
    "fingerprint",
    "limit_rows",
    "read_rows",
    "split_rows",
]
