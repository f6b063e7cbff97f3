// A tree as a file, and as earlier versions kept it.

import { lineReader, plainLines } from "./lines.js";
import { plainToken } from "./state.js";

const FORMAT = "corella-tree-1";

/** The document as text, for a file; `about` is what else to say of it (name, tags, model). */
export function exportDocument(doc, about) {
  return JSON.stringify({ format: FORMAT, ...about, leaf: doc.leaf, nodes: Object.values(doc.nodes) }, null, 1);
}

/**
 * Reads what {@link exportDocument} wrote: { doc, name, tags }. Throws a sentence for the reader if the file is something
 * else.
 */
export function importDocument(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (data?.format !== FORMAT || !Array.isArray(data.nodes)) throw new Error("This file is not a tree saved by Corella.");
  const nodes = {};
  for (const n of data.nodes) {
    if (!Number.isSafeInteger(n.id) || n.id < 0 || typeof n.text !== "string" || nodes[n.id]) {
      throw new Error("The tree has a node without a proper number or text.");
    }
    const by = n.by === "model" ? "model" : "you";
    const tokens = by === "model" && Array.isArray(n.tokens) ? n.tokens.map(tokenOf) : [];
    const whole = tokens.map((t) => t.text).join("") === n.text;
    nodes[n.id] = { id: n.id, parent: n.parent ?? null, by, text: n.text, tokens: by === "you" ? null : whole ? tokens : [plainToken(n.text)],
      sampling: n.sampling ?? null, model: typeof n.model === "string" ? n.model : null, finish: n.finish ?? null, seed: n.seed ?? null, sample: n.sample ?? null, bookmark: n.bookmark === true, moved: n.moved === true };
  }
  const roots = Object.values(nodes).filter((n) => n.parent === null);
  if (roots.length !== 1) throw new Error("A tree has one root; this file has " + roots.length + ".");
  checkAncestry(nodes);
  const leaf = nodes[data.leaf] ? data.leaf : roots[0].id;
  const tags = Array.isArray(data.tags) ? data.tags.filter((tag) => typeof tag === "string") : [];
  const next = Object.keys(nodes).reduce((most, id) => Math.max(most, Number(id)), 0) + 1;
  const doc = withPlainLines({ nodes, leaf, next });
  return { doc, name: typeof data.name === "string" ? data.name : "", tags };
}

function tokenOf(t) {
  const number = (x) => (typeof x === "number" && Number.isFinite(x) ? x : null);
  const top = Array.isArray(t?.top) ? t.top.map((a) => ({ id: number(a?.id), text: String(a?.text ?? ""), logprob: number(a?.logprob) ?? -99, ...(a?.part === true ? { part: true } : {}) })) : [];
  return { id: number(t?.id), text: String(t?.text ?? ""), logprob: number(t?.logprob), entropy: number(t?.entropy), top };
}

/** Throws unless every node hangs on the root. */
function checkAncestry(nodes) {
  const hanging = new Set();
  for (const node of Object.values(nodes)) {
    const way = new Set();
    for (let at = node; !hanging.has(at.id) && at.parent !== null; at = nodes[at.parent]) {
      if (way.has(at.id) || !nodes[at.parent]) throw new Error("Node " + node.id + " does not hang on the root.");
      way.add(at.id);
    }
    for (const id of way) hanging.add(id);
  }
}

/** A document whose line breaks are those of a text box. */
export function withPlainLines(doc) {
  if (!Object.values(doc.nodes).some((node) => node.text.includes("\r"))) return doc;
  const plain = (node) => {
    const read = lineReader();
    const tokens = node.tokens?.map((token) => ({ ...token, text: read(token.text) })) ?? null;
    return { ...node, tokens, text: tokens ? tokens.map((t) => t.text).join("") : plainLines(node.text) };
  };
  return { ...doc, nodes: Object.fromEntries(Object.entries(doc.nodes).map(([id, node]) => [id, plain(node)])) };
}
