// A conversation of three turns with each way of asking that OpenAI's client has; every reply's message goes
// back as it came. Prints, as JSON, what was answered at the last turn of each.
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0 });
const common = { model, temperature: 0, max_tokens: 900 };

const ways = {
  create: async messages => (await client.chat.completions.create({ ...common, messages })).choices[0].message,
  parse: async messages => (await client.chat.completions.parse({ ...common, messages })).choices[0].message,
  stream: async messages => {
    const stream = client.chat.completions.stream({ ...common, messages, stream_options: { include_usage: true } });
    return (await stream.finalChatCompletion()).choices[0].message;
  },
  pieces: async messages => {
    const message = {};
    for await (const chunk of await client.chat.completions.create({ ...common, messages, stream: true })) {
      for (const [name, value] of Object.entries(chunk.choices[0]?.delta ?? {})) {
        message[name] = typeof value === "string" ? (message[name] ?? "") + value : value;
      }
    }
    return message;
  },
};

const answers = {};
for (const [name, ask] of Object.entries(ways)) {
  const messages = [];
  for (const text of ["one", "two", "three"]) {
    messages.push({ role: "user", content: text });
    messages.push(await ask(messages));
  }
  answers[name] = messages.at(-1).content;
}
console.log(JSON.stringify({ answers, listed: (await client.models.list()).data.map(one => one.id) }));
