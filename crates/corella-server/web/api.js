// The server, as the page sees it: the same /v1/completions that every other client uses.

import { tokenReader } from "./read_tokens.js";

/** An answer that is not 2xx, with the server's own sentence. */
export class ApiError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const BROKEN = "The connection to the server broke off; the text so far stays.";

const keyHeader = () => {
  const key = sessionStorage.getItem("corella-key");
  return key ? { authorization: "Bearer " + key } : {};
};

/** Asks the reader for the key that the server wants, again if one was refused; false if none is given. */
export function askForKey() {
  const refused = sessionStorage.getItem("corella-key") !== null;
  const key = prompt(refused ? "The server has refused that key. Its API key:" : "This server wants an API key:");
  if (key) sessionStorage.setItem("corella-key", key);
  return Boolean(key);
}

/** Milliseconds between two attempts. */
const PAUSE = 1500;

/**
 * Attempts something that asks the server, again and again, until it says that it is done (`true`), or for how many ms it
 * wants to rest; what fails is said, and a key asked for.
 */
export async function again(attempt, say) {
  for (;;) {
    let pause = PAUSE;
    try {
      const found = await attempt();
      if (found === true) return;
      pause = found || PAUSE;
    } catch (error) {
      say(error.message);
      if (error.status === 401) {
        if (!askForKey()) return;
        continue;
      }
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

/** A text can be cut inside a character, and half of one cannot be sent. */
const whole = (key, value) => (typeof value === "string" ? value.replace(/\p{Surrogate}/gu, "\ufffd") : value);

async function request(path, body, signal) {
  const init = body === undefined ? { headers: keyHeader(), signal }
    : { method: "POST", headers: { "content-type": "application/json", ...keyHeader() }, body: JSON.stringify(body, whole), signal };
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer. Is corella serve still running?");
  }
  if (response.ok) return response;
  let message = response.status + " " + response.statusText;
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // Not JSON: the status line has to do.
  }
  throw new ApiError(response.status, message, response.headers.get("retry-after"));
}

/** A JSON document from the server. */
export async function getJson(path) {
  return (await request(path)).json();
}

/** Posts a document and reads one back. */
export async function postJson(path, body) {
  return (await request(path, body)).json();
}

/** The model that is loaded, { id, context, vocabulary, base, … }, then those of other servers, { id, chat }. */
export async function models() {
  return (await (await request("/v1/models")).json()).data;
}

/** What a request says of a text in which the model has drawn special tokens: their names stand for them. */
export const byName = (isByName) => (isByName ? { parse_special: true } : {});

/** Ids and pieces of a text. */
export async function tokenize(text, isByName, signal) {
  const response = await request("/tokenize", { content: text, add_special: true, with_pieces: true, ...byName(isByName) }, signal);
  return (await response.json()).tokens;
}

/** What the model makes of each token of a text: [{ id, logprob }], null where nothing stands in front. */
export async function score(text, isByName) {
  const answer = await postJson("/v1/completions", { prompt: text, max_tokens: 0, prompt_logprobs: 0, return_token_ids: true, ...byName(isByName) });
  const { prompt_token_ids: ids, prompt_logprobs: found } = answer.choices[0];
  return ids.map((id, i) => ({ id, logprob: found[i]?.[id].logprob ?? null }));
}

/**
 * Streams a completion. `onTokens(index, tokens)` gets what each chunk brought for sample `index`; returns
 * { finish: [reason by sample], usage, seed, speed, room }: the speed in tokens per second as the server measured it and the
 * tokens that the context left room for, null where it does not tell. An answer that breaks off is an error of status 0.
 * Aborting the signal ends the work on the server too.
 */
export async function complete(prompt, options, onTokens, signal) {
  const body = { prompt, stream: true, stream_options: { include_usage: true }, ...options };
  const response = await request("/v1/completions", body, signal);
  const readers = new Map();
  const finish = [];
  let usage = null;
  let seed = null;
  let speed = null;
  let room = null;
  let healed = "";
  for await (const event of events(response.body)) {
    if (event === "[DONE]") return { finish, usage, seed, speed, room };
    const data = JSON.parse(event);
    if (data.error) throw new ApiError(500, data.error.message);
    usage = data.usage ?? usage;
    speed = data.timings?.predicted_per_second ?? speed;
    seed = data.corella?.seed ?? seed;
    room = data.corella?.max_tokens ?? room;
    healed = data.corella?.healed?.[0] ?? healed;
    for (const choice of data.choices ?? []) {
      if (!readers.has(choice.index)) readers.set(choice.index, tokenReader(healed));
      const tokens = readers.get(choice.index)(choice);
      if (tokens.length) onTokens(choice.index, tokens);
      if (choice.finish_reason) finish[choice.index] = choice.finish_reason;
    }
  }
  throw new ApiError(0, BROKEN);
}

/** The data fields of a stream of server-sent events. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError(0, BROKEN);
    });
    if (done) return;
    buffer += value;
    for (let end; (end = buffer.search(/\r?\n\r?\n/)) >= 0; ) {
      const block = buffer.slice(0, end);
      buffer = buffer.slice(end).replace(/^\r?\n\r?\n/, "");
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) yield data.join("\n");
    }
  }
}
