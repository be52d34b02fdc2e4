"""`SoftPromptLM` is the model of lm-evaluation-harness that this library registers as `softprompt`.

Windows, truncation and tokenization are those of the harness's own `hf` model, so that a plain base model has
the same results with both. Vectors that are placed after an input are between context and continuation; a
text without a context (`loglikelihood_rolling`) has them after the first token of each window.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from jinja2.exceptions import TemplateError
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from tqdm import tqdm

from .._system.quiet import quietly
from .._system.version import version
from ..errors import SoftPromptError, unknown
from .arguments import room_of, rows_of, subject_of, subject_of_tuned
from .generation import continuations
from .likelihood import Likelihood, Pair, likelihoods
from .texts import Texts, check_rolling

if TYPE_CHECKING:
    from ..lm.base import LanguageModel
    from ..tuned import Tuned

T = TypeVar("T")
MAX_GEN_TOKS = 256  # as the harness's own models
log = logging.getLogger(__name__)


class SoftPromptLM(TemplateLM):
    """A tuned prompt on its base model, or a plain base model, as a model of lm-evaluation-harness."""

    @quietly
    def __init__(
        self,
        artifact: str | None = None,
        model: str | None = None,
        prompt: str | None = None,
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        max_gen_toks: int = MAX_GEN_TOKS,
        template: bool = False,
        plain: bool = False,
        other_base: bool = False,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        lm: LanguageModel | None = None,
        tuned: Tuned | None = None,
        **others: Any,
    ) -> None:
        """Load what `--model_args` name.

        `artifact` is anything that `open_prompt` takes, `prompt` a name in its table; `model` is where the
        base is loaded from (alone: a plain base model). `batch_size` is the most rows of a batch; "auto"
        takes as many as are fast. `template` renders each context as the only field of the artifact's
        template. `plain` leaves the prompt out. In Python, `lm` or `tuned` give what is loaded already.

        Raises SoftPromptError for unknown arguments, and for what cannot be evaluated.
        """
        super().__init__()
        if others:
            known = inspect.signature(SoftPromptLM).parameters.keys() - {"lm", "tuned", "others"}
            raise unknown(
                "argument of --model softprompt", next(iter(others)), known, fix="see docs/harness.md"
            )
        if tuned is not None:
            self.subject = subject_of_tuned(tuned, tuned.artifact.index(prompt), plain=plain)
        else:
            self.subject = subject_of(
                artifact,
                model,
                None if prompt is None else str(prompt),
                {
                    "dtype": dtype,
                    "device": device,
                    "revision": revision,
                    "trust_remote_code": trust_remote_code or None,
                },
                other_base=other_base,
                plain=plain,
                lm=lm,
            )
        self.lm = self.subject.lm
        self.tokenizer = self.lm.tokenizer
        self.backend = "seq2seq" if self.lm.spec.kind == "encoder-decoder" else "causal"
        self.batch_rows = rows_of(batch_size)
        self._max_gen_toks = int(max_gen_toks)
        room = room_of(self.subject, max_length)
        self.texts = Texts(self.subject, room, bool(template), add_bos_token, prefix_token_id)
        if not template and self.subject.encoder is not None:
            log.warning("contexts are read without the artifact's template; template=true applies it")

    # what the harness asks of a model

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        return self.texts.prefix

    @property
    def max_length(self) -> int:
        return self.texts.max_length

    @property
    def max_gen_toks(self) -> int:
        return self._max_gen_toks

    @property
    def batch_size(self) -> int | str:
        return "auto" if self.batch_rows is None else self.batch_rows

    @property
    def device(self) -> Any:
        return self.lm.device

    @property
    def tokenizer_name(self) -> str:
        """Return a name of the tokenizer, by which the harness keeps requests that it has built."""
        return str(self.tokenizer.name_or_path or self.lm.name).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return what the harness writes into its results besides its own arguments."""
        facts = {
            "softprompt_version": version(),
            "model_dtype": str(self.lm.dtype),
            "template": self.texts.template,
        }
        return facts | (self.subject.facts or {})

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Write a conversation by the chat template; without a system text where it takes none."""
        if self.texts.template:
            raise SoftPromptError(
                "template=true and --apply_chat_template cannot be combined",
                why="the text would go through two templates",
                fix="leave one of them out",
            )
        options = {
            "tokenize": False,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            return self.tokenizer.apply_chat_template(chat_history, **options)
        except TemplateError:
            log.warning("the chat template takes no system text: it is left out")
            rest = [message for message in chat_history if message["role"] != "system"]
            return self.tokenizer.apply_chat_template(rest, **options)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the token ids of a text, as the harness's own `hf` model does."""
        return self.texts.ids(string, add_special_tokens)

    # requests

    @quietly
    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[Likelihood]:
        """Compute the log-likelihood of each request's continuation after its context."""
        args = [request.args for request in requests]
        return self._likelihoods([self._pair(*texts) for texts in args], args, disable_tqdm)

    def _pair(self, context: str, continuation: str) -> Pair:
        """Encode a context and its continuation."""
        if self.texts.template:
            return self.texts.rendered_pair(context, continuation)
        split = self._encode_pair if context else self.texts.without_context
        return self.texts.pair((context, continuation), *split(context, continuation))

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[Likelihood]:
        """Compute log-likelihoods of (texts, context ids, continuation ids)."""
        pairs = [self.texts.pair(*request) for request in requests]
        return self._likelihoods(pairs, [texts for texts, *_ in requests], disable_tqdm)

    @quietly
    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Compute the log-likelihood of each whole text, in windows of `max_length` tokens."""
        check_rolling(self.subject, self.texts.template)
        args = [request.args for request in requests]
        windows = [(number, pair) for number, (text,) in enumerate(args) for pair in self.texts.windows(text)]
        sums = [0.0] * len(args)
        values = self._likelihoods([pair for _, pair in windows], None, disable_tqdm)
        for (number, _), (value, _) in zip(windows, values, strict=True):
            sums[number] += value
        for key, total in zip(args, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", key, total)
        return sums

    @quietly
    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Generate the text that follows each context, up to a stop string."""
        args = [request.args for request in requests]
        groups: dict[str, list[int]] = {}
        for number, (_, given) in enumerate(args):
            groups.setdefault(json.dumps(given, sort_keys=True, default=str), []).append(number)
        results = Results[str](len(args), "Running generate_until requests", disable_tqdm)
        for numbers in groups.values():
            self._generate(args, numbers, results)
        return results.all()

    def _generate(self, args: Sequence[Any], numbers: Sequence[int], results: Results[str]) -> None:
        """Generate the texts of requests with the same options; `numbers` are theirs among `args`."""
        options: dict[str, Any] = dict(normalize_gen_kwargs(dict(args[numbers[0]][1]), self.max_gen_toks))
        eos = None if self.eot_token_id is None else self.tokenizer.decode(self.eot_token_id)
        stops = handle_stop_sequences(options.pop("until", None), eos=eos)
        count = int(options.pop("max_gen_toks"))
        contexts = [self.texts.context(args[number][0], count) for number in numbers]

        def done(part: Sequence[int], texts: Sequence[str]) -> None:
            for place, text in zip(part, texts, strict=True):
                results.put(numbers[place], text)
                self.cache_hook.add_partial("generate_until", args[numbers[place]], text)

        continuations(self.subject, contexts, count, stops, options, self.batch_rows, done)

    def _likelihoods(
        self, pairs: Sequence[Pair], keys: Sequence[tuple[str, str]] | None, disable_tqdm: bool
    ) -> list[Likelihood]:
        """Compute the likelihood of each pair; `keys` are the texts by which the harness keeps results."""
        results = Results[Likelihood](len(pairs), "Running loglikelihood requests", disable_tqdm)
        known = [number for number, pair in enumerate(pairs) if pair.target_ids]
        for number in set(range(len(pairs))).difference(known):
            results.put(number, (0.0, True))  # an empty text is certain

        def done(part: Sequence[int], values: Sequence[Likelihood]) -> None:
            for place, value in zip(part, values, strict=True):
                results.put(known[place], value)
                if keys is not None:
                    self.cache_hook.add_partial("loglikelihood", keys[known[place]], value)

        likelihoods(self.subject, [pairs[number] for number in known], self.batch_rows, done)
        return results.all()


class Results(Generic[T]):
    """Results in the order of the requests, with a progress bar."""

    def __init__(self, count: int, name: str, silent: bool) -> None:
        self._values: list[T | None] = [None] * count
        self._bar = tqdm(total=count, desc=name, disable=silent)

    def put(self, number: int, value: T) -> None:
        """Keep the result of a request."""
        self._values[number] = value
        self._bar.update(1)

    def all(self) -> list[T]:
        """Return all results, once each request has one."""
        self._bar.close()
        return cast("list[T]", self._values)


register_model("softprompt")(SoftPromptLM)
