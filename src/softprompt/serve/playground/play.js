"use strict";
// One input, several columns: each asks the server's own API and shows what comes. Texts are set as text, never as HTML.
(() => {
  const find = (id) => document.getElementById(id);
  const columns = [], runs = [];
  let base = "", key = "", running = null, colours = 0, ready = false, listener = null;

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
    const body = await response.json().catch(() => ({ error: { message: response.statusText } }));
    throw new Refused(response.status, body.error);
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

  const titles = { plain: "Plain model", hard: "Hard prompt", text: "With the text" };
  const nameOf = ({ name, facts }) => (facts.text ? `With the vectors: ${name}` : name);
  const distilled = () => columns.filter((column) => column.kind === "tuned" && column.facts.text);

  const entitle = (column, title) => {
    column.title = title;
    column.part.querySelector("h3").textContent = title;
    column.part.setAttribute("aria-label", title);
    column.part.querySelector(".remove").setAttribute("aria-label", `Remove ${title}`);
  };

  const addColumn = (kind, name = "", facts = null) => {
    const part = find("column-template").content.cloneNode(true).querySelector("section");
    const column = { kind, folder: name.split(":")[0], name, facts, part, options: part.querySelector(".options") };
    part.classList.add(kind, kind === "tuned" ? `c${colours++ % 8}` : "cref");
    entitle(column, titles[kind] || nameOf(column));
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
      const choice = make("select", {}, ...facts.prompts.map((name) => make("option", { textContent: name, selected: column.name === `${column.folder}:${name}` })));
      const choose = () => {
        column.name = `${column.folder}:${choice.value}`;
        entitle(column, nameOf(column));
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
    column.setStrength = (value) => { slider.value = value; slider.dispatchEvent(new Event("input")); };
  };

  const untunedOptions = (column) => {
    if (column.kind === "hard") wordsOf(column, "Your own prompt", "Your own instruction, put before the input", "");
    if (column.kind === "text") {
      wordsOf(column, "The text", "Paste the text that the vectors stand for", find("given-text").value);
      column.words.addEventListener("input", () => describe(column));
    }
    column.template = make("select");
    column.options.append(make("label", {}, "Template", column.template));
  };

  const wordsOf = (column, label, placeholder, value) => {
    column.words = make("textarea", { rows: 3, placeholder, value });
    column.options.append(make("label", { className: "tall" }, make("span", { className: "hidden", textContent: label }), column.words));
  };

  // Says whether a column's text is the one that the vectors learned from.
  const describe = async (column) => {
    const like = likeOf(column), text = column.words.value, about = column.part.querySelector(".about");
    about.textContent = "The full text, and no vectors";
    if (!text.trim() || !like?.facts.text?.sha256 || !globalThis.crypto?.subtle) return;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
    const same = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === like.facts.text.sha256;
    if (text === column.words.value) about.textContent = same ? "The full text that the vectors learned from" : "Another text than the vectors learned from";
  };

  // What plain columns read: the template of a tuned prompt, so that only the vectors differ, or the model's chat.
  const offer = () => {
    const tuned = columns.filter((column) => column.kind === "tuned");
    for (const column of columns.filter((one) => one.template)) {
      const before = column.template.dataset.chosen ? column.template.value : "";
      column.template.replaceChildren(
        ...[...new Set((column.kind === "text" ? distilled() : tuned).map((one) => one.name))].map((name) => make("option", { value: name, textContent: `of ${name}` })),
        ...(column.kind === "text" && distilled().length ? [] : [make("option", { value: "", textContent: "the model’s chat" })]),
      );
      if (column.template.dataset.chosen && [...column.template.options].some((one) => one.value === before)) column.template.value = before;
      column.template.onchange = () => { column.template.dataset.chosen = "yes"; if (column.kind === "text") describe(column); };
      if (column.kind === "plain") entitle(column, distilled().length ? "With neither: plain model" : titles.plain);
      if (column.kind === "text") describe(column);
    }
  };

  // --- asking ---

  const rowOf = (facts, input, words) => {
    if (facts.fields.length === 1) return { [facts.fields[0]]: words + input };
    let row = null;
    try { row = JSON.parse(input); } catch { /* reported below */ }
    if (!row || typeof row !== "object" || Array.isArray(row)) throw new Error(`Write the input as JSON: {${facts.fields.map((f) => `"${f}": "…"`).join(", ")}}`);
    const first = facts.fields[0];
    return words ? { ...row, [first]: words + row[first] } : row;
  };

  // The tuned column whose template a column reads; none: the model's chat.
  const likeOf = (column) => (column.kind === "tuned" ? column : columns.find((one) => one.kind === "tuned" && one.name === column.template.value));

  const how = () => ({
    temperature: Number(find("temperature").value), max_tokens: Number(find("longest").value), seed: Number(find("seed").value),
    stream: true, stream_options: { include_usage: true },
  });

  // The plain model with the text where the teacher had it: as the chat's system text, or ahead of the input.
  const withText = (column, like, input) => {
    const text = column.words.value, ahead = like?.facts.text?.ahead ?? "", path = "/v1/chat/completions";
    const body = { ...how(), ...(like ? { model: like.name, strength: 0, rendering: "template" } : { model: base }) };
    const joined = { path, body: { ...body, messages: [{ role: "user", content: `${(ahead + text).replace(/\n+$/, "")}\n\n${input}` }] } };
    if (like && !like.facts.text.chat) return joined;
    return { path, body: { ...body, messages: [{ role: "system", content: ahead + text }, { role: "user", content: input }] }, otherwise: joined };
  };

  const requestOf = (column, input) => {
    const like = likeOf(column);
    const words = column.kind === "hard" ? `${column.words.value.trim()}\n\n` : "";
    if (column.kind === "text") return withText(column, like, input);
    const strength = column.kind === "tuned" ? column.strength() : 0;
    const plain = { ...how(), model: base };
    if (!like) return {
      path: "/v1/chat/completions", body: { ...plain, messages: [{ role: "user", content: words + input }] },
      otherwise: { path: "/v1/completions", body: { ...plain, prompt: words + input } },
    };
    const row = rowOf(like.facts, input, words);
    if (["classification", "choice"].includes(like.facts.kind)) return { path: "/v1/classify", body: { model: like.name, input: row, strength } };
    const tuned = { ...how(), model: like.name, strength };
    if (like.facts.fields.length > 1) return { path: "/v1/completions", body: { ...tuned, row } };
    return { path: "/v1/chat/completions", body: { ...tuned, rendering: "template", messages: [{ role: "user", content: Object.values(row)[0] }] } };
  };

  const answer = async (column, input, signal) => {
    const place = column.part.querySelector(".answer"), cost = column.part.querySelector(".cost");
    const result = { name: column.title, strength: column.strength?.() ?? null, hard: column.words?.value.trim() ?? null, right: null, reads: readsOf(likeOf(column)) };
    const begun = performance.now(), seconds = () => (performance.now() - begun) / 1000;
    place.setAttribute("aria-busy", "true");
    place.replaceChildren(make("p", { className: "text" }));
    cost.textContent = "";
    try {
      let { path, body, otherwise } = requestOf(column, input);
      let response = await ask(path, body, signal);
      if (response.status === 400 && otherwise && ["no_chat_template", "chat_template"].includes((await response.clone().json()).error.code)) {
        ({ path, body } = otherwise);
        response = await ask(path, body, signal);
      }
      await checked(response);
      if (path === "/v1/classify") scored(column, place, result, await response.json());
      else await written(place, result, response, seconds);
      result.seconds = Number(seconds().toFixed(3));
      cost.textContent = costOf(result);
    } catch (error) {
      const stopped = signal.aborted, message = stopped ? "stopped" : error.message;
      Object.assign(result, stopped ? { stopped } : { error: message });
      result.text = result.text?.trim();
      if (!stopped || !result.text) place.append(make("p", { className: stopped ? "quiet" : "failed", textContent: message }));
      cost.textContent = result.text ? `${message} · ${seconds().toFixed(2)} s` : "";
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
      if (event.usage) Object.assign(result, { tokens: event.usage.completion_tokens, read: event.usage.prompt_tokens, vectors: event.usage.prompt_vectors });
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

  const costOf = ({ tokens, read, seconds, first, vectors, reason }) => [
    tokens === undefined ? "" : `${tokens} tokens`,
    `${seconds.toFixed(2)} s`,
    first === undefined ? "" : `first after ${first.toFixed(2)} s`,
    read === undefined ? "" : `${read} tokens read`,
    vectors ? `${vectors} vectors` : "",
    reason === "length" ? "cut off" : "",
  ].filter(Boolean).map((part) => part.replaceAll(" ", "\u00a0")).join(" · ");

  const run = async () => {
    const input = find("input").value;
    if (running || !columns.length) return;
    if (!input.trim()) { say("Write an input first."); find("input").focus(); return; }
    const asked = columns.filter((column) => !column.words || column.words.value.trim());
    for (const column of columns.filter((one) => !asked.includes(one)))
      column.part.querySelector(".answer").replaceChildren(make("p", { className: "quiet", textContent: column.kind === "text" ? "Paste the text above, and it is answered too." : "Write a prompt of your own above, and it is run too." }));
    running = new AbortController();
    find("run").disabled = true;
    find("stop").hidden = false;
    say("Running …");
    const begun = performance.now();
    const answers = await Promise.all(asked.map((column) => answer(column, input, running.signal)));
    running = null;
    find("run").disabled = false;
    find("stop").hidden = true;
    const failed = answers.filter((one) => one.error).length, stopped = answers.filter((one) => one.stopped).length;
    const total = ((performance.now() - begun) / 1000).toFixed(2);
    say(`${answers.length - failed - stopped} answers in ${total} s${stopped ? `, ${stopped} stopped` : ""}${failed ? `, ${failed} failed` : ""}`, failed > 0);
    remember({ id: `${Date.now()}-${Math.random()}`, input, answers });
    keep();
  };

  const say = (text, failed = false) => {
    find("status").textContent = text;
    find("status").classList.toggle("failed", failed);
  };

  // --- history ---

  // How rows for a prompt are written: its fields, and which of several prompts it is.
  const readsOf = (like) => {
    if (!like) return { folder: "", fields: ["input"], target: "target", chosen: {} };
    const { fields, target_field: target, prompt_field: field, prompts } = like.facts;
    const name = like.name.includes(":") ? like.name.slice(like.folder.length + 1) : prompts[0];
    return { folder: like.folder, fields, target: target || "target", chosen: field ? { [field]: name } : {} };
  };

  const remember = (one) => {
    const part = find("run-template").content.cloneNode(true).querySelector("li");
    const mark = () => { part.classList.toggle("marked", marked(one)); count(); };
    part.querySelector(".text").textContent = one.input;
    for (const each of one.answers) part.querySelector(".answers").append(lineOf(each, mark));
    part.querySelector(".again").addEventListener("click", () => { find("input").value = one.input; find("input").focus(); });
    part.querySelector(".forget").addEventListener("click", () => { runs.splice(runs.indexOf(one), 1); part.remove(); gone.add(one.id); count(); keep(); find("input").focus(); });
    runs.push(one);
    find("runs").prepend(part);
    mark();
  };

  const brief = (text) => (text.length > 90 ? `${text.slice(0, 80).replace(/\s+\S*$/, "")} …` : text);

  // An answer of the history, and what would be right in its column.
  const lineOf = (each, mark) => {
    const { name, text, error, stopped, strength, hard } = each;
    const right = make("input", { className: "right", type: "text", placeholder: "right answer", value: each.right ?? "", ariaLabel: `Right answer of ${name}` });
    const set = (value) => { each.right = value.trim() || null; mark(); keep(); };
    right.addEventListener("input", () => set(right.value));
    const about = [name, strength !== null && strength !== 1 ? `at ${strength}` : "", hard ? `“${brief(hard)}”` : "", stopped ? "(stopped)" : ""];
    const line = make("div", {}, make("dt", { textContent: about.filter(Boolean).join(" ") }), make("dd", { textContent: text || error || "(empty)", className: error ? "failed" : "" }));
    if (text && !error && !stopped) {
      const use = make("button", { type: "button", textContent: "Right", ariaLabel: `${name} is right` });
      use.addEventListener("click", () => { right.value = text; set(text); });
      line.append(use);
    }
    line.append(right);
    return line;
  };

  const marked = (one) => one.answers.some((each) => each.right);

  const count = () => {
    const done = runs.filter(marked).length;
    find("history").hidden = !runs.length;
    find("export-rows").disabled = !done;
    find("export-status").textContent = `${done} of ${runs.length} inputs have a right answer`;
  };

  const rowFor = (input, { reads, right }) => {
    let row = { [reads.fields[0]]: input };
    if (reads.fields.length > 1) try { row = JSON.parse(input); } catch { /* kept as text */ }
    return { ...row, ...reads.chosen, [reads.target]: right };
  };

  // One file for the rows of the same fields: `eval` refuses a file in which some lack one.
  const exportRows = () => {
    const files = new Map();
    for (const { input, answers } of runs) for (const each of answers.filter((one) => one.right)) {
      const { folder, fields, target, chosen } = each.reads;
      const alike = JSON.stringify([fields, target, Object.keys(chosen)]);
      if (!files.has(alike)) files.set(alike, { folder, rows: new Map() });
      const row = rowFor(input, each);
      files.get(alike).rows.set(JSON.stringify(row), row); // the same of two columns is one row
    }
    for (const { folder, rows } of files.values()) save(files.size > 1 ? `rows-${folder.replaceAll("/", "-") || "plain"}.jsonl` : "rows.jsonl", [...rows.values()]);
  };

  // --- what is kept in the browser, for each base model: columns, settings, input, history ---

  const settings = ["input", "temperature", "longest", "seed"], gone = new Set();
  const slot = () => `softprompt playground: ${base}`;

  const kept = () => {
    try { return JSON.parse(localStorage.getItem(slot())) ?? {}; } catch { return {}; }
  };

  const keep = () => {
    if (!ready) return;
    const own = new Set(runs.map((one) => one.id));
    const others = (kept().runs ?? []).filter((one) => !own.has(one.id) && !gone.has(one.id)); // of another tab
    const all = [...others, ...runs].sort((a, b) => parseFloat(a.id) - parseFloat(b.id));
    const state = {
      columns: columns.map(({ kind, name, strength, words, template }) => ({ kind, name, strength: strength?.(), words: words?.value, template: template?.dataset.chosen && template.value })),
      settings: settings.map((id) => find(id).value),
    };
    let from = 0;
    for (; ; from = from * 2 + 1) { // without the oldest, where all are too much for the browser
      try {
        localStorage.setItem(slot(), JSON.stringify({ ...state, runs: all.slice(from) }));
        break;
      } catch { if (from >= all.length) { from = -1; break; } }
    }
    find("kept").textContent = from < 0 ? "This browser keeps nothing: it is gone when the page is closed." : `Kept in this browser until you clear it${from ? `, but for the oldest ${from}: there is no room` : ""}.`;
  };

  // Puts back what was kept; false where no column was.
  const restore = async () => {
    const { columns: before = [], settings: values, runs: past = [] } = kept();
    past.forEach(remember);
    values?.forEach((value, i) => { find(settings[i]).value = value; });
    for (const one of before) {
      if (one.kind !== "tuned") addColumn(one.kind);
      else if (!await addTuned(one.name, "again")) continue;
      const column = columns.at(-1);
      if (one.strength !== undefined) column.setStrength(one.strength);
      if (one.words && !(one.kind === "text" && column.words.value)) column.words.value = one.words;
      column.wanted = one.template;
    }
    for (const { template, wanted } of columns) {
      if (wanted === undefined || ![...template.options].some((one) => one.value === wanted)) continue;
      Object.assign(template, { value: wanted }).dataset.chosen = "yes";
    }
    return columns.some((column) => column.kind === "tuned") || (columns.length > 0 && !before.some((one) => one.kind === "tuned"));
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

  // `quietly`: nothing is reported; where it "fits", only if one text fills its template.
  const addTuned = async (name, quietly = "") => {
    try {
      const found = await get(`/v1/models/${name.split("/").map(encodeURIComponent).join("/")}`);
      if (!found.softprompt) { addColumn("plain"); return true; }
      if (quietly === "fits" && found.softprompt.fields.length !== 1) return false;
      addColumn("tuned", name, found.softprompt);
      if (!quietly) find("add-status").textContent = `${name} was added`;
      return true;
    } catch (error) {
      if (!quietly) find("add-status").textContent = error.message;
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
  find("add-text").addEventListener("click", () => addColumn("text").words.focus());
  find("add-plain").addEventListener("click", () => addColumn("plain").template.focus());
  find("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  find("stop").addEventListener("click", () => running?.abort());
  document.addEventListener("keydown", (event) => {
    if (find("compare").hidden) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    if (event.key === "Escape") running?.abort();
  });
  find("export-rows").addEventListener("click", exportRows);
  find("export-all").addEventListener("click", () => save("answers.jsonl", runs.map(({ input, answers }) => ({ input, answers: answers.map(({ reads, ...each }) => each) }))));
  find("clear").addEventListener("click", () => {
    for (const { id } of [...runs, ...(kept().runs ?? [])]) gone.add(id);
    runs.length = 0;
    find("runs").replaceChildren();
    count();
    keep();
    find("input").focus();
  });
  addEventListener("pagehide", keep);
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = find("key").value.trim();
    find("key-form").hidden = true;
    begin();
  });

  // The columns of a first visit. A prompt that was distilled from a text is shown beside the text and beside neither.
  const usual = async (prompts) => {
    const latest = [...prompts].sort((a, b) => b.created - a.created), first = columns.length;
    let added = 0;
    for (const prompt of latest) if (added < 2 && await addTuned(prompt.id, "fits")) {
      added += 1;
      if (columns.at(-1).facts?.text) break;
    }
    const ahead = distilled().length ? ["text"] : ["plain", "hard"];
    for (const kind of ahead) if (!columns.some((column) => column.kind === kind)) addColumn(kind);
    columns.push(...columns.splice(first, added)); // those that were added last come first
    find("columns").append(...columns.map(({ part }) => part));
    if (distilled().length && !columns.some((column) => column.kind === "plain")) addColumn("plain");
  };

  const begin = async () => {
    try {
      const found = await names("");
      base = found.find((model) => !model.parent)?.id ?? found[0]?.root ?? "none";
      find("base").textContent = base;
      const prompts = await suggest("");
      listener(base, prompts);
      if (!columns.length && !await restore()) {
        await usual(prompts);
      }
      ready = true;
      keep();
      if (!prompts.length) find("add-status").textContent = "No tuned prompts here yet: softprompt tune makes one.";
      say("");
      if (!find("compare").hidden) find("input").focus();
    } catch (error) {
      say(error.message, true);
      find("key-form").hidden = error.status !== 401;
      if (error.status === 401) find("key").focus();
    }
  };

  // What the conversation's script uses of this one.
  globalThis.playground = {
    find, make, ask, checked, events, get, save, suggest, key: () => key,
    onReady: (act) => { listener = act; begin(); },
  };
})();
