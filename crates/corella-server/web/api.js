// The server, as the page sees it: the same /v1/completions that every other client uses.

/** An answer that is not 2xx, with the server's own sentence. */
export class ApiError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const keyHeader = () => {
  const key = sessionStorage.getItem("corella-key");
  return key ? { authorization: "Bearer " + key } : {};
};

async function request(path, body, signal) {
  const init = body === undefined ? { headers: keyHeader(), signal }
    : { method: "POST", headers: { "content-type": "application/json", ...keyHeader() }, body: JSON.stringify(body), signal };
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

/** A JSON document from the server, or null where the server does not have it. */
export async function getJson(path) {
  try {
    return await (await request(path)).json();
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** Posts a document and reads one back. */
export async function postJson(path, body) {
  return (await request(path, body)).json();
}

/** The one model that is loaded: { id, context, vocabulary, base, … }. */
export async function loadedModel() {
  return (await (await request("/v1/models")).json()).data[0];
}

/** Ids and pieces of a text. */
export async function tokenize(text, signal) {
  const response = await request("/tokenize", { content: text, add_special: true, with_pieces: true }, signal);
  return (await response.json()).tokens;
}

/**
 * Streams a completion. `onTokens(index, tokens)` gets what each chunk brought for sample `index`; returns
 * { finish: [reason by sample], usage, seed }. Aborting the signal ends the work on the server too.
 */
export async function complete(prompt, options, onTokens, signal) {
  const body = { prompt, stream: true, stream_options: { include_usage: true }, ...options };
  const response = await request("/v1/completions", body, signal);
  const pieces = new Map();
  const finish = [];
  let usage = null;
  let seed = null;
  for await (const event of events(response.body)) {
    if (event === "[DONE]") break;
    const data = JSON.parse(event);
    if (data.error) throw new ApiError(500, data.error.message);
    usage = data.usage ?? usage;
    seed = data.corella?.seed ?? seed;
    for (const choice of data.choices) {
      if (!pieces.has(choice.index)) pieces.set(choice.index, new TextDecoder());
      const tokens = (choice.completion_probabilities ?? []).map((t) => readToken(t, pieces.get(choice.index)));
      if (tokens.length) onTokens(choice.index, tokens);
      if (choice.finish_reason) finish[choice.index] = choice.finish_reason;
    }
  }
  return { finish, usage, seed };
}

/** A token as the page keeps it. A character that spans tokens belongs to the token that completes it. */
function readToken(t, decoder) {
  return {
    id: t.id,
    text: decoder.decode(new Uint8Array(t.bytes), { stream: true }),
    logprob: t.logprob,
    entropy: t.entropy ?? null,
    top: t.top_logprobs.map((a) => ({ id: a.id, text: a.token, logprob: a.logprob })),
  };
}

/** The data fields of a stream of server-sent events. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
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
