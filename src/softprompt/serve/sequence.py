"""A sequence is one request while it runs: what is injected, what must still be run, and its tokens.

This file knows the model, and nothing of threads or queues.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from ..artifacts.arithmetic import scale
from ..data.collate import batch_of_ids
from ..errors import SoftPromptError
from ..injection import Injection
from ..lm.apply import injection_for
from ..lm.causal import CausalLM
from ..lm.joining import Joined, Joining
from .context import check_fits, vectors_of
from .detokenizer import Detokenizer, Stops
from .prefix_cache import Key, PrefixCache
from .registry import Loaded
from .request import Finished, InvalidRequest, Reason, Token
from .sampler import Chooser, Likely, likelihoods
from .scoring import check_scored, check_writes
from .stream import Answer
from .token_pieces import Pieces


@final
class RunningSequence:
    """Holds a request and its state. Raises InvalidRequest for a request that can never run."""

    def __init__(
        self, lm: CausalLM, answer: Answer, loaded: Loaded | None, ends: Collection[int], pieces: Pieces
    ) -> None:
        self.pieces = pieces
        self.lm, self.answer, self.request = lm, answer, answer.request
        self.loaded = loaded if answer.request.scale else None
        if self.loaded is not None:
            check_writes(self.loaded)
        self.sampling = self.request.sampling
        self.chooser = Chooser(self.sampling, ends, frozenset(self.request.input_ids))
        self.ends = () if self.sampling.ignore_eos else ends
        behind = self.request.input_ids if self.request.continues else ()
        self.text = Detokenizer(pieces.tokenizer, behind, controls=pieces.controls)
        self.stops = Stops(self.sampling.stop)
        self._stopping = {  # control tokens that a stop string names
            token: name
            for token, name in (pieces.controls.items() if self.sampling.stop else ())
            if any(name in stop for stop in self.sampling.stop)
        }
        self.last = -1  # the token to be fed next
        self.count = 0  # tokens of the answer so far
        self.begun = 0.0  # when it stopped waiting, by time.monotonic
        self.done = self.failed = False
        self._joining: Joining | None = None  # the rest of a long input
        self._echoed: list[Likely] = []
        shape = self._static()
        self.vectors, soft = vectors_of(shape)
        self.positions = soft + len(self.request.input_ids) + self.sampling.max_tokens
        prefixes = (shape.kv_before, shape.kv_after)
        self.columns = self.positions + sum(int(p.mask.sum()) for p in prefixes if p is not None)
        self._before = 0 if shape.before is None else int(shape.before.mask.sum())
        self.ahead = self._ahead(shape)
        self._check()
        if self.request.echo and self.loaded is not None:
            check_scored(self.loaded, shape)

    # --- the input ---

    @property
    def key(self) -> Key | None:
        """The key by which others can share the input; None where none can."""
        ids = self.request.input_ids
        return None if self.ahead is None or len(ids) < 2 else Key(self.ahead, ids[:-1])

    def reads(self, cache: PrefixCache) -> int:
        """Return the number of positions that must be run, given the cache as it is now."""
        known = 0
        if self.key is not None and self.key in cache:
            known = self._before + len(self.request.input_ids) - 1
        elif self.ahead is not None and Key(self.ahead, ()) in cache:
            known = self._before
        return self.positions - self.sampling.max_tokens - known

    def begin(self, cache: PrefixCache) -> Joining:
        """Return what must still be run, on top of what the cache has."""
        injection, ids = self._injection(), self.request.input_ids
        context = None
        if self.key is not None and not self.request.echo:  # echoing needs each input token's logits
            context = cache.get(self.key)
        if context is None and self.ahead is not None and self._before:
            context = cache.get(Key(self.ahead, ()))
        device = self.lm.device
        parts = [self.lm.token_inputs(torch.tensor(ids, device=device))]
        if injection.before is not None:
            parts.insert(0, self.lm.soft_inputs(injection.before.vectors[0]))
        after = 0
        if injection.after is not None:
            parts.append(self.lm.soft_inputs(injection.after.vectors[0]))
            after = parts[-1].shape[0]
        known = 0 if context is None else context.mask.shape[1]
        vectors = torch.cat(parts)[known:]
        columns = replace(injection, before=None, after=None)
        return Joining(vectors, after, columns, context, self.sampling.max_tokens)

    def read(self, cache: PrefixCache, most: int) -> Joined | None:
        """Run at most `most` more positions; return None while more are left."""
        joining = self._joining or self.begin(cache)
        # the input's last token is in the last part
        end = min(most, len(joining.vectors) - joining.after - 1)
        whole = len(joining.vectors) <= most or end < 1
        part = joining
        if not whole:  # vectors after the input are not seen by its earlier parts
            ahead = replace(joining.injection, kv_after=None)
            part = replace(joining, vectors=joining.vectors[:end], after=0, injection=ahead)
        joined = Joined(self.lm, [part]).run(self.lm, len(part.vectors) if self.request.echo else 1)
        start = joining.positions - len(joining.vectors)
        if self.request.echo:
            self._echo(joined.logits[0], start)
        if whole:
            self._joining = None
            return joined
        context = joined.context(0, 0, start + end)
        self._joining = replace(joining, vectors=joining.vectors[end:], context=context)
        return None

    def share(self, joined: Joined, row: int, cache: PrefixCache) -> None:
        """Put into the cache what others can share."""
        if self.ahead is None:
            return
        if self._before and (alone := Key(self.ahead, ())) not in cache:
            cache.put(alone, joined.context(row, 0, self._before))
        if self.key is not None and self.key not in cache:
            cache.put(self.key, joined.context(row, 0, self._before + len(self.request.input_ids) - 1))

    def _static(self) -> Injection:
        """Return what is injected; for a generated prompt, something of the same shape."""
        if self.loaded is None:
            return Injection()
        method = self.loaded.tuned.method
        with torch.no_grad():
            return method.static(torch.tensor([self.loaded.index], device=self.lm.device))

    def _ahead(self, shape: Injection) -> str | None:
        if not {"before", "kv_before", "adapter"} & set(shape.channels()):
            return ""
        assert self.loaded is not None
        if self.loaded.tuned.method.reads is not None:
            return None
        return f"{self.loaded.fingerprint}*{self.request.scale}"

    def _injection(self) -> Injection:
        if self.loaded is None:
            return Injection()
        method, request = self.loaded.tuned.method, self.request
        if method.reads is None:
            injection = self._static()
        else:
            text = request.text
            if text is None:
                text = str(self.pieces.tokenizer.decode(list(request.input_ids), skip_special_tokens=True))
            batch = batch_of_ids([request.input_ids], None, [self.loaded.index], self.lm.device)
            injection = injection_for(self.lm, method, replace(batch, texts=(text,)))
        return injection if request.scale == 1 else scale(injection, request.scale, self.lm)

    def _check(self) -> None:
        lm, ids, sampling = self.lm, self.request.input_ids, self.sampling
        if not ids:
            raise InvalidRequest("the input is empty", why="a model needs at least one token")
        if not all(0 <= i < lm.spec.vocab_size for i in (*ids, *sampling.logit_bias)):
            raise InvalidRequest(
                "a token id is not in the vocabulary",
                why=f"'{lm.name}' has the tokens 0 to {lm.spec.vocab_size - 1}",
            )
        soft = self.positions - len(ids) - sampling.max_tokens
        limit = lm.spec.limits.get("length", "")
        check_fits("input", len(ids), soft, sampling.max_tokens, lm.spec.context, limit=limit)

    # --- the answer ---

    def _echo(self, logits: Tensor, start: int) -> None:
        """Score the input's own tokens by the logits [N, V] at the positions from `start` on."""
        first = self._before  # position of the input's first token; each position predicts the next token
        ids, end = self.request.input_ids, self._before + len(self.request.input_ids) - 1
        rows = logits[max(0, first - start) : max(0, end - start)]
        wanted = ids[max(0, start - first) + 1 :][: len(rows)]
        if wanted:
            self._echoed += likelihoods(rows, wanted, self.sampling.logprobs or 0)
        if len(self._echoed) < len(ids) - 1:
            return
        text = Detokenizer(self.pieces.tokenizer, named=True)
        alone = Token(ids[0], text.add(ids[0]))
        rest = (
            Token(i, text.add(i), logprob, self._named(top))
            for i, (logprob, top) in zip(ids[1:], self._echoed, strict=True)
        )
        self.answer.echoed = (alone, *rest)

    def take(self, token: int, likely: Likely | None) -> Reason | None:
        """Add the next token to the answer; return why the answer ends with it, or None."""
        self.chooser.note(token)
        self.last, self.count = token, self.count + 1
        ended = token in self.ends and self.count > self.sampling.min_tokens
        shown, stopped = "" if ended else self.text.add(token), False
        length = len(shown)
        if self.count > self.sampling.min_tokens:  # stop strings do not count before
            shown, stopped = self.stops.add(shown, self._stopping.get(token, ""))
        reason: Reason | None = "stop" if ended or stopped else None
        if reason is None and self.count >= self.sampling.max_tokens:
            reason = "length"
        if reason is not None and not stopped:
            last, stopped = self.stops.add(self.text.rest())
            shown += last if stopped else last + self.stops.rest()
            reason = "stop" if stopped else reason
        logprob, top = (None, ()) if likely is None else (likely[0], self._named(likely[1]))
        self.answer.put(Token(token, shown, logprob, top, length))
        return reason

    def end(self, reason: Reason, error: SoftPromptError | None = None) -> None:
        if not self.done:
            self.done, self.failed = True, error is not None
            read = len(self.request.input_ids)
            self.answer.put(Finished(reason, error, read, self.count, self.vectors))

    def _named(self, top: tuple[tuple[int, float], ...]) -> tuple[tuple[int, str, float], ...]:
        return tuple((i, self.pieces.text(i), p) for i, p in top)
