"""The limits of one request, and of all requests together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Limits:
    """Limits that raise an error before any work is done; each comment ends with its status.

    A server that reads its options again changes them in place: requests that came before keep theirs.
    """

    body_bytes: int = 2**20  # 413
    input_tokens: int | None = None  # of one input; None: the model's context. 400
    output_tokens: int = 1024  # of one answer. 400
    choices: int = 32  # answers of one request: prompts times n. 400
    requests: int = 256  # at once, waiting or running. 429
    seconds: float = 300  # from the request's arrival to the last token. 504
    body_seconds: float = 30  # for the body to arrive. 408
