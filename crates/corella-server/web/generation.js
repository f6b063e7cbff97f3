// Writing: sends the text of the page, and puts what comes into the tree.

import * as api from "./api.js";
import { ending } from "./ending.js";
import { say } from "./status.js";
import * as state from "./state.js";

/**
 * `past` is the history of the document, `server` the connection, `params` the sampling settings; `choice()` names the model
 * that is chosen, or `all`; `onRunning(on)` is called when writing begins and ends, `onEnd()` when the status says how.
 */
export function generation({ past, server, params, choice, all, onRunning, onEnd }) {
  let running = null;
  /** The text that is continued, and how many tokens have come behind it of the sample that is on the page. */
  let behind = { prompt: null, count: 0 };

  /** What to send: one request for each model that is chosen. `other` are settings for this one time. */
  function asks(other) {
    const own = { model: server.model.id, request: params.request(other) };
    const others = server.peers.map((peer) => ({ model: peer.id, request: params.requestFor(peer, other) }));
    if (choice() === all) return [own, ...others];
    return [others.find((ask) => ask.model === choice()) ?? own];
  }

  /** Continues `doc` at its leaf. Several samples become branches side by side; the first is on the page. */
  async function generate(doc = past.document, other = {}) {
    if (running !== null) return;
    if (!server.model) return server.sayMissing();
    const prompt = state.textOf(doc);
    const asked = asks(other);
    // What goes to other servers is OpenAI's interface and nothing else.
    const byName = (ask) => (ask.model === server.model.id ? api.byName(state.hasSpecial(doc)) : {});
    const ids = [];
    running = new AbortController();
    behind = { prompt, count: 0 };
    past.commit(state.withUndone(doc, past.undone));
    onRunning(true);
    const started = performance.now();
    let first = null;
    let count = 0;
    const sink = (model, index, found) => {
      first ??= performance.now();
      count += found.length;
      if (model === 0 && index === 0) behind.count += found.length;
      if (ids.length === 0) past.amend(withSamples(past.document, asked, ids));
      past.amend(state.appendTokens(past.document, ids[model][index], found));
    };
    const one = async (ask, model) => {
      const result = await api.complete(prompt, { ...ask.request, ...byName(ask) }, (index, found) => sink(model, index, found), running.signal);
      const { finish, seed } = result;
      const facts = (id, i) => past.document.nodes[id] && past.amend(state.changeNode(past.document, id, { finish: finish[i] ?? null, seed, sample: i }));
      ids[model]?.forEach(facts);
      return result;
    };
    const results = await Promise.allSettled(asked.map(one));
    leaveOutEmpty(ids.flat());
    // Whoever reads how it ended sees the whole text.
    running = null;
    onRunning(false);
    const seconds = (performance.now() - (first ?? started)) / 1000;
    say(...ending({ asked, results, count, seconds, wait: (first ?? started) - started }));
    for (const { reason } of results) if (reason) server.failed(reason);
    onEnd();
  }

  /** A sample of which nothing came is no branch; the first of which something came is on the page. */
  function leaveOutEmpty(ids) {
    const isEmpty = (id) => past.document.nodes[id]?.text === "";
    const empty = ids.filter(isEmpty);
    if (empty.length === 0) return;
    const written = ids.find((id) => past.document.nodes[id] && !isEmpty(id));
    const stands = empty.includes(past.document.leaf) && written !== undefined ? { ...past.document, leaf: written } : past.document;
    past.amend(empty.reduce(state.prune, stands));
  }

  return {
    generate,
    /** Another sample in the place of the last piece, which stays beside it. */
    again() {
      const doc = past.document;
      const last = doc.nodes[doc.leaf];
      if (last.by === "model" && last.parent !== null) return generate({ ...doc, leaf: last.parent });
    },
    /** False while text is being written, with a sentence that says so. */
    isFree() {
      if (running !== null) say("Stop the running text first.", true);
      return running === null;
    },
    stop() {
      running?.abort();
      return running !== null;
    },
    get isRunning() {
      return running !== null;
    },
    /** { prompt, count }: the text that is continued, and how many tokens have come behind it on the page. */
    get behind() {
      return behind;
    },
  };
}

/** Empty nodes for all samples at once, so that they stand in their order whichever is heard of first; `ids` gets theirs. */
function withSamples(doc, asked, ids) {
  const parent = doc.leaf;
  for (const ask of asked) {
    const own = [];
    for (let i = 0; i < ask.request.n; i++) {
      doc = state.addNode(doc, parent, { by: "model", tokens: [], sampling: ask.request, model: ask.model });
      own.push(doc.leaf);
    }
    ids.push(own);
  }
  return { ...doc, leaf: ids[0][0] };
}
