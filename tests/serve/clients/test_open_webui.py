"""Open WebUI's requests, as its source makes them (`routers/openai.py`, `routers/tasks.py`).

It is too large to be installed for tests.
"""

from __future__ import annotations

import json

import httpx2 as httpx


def test_its_list_its_chats_and_its_titles(url, tuned, plain):
    with httpx.Client(headers={"Authorization": "Bearer none"}, timeout=60) as client:
        listed = client.get(f"{url}/models").json()["data"]
        assert {"smollm2", "soft-after", "demo/prefix-tuning:joke"} <= {one["id"] for one in listed}
        chat = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "model": "soft-after",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0,
            "max_tokens": 12,
        }
        with client.stream("POST", f"{url}/chat/completions", json=chat) as reply:
            assert reply.status_code == 200 and "text/event-stream" in reply.headers["content-type"]
            events = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
        assert events.pop() == "[DONE]"
        *parts, end = [json.loads(event) for event in events]
        output = "".join(choice["delta"].get("content") or "" for part in parts for choice in part["choices"])
        assert output == tuned("soft-after", "hello", 12)
        assert end["usage"]["prompt_tokens"] == len("hello")
        title = {
            "model": "smollm2",
            "messages": [{"role": "user", "content": "A title for: hello"}],
            "stream": False,
            "max_completion_tokens": 20,
            "temperature": 0,
        }
        reply = client.post(f"{url}/chat/completions", json=title).json()
        assert reply["choices"][0]["message"]["content"] == plain(title["messages"], 20)
