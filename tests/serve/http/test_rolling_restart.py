"""Two servers behind a proxy are restarted one after the other, under load, and no request fails."""

from __future__ import annotations

import json
import signal
import threading

import httpx2 as httpx
from tests.serve.http.proxy import Proxy

BODY = {"model": "team-a/voices:joke", "prompt": "ab", "max_tokens": 30, "temperature": 0}


def asked(url, streamed):
    """The whole text of an answer."""
    reply = httpx.post(url + "/v1/completions", json=BODY | {"stream": streamed}, timeout=60)
    assert reply.status_code == 200, reply.text
    if not streamed:
        return reply.json()["choices"][0]["text"]
    events = [part.removeprefix("data: ") for part in reply.text.split("\n\n") if part]
    assert events[-1] == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])


def test_no_request_fails_while_both_servers_restart(serve):
    servers = [serve(delay=0.005, drain=20.0) for _ in range(2)]
    expected = asked(servers[0].url, False)
    proxy = Proxy([server.url for server in servers])
    failures, counts, finished = [], [0, 0, 0], threading.Event()

    def client(number):
        while not finished.is_set():
            try:
                assert asked(proxy.url, number % 2 == 0) == expected
                counts[number] += 1
            except Exception as error:
                failures.append(error)
                return

    clients = [threading.Thread(target=client, args=(number,)) for number in range(3)]
    for thread in clients:
        thread.start()
    old = list(servers)
    try:
        for place in range(2):
            servers[place].server.handle_exit(signal.SIGTERM, None)  # as systemd and Kubernetes do
            servers[place].thread.join(30)
            assert not servers[place].thread.is_alive()
            servers[place] = serve(delay=0.005, drain=20.0)
            proxy.servers[place] = servers[place].url
            before = sum(counts)
            while sum(counts) < before + 4 and not failures:
                threading.Event().wait(0.02)
    finally:
        finished.set()
        for thread in clients:
            thread.join(60)
        proxy.stop()
    assert failures == [] and all(counts)
    assert proxy.retried  # requests did meet a server that was away
    assert all(server.engine.requests for server in (*old, *servers))
