"use strict";
// The second tab: a conversation as a tree. An edit or a new answer is a branch; nothing is overwritten.
(() => {
  const { find, make, ask, checked, events, get, save, suggest, key } = globalThis.playground;
  const ROOT = "root";
  const nodes = new Map(), places = new Map(); // by id: a message, and where its text is shown
  let chosen = {}, facts = {}, running = null, base = "", count = 0, checking = Promise.resolve();

  // --- the tree ---

  const childrenOf = (id) => [...nodes.values()].filter((one) => one.parent === id);
  const add = (node) => { const id = `n${count++}`; nodes.set(id, { id, ...node }); return nodes.get(id); };
  const path = (until) => {
    const messages = [];
    for (let id = chosen[ROOT]; id && nodes.has(id); id = chosen[id]) {
      messages.push(nodes.get(id));
      if (id === until) break;
    }
    return messages;
  };
  // The alternatives at a place: messages of a person, or answers, of which those that came together count once.
  const alternatives = (node) => [...new Map(childrenOf(node.parent).map((one) => [one.group ?? one.id, one])).entries()];
  const chooseNode = (node) => { chosen[node.parent] = node.id; };

  // --- what is sent ---

  const number = (id) => Number(find(id).value);
  const voices = () => [find("voice").value.trim() || base, find("beside").value.trim()].filter(Boolean);
  const systemText = () => (find("system-part").hidden ? "" : find("system").value.trim());

  const bodyFor = (voice, messages, shift = 0) => ({
    model: voice,
    messages: [
      ...(systemText() ? [{ role: "system", content: systemText() }] : []),
      ...messages.filter((one) => one.text && !one.error).map(({ role, text }) => ({ role, content: text })),
    ],
    temperature: number("chat-temperature"), max_tokens: number("chat-longest"), seed: number("chat-seed") + shift,
    ...(voice !== base && number("chat-strength") !== 1 && { strength: number("chat-strength") }),
  });

  const stream = async (node, messages, shift, signal) => {
    try {
      const body = { ...bodyFor(node.voice, messages, shift), stream: true, stream_options: { include_usage: true } };
      for await (const event of events(await checked(await ask("/v1/chat/completions", body, signal)))) {
        if (event.usage) Object.assign(node, { tokens: event.usage.completion_tokens, read: event.usage.prompt_tokens });
        const choice = event.choices[0];
        if (event.softprompt?.unread_messages) node.unread = event.softprompt.unread_messages;
        if (choice?.finish_reason === "length") node.cut = true;
        if (!choice?.delta?.content) continue;
        node.text += choice.delta.content;
        const place = places.get(node.id);
        if (place) place.textContent = node.text.trimStart();
      }
      node.text = node.text.trim();
    } catch (error) {
      node.text = node.text.trim();
      if (signal.aborted) node.stopped = true;
      else node.error = error.message;
      if (error.status === 401) find("key-form").hidden = false;
    }
  };

  const answer = async (user) => {
    if (running) return;
    running = new AbortController();
    busy(true);
    await checking; // a name that was just written may be an artifact of several prompts
    const messages = path(user.id), shift = alternatives({ parent: user.id }).length, group = `g${count++}`;
    const answers = voices().map((voice) => add({ parent: user.id, role: "assistant", text: "", voice, group }));
    chooseNode(answers[0]);
    render();
    find("turns").lastElementChild?.scrollIntoView({ block: "nearest" });
    const begun = performance.now();
    await Promise.all(answers.map((node) => stream(node, messages, shift, running.signal)));
    const good = answers.find((one) => !one.error) ?? answers[0];
    chooseNode(good);
    running = null;
    busy(false);
    render();
    const failed = answers.filter((one) => one.error).length;
    say(failed === answers.length ? good.error : `answered in ${((performance.now() - begun) / 1000).toFixed(2)} s`, failed > 0);
    keep();
  };

  const busy = (is) => {
    find("send").disabled = is;
    find("chat-stop").hidden = !is;
    if (is) say("Answering …");
  };

  const say = (text, failed = false) => {
    find("chat-status").textContent = text;
    find("chat-status").classList.toggle("failed", failed);
  };

  const send = () => {
    const text = find("say").value.trim(), last = path().at(-1);
    if (running) return;
    if (!text) { say("Write something first."); return; }
    const user = add({ parent: last?.role === "user" ? last.parent : last?.id ?? ROOT, role: "user", text });
    chooseNode(user);
    find("say").value = "";
    answer(user);
  };

  // --- what is shown ---

  const button = (label, title, act, node) => {
    const element = make("button", { type: "button", textContent: label, ariaLabel: title });
    element.dataset.key = `${node.id} ${label}`;
    element.addEventListener("click", () => { if (!running) act(); });
    return element;
  };

  const branches = (node) => {
    const all = alternatives(node), at = all.findIndex(([id]) => id === (node.group ?? node.id));
    if (all.length < 2) return [];
    const step = (by) => () => { chosen[node.parent] = all[(at + by + all.length) % all.length][1].id; render(); keep(); };
    return [button("‹", "Branch before", step(-1), node), make("span", { className: "quiet", textContent: `${at + 1} of ${all.length}` }), button("›", "Next branch", step(1), node)];
  };

  const edit = (node, part) => {
    const box = make("textarea", { value: node.text, rows: 3, ariaLabel: "Edit the message" });
    const done = () => {
      const text = box.value.trim();
      if (!text || running) return;
      const user = add({ parent: node.parent, role: "user", text });
      chooseNode(user);
      find("say").focus();
      answer(user);
    };
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.stopPropagation(); render(); find("say").focus(); }
      if (sends(event)) { event.preventDefault(); done(); }
    });
    const keepOld = make("button", { type: "button", textContent: "Cancel" }), use = make("button", { type: "button", className: "main", textContent: "Ask as a branch" });
    keepOld.addEventListener("click", () => { render(); find("say").focus(); });
    use.addEventListener("click", done);
    part.replaceChildren(box, make("div", { className: "bar" }, use, keepOld));
    box.focus();
  };

  const userPart = (node) => {
    const part = make("div", { className: "message user" }), text = make("p", { className: "text", textContent: node.text });
    part.append(make("b", { className: "who", textContent: "You" }), text, make("div", { className: "acts" }, button("Edit", "Edit this message as a branch", () => edit(node, part), node), ...branches(node)));
    return part;
  };

  const answerPart = (node, continues, together) => {
    const part = make("div", { className: `message assistant${together && continues ? " continues" : ""}` });
    const text = make("p", { className: "text", textContent: node.text });
    places.set(node.id, text);
    const isRunning = running && !node.text && !node.error;
    part.setAttribute("aria-busy", String(Boolean(isRunning)));
    const notes = [
      node.tokens === undefined ? "" : `${node.tokens} tokens, ${node.read} read`, node.cut ? "cut off" : "", node.stopped ? "stopped" : "",
      node.unread ? `read your last message alone: ${node.unread} earlier ${node.unread === 1 ? "message was" : "messages were"} not read` : "",
    ].filter(Boolean).join(" · ");
    part.append(make("b", { className: "who", textContent: node.voice }), text);
    if (node.error) part.append(make("p", { className: "failed", textContent: node.error }));
    else if (!node.text && !running) part.append(make("p", { className: "quiet", textContent: "(an empty answer)" }));
    part.append(make("p", { className: "cost quiet", textContent: notes }));
    const acts = make("div", { className: "acts" });
    if (together && continues) acts.append(make("span", { className: "quiet", textContent: "the conversation continues from this" }));
    if (together && !continues && !node.error) acts.append(button("Continue from this", `Continue from the answer of ${node.voice}`, () => { chooseNode(node); render(); keep(); }, node));
    if (continues) acts.append(button("Answer again", "Answer again, with the voice that is chosen now", () => answer(nodes.get(node.parent)), node), ...branches(node));
    part.append(acts);
    return part;
  };

  const render = () => {
    const focused = document.activeElement?.dataset?.key;
    places.clear();
    find("turns").replaceChildren(...path().map((node) => {
      if (node.role === "user") return make("li", {}, userPart(node));
      const group = childrenOf(node.parent).filter((one) => one.group === node.group);
      const turn = make("li", { className: "answers-of" }, ...group.map((one) => answerPart(one, one === node, group.length > 1)));
      return turn;
    }));
    find("empty-chat").hidden = nodes.size > 0;
    for (const id of ["export-chat", "new-chat"]) find(id).disabled = !nodes.size;
    if (focused) ([...find("turns").querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused) ?? find("say")).focus();
    if (!find("code").hidden) showCode();
  };

  // --- voices ---

  const check = (id) => { find(id).dataset.state = "asked"; checking = checking.then(() => lookUp(id)); return checking; };

  const lookUp = async (id) => {
    const name = find(id).value.trim();
    try {
      if (name && !(name in facts)) facts[name] = (await get(`/v1/models/${name.split("/").map(encodeURIComponent).join("/")}`)).softprompt ?? null;
      if (facts[name]?.prompts.length > 1 && !name.includes(":")) find(id).value = `${name}:${facts[name].prompts[0]}`, facts[find(id).value] = facts[name];
      if (find("chat-status").classList.contains("failed")) say("");
    } catch (error) { say(error.message, true); }
    systemWhereRead();
    find(id).dataset.state = "known";
    if (!find("code").hidden) showCode();
    keep();
  };

  const systemWhereRead = () => {
    const known = voices().map((name) => facts[name]).filter((one) => one !== undefined);
    find("system-part").hidden = known.length > 0 && !known.some((one) => one === null || one.chat);
    find("system").placeholder = known.find((one) => one?.system)?.system ?? "None";
  };

  // --- copied and exported ---

  const pythonText = (value) => JSON.stringify(value); // a text of JSON is one of Python

  const codeFor = (kind) => {
    const shown = path(), last = shown.findLastIndex((one) => one.role === "user");
    const body = bodyFor(voices()[0], last < 0 ? [{ role: "user", text: find("say").value.trim() || "Hello" }] : shown.slice(0, last + 1));
    const url = `${location.origin}/v1`, secret = Boolean(key());
    const from = secret ? 'os.environ["SOFTPROMPT_KEY"]' : '"none"';
    if (kind === "curl") return [
      `curl ${url}/chat/completions \\`, "  -H 'Content-Type: application/json' \\", ...(secret ? ['  -H "Authorization: Bearer $SOFTPROMPT_KEY" \\'] : []),
      `  -d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`, "",
    ].join("\n");
    if (kind === "python") return [
      ...(secret ? ["import os"] : []), "import json", "import urllib.request", "", `body = json.loads(${pythonText(JSON.stringify(body))})`,
      "request = urllib.request.Request(", `    ${pythonText(`${url}/chat/completions`)},`, "    data=json.dumps(body).encode(),",
      `    headers={"Content-Type": "application/json"${secret ? `, "Authorization": "Bearer " + ${from}` : ""}},`, ")",
      "with urllib.request.urlopen(request) as reply:", '    print(json.load(reply)["choices"][0]["message"]["content"])', "",
    ].join("\n");
    const { strength, messages, ...rest } = body;
    return [
      ...(secret ? ["import os", ""] : []), "from openai import OpenAI", "", `client = OpenAI(base_url=${pythonText(url)}, api_key=${from})`,
      "reply = client.chat.completions.create(", ...Object.entries(rest).map(([name, value]) => `    ${name}=${pythonText(value)},`), "    messages=[",
      ...messages.map((one) => `        {"role": ${pythonText(one.role)}, "content": ${pythonText(one.content)}},`), "    ],",
      ...(strength === undefined ? [] : [`    extra_body={"strength": ${strength}},`]), ")", "print(reply.choices[0].message.content)", "",
    ].join("\n");
  };

  const showCode = () => { find("code").textContent = codeFor(find("code-kind").value); };

  const copy = async () => {
    find("code").hidden = false;
    showCode();
    try {
      await navigator.clipboard.writeText(find("code").textContent);
      say("The code is copied.");
    } catch { // a page that is not on this machine, and has no TLS
      getSelection().selectAllChildren(find("code"));
      say("The code is marked: copy it.");
    }
  };

  // One row an answer that is shown: the prompt's own fields, and the messages before it.
  const rows = () => {
    const shown = path();
    return shown.flatMap((node, at) => {
      if (node.role !== "assistant" || !node.text || node.error) return [];
      const { fields = ["input"], target_field: target, prompt_field: field } = facts[node.voice] ?? {};
      const history = shown.slice(0, at - 1).map(({ role, text }) => `${role}: ${text}`).join("\n");
      const name = node.voice.includes(":") ? node.voice.slice(node.voice.indexOf(":") + 1) : facts[node.voice]?.prompts[0];
      return [{ [fields[0]]: nodes.get(node.parent).text, ...(field && { [field]: name }), [target || "target"]: node.text, history }];
    });
  };

  // --- kept in the browser, for each base model ---

  const SETTINGS = ["voice", "beside", "system", "chat-temperature", "chat-longest", "chat-seed", "chat-strength"];
  const slot = () => `softprompt conversation: ${base}`;
  const keep = () => {
    if (!base) return;
    const values = Object.fromEntries(SETTINGS.map((id) => [id, find(id).value]));
    try { localStorage.setItem(slot(), JSON.stringify({ nodes: [...nodes.values()], chosen, count, values })); } catch { say("This browser keeps no more: export what you need.", true); }
  };

  const restore = () => {
    let kept = null;
    try { kept = JSON.parse(localStorage.getItem(slot())); } catch { /* nothing is kept */ }
    for (const [id, value] of Object.entries(kept?.values ?? {})) if (SETTINGS.includes(id)) find(id).value = value;
    for (const node of kept?.nodes ?? []) nodes.set(node.id, node);
    chosen = kept?.chosen ?? {};
    count = kept?.count ?? 0;
  };

  // --- what a person does ---

  const touch = matchMedia("(pointer: coarse)");
  const sends = (event) => event.key === "Enter" && !event.isComposing && (event.ctrlKey || event.metaKey || (!event.shiftKey && !touch.matches));

  find("say-form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  find("say").addEventListener("keydown", (event) => { if (sends(event)) { event.preventDefault(); send(); } });
  find("chat").addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
  find("chat-stop").addEventListener("click", () => running?.abort());
  for (const id of ["voice", "beside"]) {
    find(id).addEventListener("change", () => check(id));
    let waiting = 0;
    find(id).addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => suggest(find(id).value).catch(() => {}), 150); });
  }
  for (const id of SETTINGS.slice(2)) find(id).addEventListener("change", () => { keep(); if (!find("code").hidden) showCode(); });
  find("copy-code").addEventListener("click", copy);
  find("code-kind").addEventListener("change", () => { if (!find("code").hidden) showCode(); });
  find("export-chat").addEventListener("click", () => save("conversation.jsonl", rows()));
  find("new-chat").addEventListener("click", () => {
    if (running) return;
    nodes.clear();
    chosen = {};
    find("code").hidden = true;
    render();
    keep();
    find("say").focus();
  });

  // The tabs; the address remembers which.
  const tabs = ["compare", "chat"];
  const open = (name, focus) => {
    for (const one of tabs) {
      const is = one === name, tab = find(`tab-${one}`);
      tab.setAttribute("aria-selected", String(is));
      tab.tabIndex = is ? 0 : -1;
      find(one).hidden = !is;
    }
    document.querySelector(".skip").href = name === "chat" ? "#say" : "#input";
    if (focus === "tab") find(`tab-${name}`).focus();
    else if (focus) find(name === "chat" ? "say" : "input").focus();
  };
  for (const name of tabs) {
    find(`tab-${name}`).addEventListener("click", () => { history.replaceState(null, "", `#${name}`); open(name, "field"); });
    find(`tab-${name}`).addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = tabs[1 - tabs.indexOf(name)];
      history.replaceState(null, "", `#${other}`);
      open(other, "tab");
    });
  }
  addEventListener("hashchange", () => { const name = location.hash.slice(1); if (tabs.includes(name)) open(name, "field"); });
  if (location.hash === "#chat") open("chat");

  globalThis.playground.onReady((name, prompts) => {
    if (base) return;
    base = name;
    restore();
    if (!find("voice").value) find("voice").value = [...prompts].sort((a, b) => b.created - a.created)[0]?.id ?? base;
    facts[base] = null;
    check("voice");
    check("beside");
    render();
    if (!find("chat").hidden) find("say").focus();
  });
})();
