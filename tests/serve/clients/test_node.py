"""openai-node and the AI SDK, by the snippets of the documentation and in longer conversations."""

from __future__ import annotations

import json

import pytest
from tests.serve.clients.snippets import snippet

pytestmark = pytest.mark.process

CONVERSATION = """
import OpenAI from "openai";
const [baseURL, way, ...texts] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [];
for (const content of texts) {
  messages.push({ role: "user", content });
  const asked = { model: "smollm2", messages, temperature: 0, max_tokens: 20 };
  messages.push(
    way === "stream"
      ? await client.chat.completions.stream(asked).finalMessage()
      : (await client.chat.completions.create(asked)).choices[0].message,
  );
}
console.log(JSON.stringify(messages.filter((one) => one.role === "assistant").map((one) => one.content)));
"""

AI = """
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, Output, streamText, tool } from "ai";
const baseURL = process.argv[2];
const softprompt = createOpenAICompatible({ name: "softprompt", baseURL, includeUsage: true });
const output = {};
const hello = { role: "user", content: "hello" };
const asked = { temperature: 0, maxOutputTokens: 12, maxRetries: 0 };
const stream = streamText({ model: softprompt("soft-after"), messages: [hello], ...asked });
output.streamed = "";
for await (const part of stream.textStream) output.streamed += part;
output.read = (await stream.usage).inputTokens;
const first = await generateText({ model: softprompt("smollm2"), messages: [hello], ...asked });
const messages = [hello, ...first.response.messages, { role: "user", content: "and" }];
output.first = first.text;
output.then = (await generateText({ model: softprompt("smollm2"), messages, ...asked })).text;
const zero = { ...asked, providerOptions: { softprompt: { strength: 0 } } };
output.plain = (await generateText({ model: softprompt("soft-after"), messages: [hello], ...zero })).text;
const schema = jsonSchema({ type: "object", properties: {} });
const refused = async (more) => {
  try {
    await generateText({ model: softprompt("soft-after"), messages: [hello], ...asked, ...more });
  } catch (error) {
    return `${error.statusCode} ${error.message}`;
  }
};
output.tools = await refused({ tools: { add: tool({ inputSchema: schema }) } });
output.form = await refused({ output: Output.object({ schema }) });
console.log(JSON.stringify(output));
"""


@pytest.fixture
def conversation(plain):
    """`conversation(texts, count)`: the base model's greedy answers, one after the other."""

    def answers(texts: list[str], count: int) -> list[str]:
        messages: list[dict[str, str]] = []
        for text in texts:
            messages.append({"role": "user", "content": text})
            messages.append({"role": "assistant", "content": plain(messages, count)})
        return [message["content"] for message in messages[1::2]]

    return answers


def test_the_snippet_of_openai_node(node, served, conversation):
    output = node(snippet("openai-python and openai-node", "js", served))
    assert output == conversation(["Name a fruit.", "Which colour has it?"], 20)[1]


@pytest.mark.parametrize("way", ["whole", "stream"])
def test_openai_node_sends_replies_back(node, url, conversation, way):
    texts = ["Name a fruit.", "Which colour has it?", "And its taste?"]
    assert json.loads(node(CONVERSATION, url, way, *texts)) == conversation(texts, 20)


def test_the_snippet_of_the_ai_sdk(node, served, tuned):
    output = node(snippet("AI SDK", "js", served))
    assert output == tuned("demo/prefix-tuning:joke", "Tell me about the sea.")


def test_the_ai_sdk(node, url, tuned, plain, conversation):
    output = json.loads(node(AI, url))
    assert output["streamed"] == tuned("soft-after", "hello", 12) and output["read"] == len("hello")
    assert [output["first"], output["then"]] == conversation(["hello", "and"], 12)
    assert output["plain"] == plain("hello", 12)  # the template of `soft-after` is its input alone
    assert output["tools"].startswith("400 tools: not supported")
    assert output["form"].startswith("400 response_format: not supported")
