"""/v1/chat/completions: what the model reads of messages, and how answers are shaped."""

from __future__ import annotations

import openai
import pytest
from tests.serve.http.conftest import RECIPES


@pytest.fixture
def served(serve):
    """With a prompt that writes text on a template of one field."""
    return serve(recipes=RECIPES | {"team-a/notes": {"template": {"input": "Review: {{ text }}\nMood:"}}})


@pytest.fixture
def ask(client):
    def say(model, *messages, **more):
        turns = [{"role": role, "content": text} for role, text in messages]
        return client.chat.completions.create(
            model=model, messages=turns, **({"temperature": 0, "max_tokens": 120} | more)
        )

    return say


def read(reply) -> str:
    """What the model read, which the fake engine repeats."""
    return reply.choices[0].message.content.split(":", 1)[1]


def test_the_plain_model_reads_its_chat_template(ask):
    output = ask("tiny", ("system", "Be short."), ("user", "hi"), ("assistant", "yes"), ("user", "so?"))
    assert read(output) == "<system>Be short.\n<user>hi\n<assistant>yes\n<user>so?\n<assistant>"
    assert output.softprompt == {"rendering": "chat", "unread_messages": 0, "cut_tokens": 0}


def test_a_prompt_reads_its_own_template(ask, served):
    output = ask("team-a/notes", ("user", "fun"))
    assert read(output) == "Review: fun\nMood:" and output.softprompt["rendering"] == "template"
    encoder = served.app.state.service.registry.get("team-a/notes").encoder
    alone = encoder.encode({"text": "fun"}, with_target=False)  # what `softprompt generate` reads
    assert served.engine.requests[0].input_ids == alone.input_ids
    assert served.engine.requests[0].text == alone.rendered.input


def test_what_a_template_leaves_unread_is_said(ask):
    output = ask("team-a/notes", ("system", "x"), ("user", "one"), ("assistant", "good"), ("user", "two"))
    assert read(output) == "Review: two\nMood:" and output.softprompt["unread_messages"] == 3


def test_a_template_in_a_chat_keeps_the_conversation(ask):
    one = ask("team-b/chat", ("user", "hi"))
    assert read(one) == "<system>Be kind.\n<user>Q: hi\n<assistant>"
    more = ask("team-b/chat", ("user", "hi"), ("assistant", "yes"), ("user", "so?"))
    assert read(more) == "<system>Be kind.\n<user>Q: hi\n<assistant>yes\n<user>Q: so?\n<assistant>"
    own = ask("team-b/chat", ("developer", "Be rude."), ("user", "hi"))
    assert read(own) == "<system>Be rude.\n<user>Q: hi\n<assistant>"


def test_a_template_of_several_fields_falls_back_to_the_chat(ask):
    output = ask("team-a/pairs", ("user", "hi"))
    assert read(output) == "<user>hi\n<assistant>" and output.softprompt["rendering"] == "chat"


def test_the_rendering_can_be_chosen(ask):
    output = ask("team-a/notes", ("user", "hi"), extra_body={"rendering": "chat"})
    assert read(output) == "<user>hi\n<assistant>"
    for model in ("team-a/pairs", "tiny"):
        with pytest.raises(openai.BadRequestError, match="exactly one field"):
            ask(model, ("user", "hi"), extra_body={"rendering": "template"})


def test_a_model_without_a_chat_template_says_so(serve, new_lm):
    lm = new_lm("llama")
    lm.tokenizer.chat_template = None
    recipes = {"mood": {"template": {"input": "Review: {{ text }}"}}}
    client = openai.OpenAI(base_url=serve(lm=lm, recipes=recipes).url + "/v1", api_key="x", max_retries=0)
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="tiny", messages=messages)
    output = client.chat.completions.create(model="mood", messages=messages, temperature=0)
    assert read(output) == "Review: hi"


def test_one_of_several_prompts_is_named(ask):
    assert ask("team-a/voices:fact", ("user", "hi")).choices[0].message.content == "team-a/voices:fact[1]:hi"


def test_parts_of_text_are_one_text(client):
    parts = [{"type": "text", "text": "f"}, {"type": "text", "text": "un"}]
    output = client.chat.completions.create(
        model="team-a/notes", messages=[{"role": "user", "content": parts}], temperature=0
    )
    assert read(output) == "Review: fun\nMood:"


def test_choices_log_probabilities_and_usage(ask):
    output = ask(
        "tiny", ("user", "hi"), n=2, logprobs=True, top_logprobs=2, max_completion_tokens=3, max_tokens=None
    )
    assert [(c.index, c.message.content, c.finish_reason) for c in output.choices] == [
        (0, "pla", "length"), (1, "pla", "length"),
    ]  # fmt: skip
    first = output.choices[0].logprobs.content[0]
    assert (first.token, first.bytes, first.logprob) == ("p", [112], -0.25)
    assert [(top.token, top.logprob) for top in first.top_logprobs] == [("p", -0.25), ("!", -1.25)]
    assert output.usage.completion_tokens == 6 and output.usage.total_tokens == output.usage.prompt_tokens + 6


def test_strength_is_passed_on(ask):
    for strength in (0, 0.5, 2):
        output = ask("team-b/chat", ("user", "hi"), extra_body={"strength": strength})
        assert output.choices[0].message.content.startswith(f"team-b/chat[{strength:g}]:")


def test_streaming_says_what_the_whole_says(client):
    body = {"model": "team-b/chat", "messages": [{"role": "user", "content": "hi"}], "n": 2, "temperature": 0}
    whole = client.chat.completions.create(**body)
    texts, roles, last = ["", ""], [], None
    for chunk in client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}):
        last = chunk
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
    assert texts == [choice.message.content for choice in whole.choices] and roles == ["assistant"] * 2
    assert last.choices == [] and last.usage == whole.usage


def test_the_async_client_streams(served):
    import asyncio

    async def run():
        async with openai.AsyncOpenAI(base_url=served.url + "/v1", api_key="x", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True, temperature=0
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(run()) == "plain[1]:<user>hi\n<assistant>"


@pytest.mark.parametrize(
    "more",
    [
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "prompt_embeds", "data": "AAAA"}]}]},
        {"messages": [{"role": "user", "content": "x", "prompt_embeds": "AAAA"}]},
        {"tools": [{"type": "function", "function": {"name": "look"}}]},
        {"response_format": {"type": "json_object"}},
        {"top_logprobs": 3},
        {"max_tokens": 3, "max_completion_tokens": 4},
        {"strength": 3},
        {"rendering": "raw"},
        {"prompt_embeds": "AAAA"},
        {"kv_transfer_params": {"prefix_id": "x"}},
        {"cache_salt": "x"},
    ],
)
def test_what_cannot_be_answered_is_a_400(served, client, more):
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=messages, extra_body=more)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    assert served.engine.requests == []


def test_a_prompt_alone_needs_a_user_message(ask):
    with pytest.raises(openai.BadRequestError, match="no user message"):
        ask("team-a/notes", ("system", "hi"))
