"""Send the same input to every prompt of an export; a llama-server restores a slot for each.

    softprompt export runs/style --to llama.cpp --gguf model.gguf --slots 2 --out slots
    llama-server -m model.gguf --parallel 2 --slot-save-path slots/
    python examples/llama_cpp_slots.py slots "a lighthouse in the fog"

It needs only Python. A template with one field is filled in; any other input is sent unchanged.
"""

from __future__ import annotations

import argparse
import json
import re
import urllib.request
from pathlib import Path


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def restore(server: str, number: int, slot: dict) -> None:
    """Put a prompt into slot `number`."""
    done = post(f"{server}/slots/{number}?action=restore", {"filename": slot["file"]})
    if done["n_restored"] != len(slot["tokens"]):
        raise SystemExit(f"{slot['file']}: restored {done['n_restored']} of {len(slot['tokens'])} tokens")


def ask(server: str, number: int, slot: dict, text: str, tokens: int) -> str:
    """Return the answer under a prompt. The server compares its placeholder tokens with the slot."""
    body = {"prompt": [*slot["tokens"], text], "id_slot": number, "cache_prompt": True}
    for _ in range(2):
        answer = post(f"{server}/completion", {**body, "n_predict": tokens, "temperature": 0})
        if answer["timings"]["cache_n"] >= len(slot["tokens"]):
            return answer["content"]
        restore(server, number, slot)  # another request took the slot: its tokens were read as text
    count, used = len(slot["tokens"]), answer["timings"]["cache_n"]
    raise SystemExit(
        f"this llama-server restores nothing, though it reports {count} restored tokens: the next "
        f"request continued from {used} of them. Builds b8929 to b11549 were tried and restore; or other "
        f"clients use slot {number}, which must hold '{slot['prompt']}'"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `softprompt export --to llama.cpp` wrote")
    parser.add_argument("input")
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--tokens", type=int, default=32)
    given = parser.parse_args(arguments)
    exported = json.loads((given.folder / "slots.json").read_text(encoding="utf-8"))
    text = re.sub(r"\{\{ *\w+ *\}\}", lambda _: given.input, exported["template"]["input"])
    for number, slot in enumerate(exported["slots"]):
        restore(given.server, number, slot)
    for number, slot in enumerate(exported["slots"]):
        print(slot["prompt"], json.dumps(ask(given.server, number, slot, text, given.tokens)), sep="\t")


if __name__ == "__main__":
    main()
