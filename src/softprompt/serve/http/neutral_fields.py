"""Fields of other servers that this one does not use are accepted where they change nothing.

A field changes nothing where it is null, an empty text, list or object, or one of the values in these tables,
which describe what happens anyway. Any other value asks for something unsupported, and is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError


class Known(NamedTuple):
    """A field that is accepted with these `values`, or empty; `why` says why others are refused."""

    values: tuple[Any, ...]
    why: str


def _known(why: str, *names: str, **values: Any) -> dict[str, Known]:
    """Return a `Known` for each field. `names` allow empty values only.

    `values` gives, by field, the other value, or the tuple of other values, that it also allows.
    """
    given = {name: value if isinstance(value, tuple) else (value,) for name, value in values.items()}
    return {name: Known(given.get(name, ()), why) for name in (*names, *given)}


#: Fields whose empty value counts: an empty text is a prompt, and an empty schema allows any JSON.
EMPTY_COUNTS = frozenset(
    "prompt content text web_search_options guided_json json_schema kv_transfer_params cache_salt".split()
)

_TOOLS = "tools are not called"
_FORM = "the form of an answer cannot be prescribed"
_TEXT = "only text is read and written"
_REASONING = "there is no reasoning apart from the answer"
_SAMPLING = "tokens are not chosen in this way"
_TOKENS = "how texts become tokens cannot be changed"
_TEMPLATE = "messages go through the model's own chat template"
_MORE = "replies do not contain this"
_WAY = "requests are not treated in this way"
_ROUTE = "this route does not read it"
_OWN = "clients name a prompt as `model` and send no vectors"

# fmt: off
#: For every request. Each group has OpenAI's fields first, then those of vLLM, SGLang, llama.cpp and others.
REQUEST: Mapping[str, Known] = {
    **_known(
        _TOOLS, "tools", "functions", "web_search_options", "plugins", "data_sources",
        tool_choice=("none", "auto"), function_call=("none", "auto"), parallel_tool_calls=(True, False),
        enable_search=False, disable_tool_validation=(True, False),
    ),
    **_known(
        _FORM, "structured_outputs", "structural_tag", "guided_json", "guided_regex", "guided_choice",
        "guided_grammar", "guided_decoding_backend", "guided_whitespace_pattern", "regex", "ebnf", "grammar",
        "json_schema", "format", "logits_processors", "logits_processor_pattern", "custom_logit_processor",
        response_format={"type": "text"}, verbosity="medium",
    ),
    **_known(
        _TEXT, "audio", "images", "image_data", "mm_processor_kwargs", "media_io_kwargs",
        modalities=(["text"],),
    ),
    **_known(
        _REASONING, "reasoning", "reasoning_format", "thinking_budget", reasoning_effort="none",
        thinking={"type": "disabled"}, thinking_token_budget=-1, enable_thinking=False, think=False,
        include_reasoning=(True, False), separate_reasoning=(True, False), stream_reasoning=(True, False),
    ),
    **_known(
        _SAMPLING, "prediction", "stop_token_ids", "bad_words", "allowed_token_ids", "logprob_token_ids",
        "repetition_detection", "samplers", "draft_model", "random_seed", "stop_regex", "custom_params",
        best_of=1, min_p=0, typical_p=1, tfs_z=1, top_a=0, length_penalty=1, early_stopping=False,
        use_beam_search=False, do_sample=True, no_repeat_ngram_size=0, watermarking=False, watermark=False,
        repeat_penalty=1, repeat_last_n=64, mirostat=0, mirostat_tau=5, mirostat_eta=0.1, dynatemp_range=0,
        dynatemp_exponent=1, xtc_probability=0, xtc_threshold=0.1, dry_multiplier=0, dry_base=1.75,
        dry_allowed_length=2, dry_penalty_last_n=-1, dry_sequence_breakers=(["\n", ":", '"', "*"],),
        top_n_sigma=-1, min_keep=0, n_predict=-1,
    ),
    **_known(
        _TOKENS, "truncate_prompt_tokens", "truncation_side", "truncate", "truncation",
        skip_special_tokens=True, spaces_between_special_tokens=True, include_stop_str_in_output=False,
        no_stop_trim=False, detokenize=True, add_special_tokens=True, n_keep=0, n_discard=0,
    ),
    **_known(
        _TEMPLATE, "documents", "chat_template", "chat_template_kwargs", "system", "template",
        "prompt_mode", add_generation_prompt=True, continue_final_message=False, safe_prompt=False, raw=False,
    ),
    **_known(
        _MORE, "prompt_logprobs", top_logprobs=0, echo=False, n_probs=0, return_tokens=False,
        return_token_ids=False, return_tokens_as_token_ids=False, return_token_offsets=False,
        return_prompt_text=False, return_full_text=False, return_hidden_states=False, return_progress=False,
        return_mm_kwargs=True, routed_experts_prompt_start=0, return_routed_experts=False,
        return_images=False, return_related_questions=False, post_sampling_probs=False,
        timings_per_token=False, details=False, include_usage=False, usage={"include": False},
    ),
    **_known(
        _WAY, "moderation", "request_id", "rid", "session_params", "vllm_xargs", "ec_transfer_params",
        "lora_path", "adapter_id", "lora", "options", "keep_alive", "ttl", "extra_key",
        "data_parallel_rank", "bootstrap_host", "bootstrap_port", "bootstrap_room", "search_parameters",
        "provider", "models", "route", "transforms", "enhancements",
        store=False, service_tier=("auto", "default"),
        prompt_cache_retention=("in_memory", "in-memory", "24h"),
        prompt_cache_options=({"mode": "implicit"}, {"ttl": "30m"}, {"mode": "implicit", "ttl": "30m"}),
        priority=0, stream_interval=1, cache_prompt=(True, False), id_slot=-1,
    ),
    **_known("a text is continued at its end only", "suffix"),
    **_known(_OWN, "prompt_embeds", "kv_transfer_params", "cache_salt"),
    **_known(
        _ROUTE, "messages", "prompt", "input", "inputs", "input_ids", "row", "rendering",
        "max_completion_tokens",
    ),
}
#: For chats, where they differ from completions.
CHAT: Mapping[str, Known] = _known(_TOKENS, add_special_tokens=False)
#: For classifications: the other fields of completions.
SCORED: Mapping[str, Known] = _known(
    "labels are scored, no answer is sampled", "stop", "seed", "stream_options", "logit_bias", "max_tokens",
    n=1, stream=False, logprobs=False, temperature=(0, 1), top_p=1, top_k=(0, -1), min_tokens=0,
    frequency_penalty=0, presence_penalty=0, repetition_penalty=1, ignore_eos=False, use_activation=True,
    activation=True, softmax=True,
)
#: For messages of any role. Fields that this server and OpenAI's clients put into answers are among them.
MESSAGE: Mapping[str, Known] = {
    **_known(_TOOLS, "tool_calls", "tool_call_id", "function_call", "tools", "tool_plan"),
    **_known(
        _TEXT, "refusal", "audio", "images", "annotations", "citations", "reasoning", "reasoning_content",
        "reasoning_details", "thinking", "thinking_blocks", "parsed", "provider_specific_fields",
        "additional_kwargs", "response_metadata", "context", "metadata", "id", "status", "end_turn",
        "cache_control",
        type=("text", "message"),
    ),
    **_known(_TEMPLATE, prefix=False, partial=False),
    **_known(_OWN, "prompt_embeds"),
}
#: For parts of a message.
PART: Mapping[str, Known] = _known(
    _TEXT, "annotations", "logprobs", "citations", "cache_control", "prompt_cache_breakpoint", "id"
)
#: For `stream_options`.
STREAM: Mapping[str, Known] = _known(_MORE, include_obfuscation=False)
# fmt: on


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def fields(table: Mapping[str, Known]) -> dict[str, Any]:
    """Return the fields of a table for `pydantic.create_model`. All are None once they are read."""
    return {name: (_type(name, known), None) for name, known in table.items()}


def _type(name: str, known: Known) -> Any:
    empty = [] if name in EMPTY_COUNTS else ["", [], {}]
    schema = {"enum": [None, *empty, *known.values], "description": f"Not used: {known.why}."}
    return Annotated[Any, PlainValidator(partial(_check, name, known)), WithJsonSchema(schema)]


def _check(name: str, known: Known, value: Any) -> None:
    """Raise for a value that is not neutral; nulls in an object are ignored."""
    if value is None:
        return
    bare = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
    if is_empty(bare) and name not in EMPTY_COUNTS:
        return
    # in Python False is 0 and True is 1, in JSON they are not
    if not any(
        bare == neutral and isinstance(bare, bool) == isinstance(neutral, bool) for neutral in known.values
    ):
        raise PydanticCustomError("unsupported", "{why}", {"why": f"not supported: {known.why}"})
