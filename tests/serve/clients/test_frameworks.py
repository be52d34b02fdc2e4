"""litellm, LangChain, instructor and llm: the documentation's snippets, streams and conversations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.serve.clients.snippets import snippet, snippets

JOKE, SEA = "demo/prefix-tuning:joke", "Tell me about the sea."
CHAT = [{"role": "user", "content": "hello"}]
REFUSED = r"(tools|response_format): not supported"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


@pytest.fixture
def conversation(plain):
    """The base model's answer to `CHAT`, and its next one to "and"."""
    first = plain(CHAT, 12)
    again = [*CHAT, {"role": "assistant", "content": first}, {"role": "user", "content": "and"}]
    return first, plain(again, 12)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


class TestLitellm:
    @pytest.fixture(autouse=True)
    def litellm(self, monkeypatch):
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        return pytest.importorskip("litellm", reason="NO LITELLM: make test-clients")

    def test_the_snippet(self, served, tuned):
        reply = run(snippet("litellm", "python", served))["reply"]
        assert reply.choices[0].message.content == tuned(JOKE, SEA)

    def test_streams_texts_and_conversations(self, litellm, url, tuned, plain, conversation):
        to: dict[str, Any] = {"api_base": url, "api_key": "none", **GREEDY}
        parts = litellm.completion(model="openai/soft-after", messages=CHAT, stream=True, **to)
        output = "".join(part.choices[0].delta.content or "" for part in parts)
        assert output == tuned("soft-after", "hello", 12)
        text = litellm.text_completion(model="text-completion-openai/smollm2", prompt="hello", **to)
        assert text.choices[0].text == plain("hello", 12)
        first = litellm.completion(model="openai/smollm2", messages=CHAT, **to).choices[0].message
        again = [*CHAT, first, {"role": "user", "content": "and"}]
        then = litellm.completion(model="openai/smollm2", messages=again, **to).choices[0].message
        assert (first.content, then.content) == conversation


class TestLangchain:
    @pytest.fixture(autouse=True)
    def langchain(self):
        return pytest.importorskip("langchain_openai", reason="NO LANGCHAIN: make test-clients")

    @pytest.fixture
    def chat(self, langchain, url):
        return lambda model: langchain.ChatOpenAI(model=model, base_url=url, api_key="none", **GREEDY)

    def test_the_snippet(self, served, tuned):
        assert run(snippet("LangChain", "python", served))["reply"].content == tuned(JOKE, SEA)

    def test_streams_batches_texts_and_conversations(self, langchain, chat, url, tuned, plain, conversation):
        texts = ["hello", "no", "x"]
        answers = [tuned("soft-after", text, 12) for text in texts]
        assert [reply.content for reply in chat("soft-after").batch(texts)] == answers
        assert "".join(part.content for part in chat("soft-after").stream("hello")) == answers[0]
        text = langchain.OpenAI(model="smollm2", base_url=url, api_key="none", **GREEDY).invoke("hello")
        assert text == plain("hello", 12)
        first = chat("smollm2").invoke([("user", "hello")])
        then = chat("smollm2").invoke([("user", "hello"), first, ("user", "and")])
        assert (first.content, then.content) == conversation

    @pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
    def test_structured_output_is_refused(self, chat, method):
        import openai

        schema = {"title": "fruit", "description": "one", "type": "object", "properties": {}}
        with pytest.raises(openai.BadRequestError, match=REFUSED):
            chat("soft-after").with_structured_output(schema, method=method).invoke("hello")


class TestInstructor:
    @pytest.fixture(autouse=True)
    def instructor(self):
        return pytest.importorskip("instructor.core.exceptions", reason="NO INSTRUCTOR: make test-clients")

    def test_the_snippet_asks_in_words(self, served, plain, instructor):
        """The tiny model writes no JSON: what it wrote is what instructor could not read."""
        names, sent = run(snippet("instructor", "python", served)), {}
        names["client"].on("completion:kwargs", lambda *_, **asked: sent.update(asked))
        unread = (instructor.IncompleteOutputException, instructor.InstructorRetryException)
        with pytest.raises(unread) as caught:
            names["fruit"]("Name a fruit.")
        output = caught.value.last_completion.choices[0].message.content
        assert output == plain(sent["messages"], 40)

    @pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA"])
    def test_the_other_modes_are_refused(self, served, instructor, mode):
        code = snippet("instructor", "python", served).replace("Mode.MD_JSON", f"Mode.{mode}")
        with pytest.raises(instructor.InstructorRetryException, match=REFUSED):
            run(code)["fruit"]("Name a fruit.")


@pytest.mark.process
class TestLlm:
    @pytest.fixture(autouse=True)
    def home(self, served, tmp_path):
        pytest.importorskip("llm", reason="NO LLM: make test-clients")
        models = snippet("llm", "yaml", served)
        models += models.replace("joke\n", "base\n", 1).replace(JOKE, "smollm2")
        (tmp_path / "extra-openai-models.yaml").write_text(models)
        self.env = os.environ | {"LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
        self.env["PATH"] = f"{Path(sys.executable).parent}:{self.env['PATH']}"

    def say(self, command: str) -> str:
        return subprocess.run(
            ["sh", "-c", command], env=self.env, check=True, capture_output=True, text=True, timeout=300
        ).stdout.removesuffix("\n")

    def test_the_snippet(self, tuned):
        command = snippets("llm", "bash")[0]
        assert self.say(command) == tuned(JOKE, SEA)
        assert self.say(command.replace("llm", "llm --no-stream", 1)) == tuned(JOKE, SEA)

    def test_a_conversation(self, conversation):
        first = self.say("llm -m base -o temperature 0 -o max_tokens 12 hello")
        then = self.say("llm -c -o temperature 0 -o max_tokens 12 and")
        assert (first, then) == conversation
