"use strict";
// One input, several columns: each asks the server's own API and shows what comes. Texts are set as text, never as HTML.
(() => {
  const find = (id) => document.getElementById(id);
  const columns = [], runs = [];
  let base = "", key = "", running = null, colours = 0;

  // --- the API ---

  const ask = (path, body, signal) => fetch(path, {
    method: body ? "POST" : "GET",
    headers: { ...(body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) },
    body: body && JSON.stringify(body),
    signal,
  });

  class Refused extends Error {
    constructor(status, error) { super(error.message); this.status = status; this.code = error.code; }
  }

  const checked = async (response) => {
    if (response.ok) return response;
    const said = await response.json().catch(() => ({ error: { message: response.statusText } }));
    throw new Refused(response.status, said.error);
  };

  const get = async (path) => (await checked(await ask(path))).json();

  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let held = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (held + value).split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refused(500, event.error);
        yield event;
      }
    }
  }

  // --- columns ---

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const titles = { plain: "Plain model", hard: "Hard prompt" };

  const entitle = (column, title) => {
    column.title = title;
    column.part.querySelector("h3").textContent = title;
    column.part.setAttribute("aria-label", title);
    column.part.querySelector(".remove").setAttribute("aria-label", `Remove ${title}`);
  };

  const addColumn = (kind, name = "", facts = null) => {
    const part = find("column-template").content.cloneNode(true).querySelector("section");
    const column = { kind, folder: name, name, facts, part, options: part.querySelector(".options") };
    part.classList.add(kind, kind === "tuned" ? `c${colours++ % 8}` : "cref");
    entitle(column, titles[kind] || name);
    part.querySelector(".remove").addEventListener("click", () => {
      columns.splice(columns.indexOf(column), 1);
      part.remove();
      (columns.length ? columns[0].part.querySelector("button, select, textarea, input") : find("prompt")).focus();
      offer();
    });
    if (kind === "tuned") tunedOptions(column);
    else untunedOptions(column);
    find("columns").append(part);
    columns.push(column);
    offer();
    return column;
  };

  const tunedOptions = (column) => {
    const { facts, part, options } = column;
    part.querySelector(".about").textContent = [
      facts.kind, facts.method,
      facts.fields.length === 1 ? "" : `write the input as JSON with ${facts.fields.map((f) => `“${f}”`).join(", ")}`,
    ].filter(Boolean).join(" · ");
    if (facts.prompts.length > 1) {
      const choice = make("select", {}, ...facts.prompts.map((name) => make("option", { textContent: name })));
      const choose = () => {
        column.name = `${column.folder}:${choice.value}`;
        entitle(column, column.name);
      };
      choice.addEventListener("change", () => { choose(); offer(); });
      options.append(make("label", {}, "Prompt", choice));
      choose();
    }
    const slider = make("input", { type: "range", min: 0, max: 2, step: 0.1, value: 1 });
    const shown = make("output", { textContent: "1.0" });
    slider.addEventListener("input", () => { shown.textContent = Number(slider.value).toFixed(1); });
    options.append(make("label", { className: "slider" }, "Strength", slider, shown));
    column.strength = () => Number(slider.value);
  };

  const untunedOptions = (column) => {
    if (column.kind === "hard") {
      column.words = make("textarea", { rows: 3, placeholder: "Your own instruction, put before the input" });
      column.options.append(make("label", { className: "tall" }, make("span", { className: "hidden", textContent: "Your own prompt" }), column.words));
    }
    column.template = make("select");
    column.options.append(make("label", {}, "Template", column.template));
  };

  // What plain columns read: the template of a tuned prompt, so that only the vectors differ, or the model's chat.
  const offer = () => {
    const tuned = columns.filter((column) => column.kind === "tuned");
    for (const column of columns.filter((one) => one.template)) {
      const before = column.template.dataset.chosen ? column.template.value : "";
      column.template.replaceChildren(
        ...[...new Set(tuned.map((one) => one.name))].map((name) => make("option", { value: name, textContent: `of ${name}` })),
        make("option", { value: "", textContent: "the model’s chat" }),
      );
      if (column.template.dataset.chosen && [...column.template.options].some((one) => one.value === before)) column.template.value = before;
      column.template.onchange = () => { column.template.dataset.chosen = "yes"; };
    }
  };

  // --- asking ---

  const rowOf = (facts, input, words) => {
    if (facts.fields.length === 1) return { [facts.fields[0]]: words + input };
    let row = null;
    try { row = JSON.parse(input); } catch { /* said below */ }
    if (!row || typeof row !== "object" || Array.isArray(row)) throw new Error(`Write the input as JSON: {${facts.fields.map((f) => `"${f}": "…"`).join(", ")}}`);
    const first = facts.fields[0];
    return words ? { ...row, [first]: words + row[first] } : row;
  };

  const requestOf = (column, input) => {
    const like = column.kind === "tuned" ? column : columns.find((one) => one.kind === "tuned" && one.name === column.template.value);
    const words = column.kind === "hard" ? `${column.words.value.trim()}\n\n` : "";
    const strength = column.kind === "tuned" ? column.strength() : 0;
    const how = { temperature: Number(find("temperature").value), max_tokens: Number(find("longest").value), seed: Number(find("seed").value) };
    const stream = { stream: true, stream_options: { include_usage: true } };
    const plain = { ...how, ...stream, model: base };
    if (!like) return {
      path: "/v1/chat/completions", body: { ...plain, messages: [{ role: "user", content: words + input }] },
      otherwise: { path: "/v1/completions", body: { ...plain, prompt: words + input } },
    };
    const row = rowOf(like.facts, input, words);
    if (["classification", "choice"].includes(like.facts.kind)) return { path: "/v1/classify", body: { model: like.name, input: row, strength } };
    const tuned = { ...how, ...stream, model: like.name, strength };
    if (like.facts.fields.length > 1) return { path: "/v1/completions", body: { ...tuned, row } };
    return { path: "/v1/chat/completions", body: { ...tuned, rendering: "template", messages: [{ role: "user", content: Object.values(row)[0] }] } };
  };

  const answer = async (column, input, signal) => {
    const place = column.part.querySelector(".answer"), cost = column.part.querySelector(".cost");
    const result = { name: column.title, strength: column.strength?.() ?? null, hard: column.words?.value.trim() ?? null };
    const begun = performance.now(), seconds = () => (performance.now() - begun) / 1000;
    place.setAttribute("aria-busy", "true");
    place.replaceChildren(make("p", { className: "text" }));
    cost.textContent = "";
    try {
      let { path, body, otherwise } = requestOf(column, input);
      let response = await ask(path, body, signal);
      if (response.status === 400 && otherwise && (await response.clone().json()).error.code === "no_chat_template") {
        ({ path, body } = otherwise);
        response = await ask(path, body, signal);
      }
      await checked(response);
      if (path === "/v1/classify") scored(column, place, result, await response.json());
      else await written(place, result, response, seconds);
      result.seconds = Number(seconds().toFixed(3));
      cost.textContent = costOf(result);
    } catch (error) {
      result.error = error.name === "AbortError" ? "stopped" : error.message;
      if (error.name !== "AbortError" || !result.text) place.append(make("p", { className: "failed", textContent: result.error }));
      cost.textContent = result.text ? `${result.error} · ${seconds().toFixed(2)} s` : "";
      if (error.status === 401) find("key-form").hidden = false;
    } finally {
      place.setAttribute("aria-busy", "false");
    }
    return result;
  };

  const written = async (place, result, response, seconds) => {
    const text = place.querySelector(".text");
    result.text = "";
    for await (const event of events(response)) {
      const choice = event.choices[0];
      if (event.usage) Object.assign(result, { tokens: event.usage.completion_tokens, vectors: event.usage.prompt_vectors });
      if (!choice) continue;
      const piece = choice.delta ? choice.delta.content : choice.text;
      if (piece) {
        result.first ??= Number(seconds().toFixed(3));
        result.text += piece;
        text.textContent = result.text.trimStart();
      }
      if (choice.finish_reason) result.reason = choice.finish_reason;
    }
    result.text = result.text.trim();
    if (!result.text) text.replaceWith(make("p", { className: "quiet", textContent: "(an empty answer)" }));
  };

  const share = (value) => {
    const bar = make("div", { className: "share" });
    bar.style.width = `${100 * value}%`;
    return bar;
  };

  const scored = (column, place, result, reply) => {
    const { label, probs } = reply.data[0];
    Object.assign(result, { text: label, probs });
    const rows = Object.entries(probs).map(([name, value]) => make("div", {},
      make("dt", { textContent: name, className: name === label ? "best" : "" }),
      make("dd", { textContent: `${(100 * value).toFixed(1)} %`, className: name === label ? "best" : "" }),
      make("div", { className: "track", ariaHidden: "true" }, share(value)),
    ));
    place.replaceChildren(make("dl", { className: "labels" }, ...rows));
  };

  const costOf = ({ tokens, seconds, first, vectors, reason }) => [
    tokens === undefined ? "" : `${tokens} tokens`,
    `${seconds.toFixed(2)} s`,
    first === undefined ? "" : `first after ${first.toFixed(2)} s`,
    vectors ? `${vectors} vectors` : "",
    reason === "length" ? "cut off" : "",
  ].filter(Boolean).map((part) => part.replaceAll(" ", "\u00a0")).join(" · ");

  const run = async () => {
    const input = find("input").value;
    if (running || !columns.length) return;
    if (!input.trim()) { say("Write an input first."); find("input").focus(); return; }
    const asked = columns.filter((column) => column.kind !== "hard" || column.words.value.trim());
    for (const column of columns.filter((one) => !asked.includes(one)))
      column.part.querySelector(".answer").replaceChildren(make("p", { className: "quiet", textContent: "Write a prompt of your own above, and it is run too." }));
    running = new AbortController();
    find("run").disabled = true;
    find("stop").hidden = false;
    say("Running …");
    const like = columns.find((column) => column.kind === "tuned");
    const begun = performance.now();
    const answers = await Promise.all(asked.map((column) => answer(column, input, running.signal)));
    running = null;
    find("run").disabled = false;
    find("stop").hidden = true;
    const failed = answers.filter((one) => one.error).length, total = ((performance.now() - begun) / 1000).toFixed(2);
    say(`${answers.length - failed} answers in ${total} s${failed ? `, ${failed} failed` : ""}`, failed > 0);
    remember({ input, answers, fields: like ? { input: like.facts.fields[0], target: like.facts.target_field || "target", all: like.facts.fields } : { input: "input", target: "target", all: ["input"] } });
  };

  const say = (text, failed = false) => {
    find("status").textContent = text;
    find("status").classList.toggle("failed", failed);
  };

  // --- history ---

  const remember = (one) => {
    const part = find("run-template").content.cloneNode(true).querySelector("li");
    const right = part.querySelector(".right");
    one.target = "";
    part.querySelector(".text").textContent = one.input;
    for (const { name, text, error, strength, hard } of one.answers) {
      const line = make("div", {}, make("dt", { textContent: [name, strength !== null && strength !== 1 ? `at ${strength}` : "", hard ? `“${hard}”` : ""].filter(Boolean).join(" ") }), make("dd", { textContent: text || error || "(empty)", className: error ? "failed" : "" }));
      if (text && !error) {
        const use = make("button", { type: "button", textContent: "Right", ariaLabel: `${name} is right` });
        use.addEventListener("click", () => { right.value = text; mark(); });
        line.append(use);
      }
      part.querySelector(".answers").append(line);
    }
    const mark = () => {
      one.target = right.value.trim();
      part.classList.toggle("marked", Boolean(one.target));
      count();
    };
    right.addEventListener("input", mark);
    part.querySelector(".again").addEventListener("click", () => { find("input").value = one.input; find("input").focus(); });
    part.querySelector(".forget").addEventListener("click", () => { runs.splice(runs.indexOf(one), 1); part.remove(); count(); find("input").focus(); });
    runs.push(one);
    find("runs").prepend(part);
    count();
  };

  const count = () => {
    const marked = runs.filter((one) => one.target).length;
    find("history").hidden = !runs.length;
    find("export-rows").disabled = !marked;
    find("export-status").textContent = `${marked} of ${runs.length} inputs have a right answer`;
  };

  const rowsOf = (one) => {
    let row = { [one.fields.input]: one.input };
    if (one.fields.all.length > 1) try { row = JSON.parse(one.input); } catch { /* kept as text */ }
    return { ...row, [one.fields.target]: one.target };
  };

  const save = (name, lines) => {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob([lines.map((line) => `${JSON.stringify(line)}\n`).join("")], { type: "application/jsonl" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // --- what a person does ---

  const names = async (search) => {
    const found = await get(`/v1/models?limit=50&search=${encodeURIComponent(search)}`);
    return found.data;
  };

  const suggest = async (search) => {
    const prompts = (await names(search)).filter((model) => model.parent);
    find("prompts").replaceChildren(...prompts.map(({ id }) => make("option", { value: id })));
    return prompts;
  };

  // `fits`: only where one text fills its template.
  const addTuned = async (name, fits = false) => {
    try {
      const found = await get(`/v1/models/${name.split("/").map(encodeURIComponent).join("/")}`);
      if (!found.softprompt) { addColumn("plain"); return true; }
      if (fits && found.softprompt.fields.length !== 1) return false;
      const facts = found.softprompt, [folder, prompt] = name.split(":");
      if (prompt) facts.prompts = [prompt];
      addColumn("tuned", prompt ? name : folder, facts);
      if (!fits) find("add-status").textContent = `${name} was added`;
      return true;
    } catch (error) {
      if (!fits) find("add-status").textContent = error.message;
      return false;
    }
  };

  let waiting = 0;
  find("prompt").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => suggest(find("prompt").value).catch(() => {}), 150);
  });
  find("add").addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = find("prompt").value.trim();
    if (name && await addTuned(name)) find("prompt").value = "";
  });
  find("add-hard").addEventListener("click", () => addColumn("hard").words.focus());
  find("add-plain").addEventListener("click", () => addColumn("plain").template.focus());
  find("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  find("stop").addEventListener("click", () => running?.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    if (event.key === "Escape") running?.abort();
  });
  find("export-rows").addEventListener("click", () => save("rows.jsonl", runs.filter((one) => one.target).map(rowsOf)));
  find("export-all").addEventListener("click", () => save("answers.jsonl", runs.map(({ input, target, answers }) => ({ input, target: target || null, answers }))));
  find("clear").addEventListener("click", () => { runs.length = 0; find("runs").replaceChildren(); count(); find("input").focus(); });
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = find("key").value.trim();
    find("key-form").hidden = true;
    begin();
  });

  const begin = async () => {
    try {
      const found = await names("");
      base = found.find((model) => !model.parent)?.id ?? found[0]?.root ?? "none";
      find("base").textContent = base;
      const prompts = await suggest("");
      if (!columns.length) {
        addColumn("plain");
        addColumn("hard");
        let added = 0;
        for (const prompt of prompts) if (added < 2 && await addTuned(prompt.id, true)) added += 1;
      }
      if (!prompts.length) find("add-status").textContent = "No tuned prompts here yet: softprompt tune makes one.";
      say("");
      find("input").focus();
    } catch (error) {
      say(error.message, true);
      find("key-form").hidden = error.status !== 401;
      if (error.status === 401) find("key").focus();
    }
  };

  begin();
})();
