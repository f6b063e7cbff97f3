// The document: a tree of pieces of text, and where in it the reader stands. Plain data, never changed in place, so that
// undo is a list of older documents and the page can be drawn from nothing else.
//
// node: { id, parent, by: "you" | "model", text, tokens, sampling, model, finish, seed, sample, bookmark }
//   tokens of a model's node: [{ id, text, logprob, entropy, top: [{ id, text, logprob }] }], texts add up to node.text
// document: { nodes: { id: node }, leaf, next }   leaf: the node whose path from the root is the text on the page

/** A document that holds `text`, typed by the reader. */
export function emptyDocument(text = "") {
  const root = { id: 0, parent: null, by: "you", text, tokens: null, bookmark: false };
  return { nodes: { 0: root }, leaf: 0, next: 1 };
}

/** The nodes from the root to `id`, in order. */
export function pathTo(doc, id = doc.leaf) {
  const path = [];
  for (let node = doc.nodes[id]; node; node = doc.nodes[node.parent]) path.unshift(node);
  return path;
}

/** The text from the root to `id`. */
export function textOf(doc, id = doc.leaf) {
  return pathTo(doc, id).map((node) => node.text).join("");
}

/** The nodes that continue `id`, the oldest first. */
export function childrenOf(doc, id) {
  return Object.values(doc.nodes).filter((node) => node.parent === id).sort((a, b) => a.id - b.id);
}

/** The node at which a reader arrives who goes down from `id` by the newest children. */
export function newestLeaf(doc, id) {
  for (;;) {
    const children = childrenOf(doc, id);
    if (children.length === 0) return id;
    id = children[children.length - 1].id;
  }
}

const withNode = (doc, node) => ({ ...doc, nodes: { ...doc.nodes, [node.id]: node } });

/** Adds a child of `parent` and moves to it. */
export function addNode(doc, parent, fields) {
  const node = { id: doc.next, parent, by: "you", text: "", tokens: null, bookmark: false, ...fields };
  return { ...withNode(doc, node), next: doc.next + 1, leaf: node.id };
}

/** Replaces fields of a node. */
export function changeNode(doc, id, fields) {
  return withNode(doc, { ...doc.nodes[id], ...fields });
}

/** Adds tokens at the end of a model's node. */
export function appendTokens(doc, id, tokens) {
  const node = doc.nodes[id];
  const text = node.text + tokens.map((t) => t.text).join("");
  return changeNode(doc, id, { text, tokens: [...node.tokens, ...tokens] });
}

/**
 * Cuts a node in two at character `at` of its text: the front keeps the node's id, the rest becomes a node of its own that
 * takes over the children. Tokens are cut at their borders; a token that the cut goes through loses its probabilities.
 * Returns [document, id of the rest].
 */
export function splitNode(doc, id, at) {
  const node = doc.nodes[id];
  if (at <= 0 || at >= node.text.length) return [doc, null];
  const rest = { ...node, id: doc.next, parent: id, text: node.text.slice(at), bookmark: node.bookmark };
  const front = { ...node, text: node.text.slice(0, at), bookmark: false };
  if (node.tokens) [front.tokens, rest.tokens] = splitTokens(node.tokens, at);
  front.finish = null;
  const nodes = { ...doc.nodes, [id]: front, [rest.id]: rest };
  for (const child of childrenOf(doc, id)) nodes[child.id] = { ...child, parent: rest.id };
  const leaf = pathTo(doc).some((n) => n.id === id) && doc.leaf === id ? rest.id : doc.leaf;
  return [{ ...doc, nodes, next: doc.next + 1, leaf }, rest.id];
}

function splitTokens(tokens, at) {
  const front = [];
  const rest = [];
  let start = 0;
  for (const token of tokens) {
    const end = start + token.text.length;
    if (end <= at) front.push(token);
    else if (start >= at) rest.push(token);
    else {
      front.push(plainToken(token.text.slice(0, at - start)));
      rest.push(plainToken(token.text.slice(at - start)));
    }
    start = end;
  }
  return [front, rest];
}

/** Text in a model's node whose probability is not known. */
const plainToken = (text) => ({ id: null, text, logprob: null, entropy: null, top: [] });

/**
 * The reader changed the text on the page to `text`. What was typed at the end of the reader's own last node stays in that
 * node; a change anywhere else starts a branch at the first character that differs, and the old text stays in the tree.
 */
export function editText(doc, text) {
  const path = pathTo(doc);
  const old = path.map((n) => n.text).join("");
  if (text === old) return doc;
  let same = 0;
  while (same < old.length && same < text.length && old[same] === text[same]) same++;
  // A surrogate pair is one character.
  if (same > 0 && /[\ud800-\udbff]/.test(text[same - 1] ?? "")) same--;
  let start = 0;
  for (const node of path) {
    const end = start + node.text.length;
    const last = node.id === doc.leaf;
    if (same < end || last) {
      const free = last && node.by === "you" && childrenOf(doc, node.id).length === 0;
      if (free) return changeNode(doc, node.id, { text: text.slice(start) });
      return branchAt(doc, node, same - start, text.slice(same));
    }
    start = end;
  }
  return doc;
}

/** A branch of the reader's own, `at` characters into `node`. */
function branchAt(doc, node, at, text) {
  if (at <= 0 && node.parent !== null) return addNode(doc, node.parent, { text });
  if (at <= 0) {
    // A new beginning: the old one stays as another child of an empty root.
    const moved = { ...node, id: doc.next, parent: node.id };
    const nodes = { ...doc.nodes, [node.id]: { ...node, by: "you", text: "", tokens: null }, [moved.id]: moved };
    for (const child of childrenOf(doc, node.id)) nodes[child.id] = { ...child, parent: moved.id };
    return addNode({ ...doc, nodes, next: doc.next + 1 }, node.id, { text });
  }
  const [cut] = splitNode(doc, node.id, at);
  return text === "" ? { ...cut, leaf: node.id } : addNode(cut, node.id, { text });
}

/** Goes on from another token than the one that was drawn: cuts before token `index` of `id` and starts a sibling. */
export function takeAlternative(doc, id, index, token) {
  const node = doc.nodes[id];
  const at = node.tokens.slice(0, index).reduce((n, t) => n + t.text.length, 0);
  const parent = at === 0 ? node.parent : id;
  const [cut] = splitNode(doc, id, at);
  const chosen = { ...token, top: node.tokens[index].top, entropy: node.tokens[index].entropy };
  return addNode(cut, parent, { by: "model", text: token.text, tokens: [chosen], sampling: node.sampling, model: node.model });
}

/** Removes a node and everything below it; the reader stands at its parent if they stood inside. The root stays. */
export function prune(doc, id) {
  const { parent } = doc.nodes[id];
  if (parent === null) return doc;
  const gone = new Set(below(doc, id));
  const nodes = Object.fromEntries(Object.entries(doc.nodes).filter(([key]) => !gone.has(Number(key))));
  return { ...doc, nodes, leaf: gone.has(doc.leaf) ? parent : doc.leaf };
}

function below(doc, id) {
  return [id, ...childrenOf(doc, id).flatMap((child) => below(doc, child.id))];
}

/** The next or previous sibling of the branch the reader is in; the nearest fork above counts. */
export function sibling(doc, step) {
  for (const node of pathTo(doc).reverse()) {
    if (node.parent === null) break;
    const all = childrenOf(doc, node.parent);
    if (all.length > 1) {
      const at = all.findIndex((n) => n.id === node.id);
      return { ...doc, leaf: newestLeaf(doc, all[(at + step + all.length) % all.length].id) };
    }
  }
  return doc;
}

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
    const tokens = n.by === "model" && Array.isArray(n.tokens) ? n.tokens.map(tokenOf) : null;
    nodes[n.id] = { id: n.id, parent: n.parent ?? null, by: n.by === "model" ? "model" : "you", text: n.text, tokens,
      sampling: n.sampling ?? null, model: typeof n.model === "string" ? n.model : null, finish: n.finish ?? null, seed: n.seed ?? null, sample: n.sample ?? null, bookmark: n.bookmark === true };
    if (nodes[n.id].by === "model" && !tokens) nodes[n.id].tokens = [plainToken(n.text)];
  }
  const roots = Object.values(nodes).filter((n) => n.parent === null);
  if (roots.length !== 1) throw new Error("A tree has one root; this file has " + roots.length + ".");
  for (const node of Object.values(nodes)) checkAncestry(nodes, node);
  const leaf = nodes[data.leaf] ? data.leaf : roots[0].id;
  const tags = Array.isArray(data.tags) ? data.tags.filter((tag) => typeof tag === "string") : [];
  const doc = { nodes, leaf, next: Math.max(...Object.keys(nodes).map(Number)) + 1 };
  return { doc, name: typeof data.name === "string" ? data.name : "", tags };
}

function tokenOf(t) {
  const number = (x) => (typeof x === "number" && Number.isFinite(x) ? x : null);
  const top = Array.isArray(t?.top) ? t.top.map((a) => ({ id: number(a?.id), text: String(a?.text ?? ""), logprob: number(a?.logprob) ?? -99 })) : [];
  return { id: number(t?.id), text: String(t?.text ?? ""), logprob: number(t?.logprob), entropy: number(t?.entropy), top };
}

function checkAncestry(nodes, node) {
  const seen = new Set();
  for (let at = node; at.parent !== null; at = nodes[at.parent]) {
    if (seen.has(at.id) || !nodes[at.parent]) throw new Error("Node " + node.id + " does not hang on the root.");
    seen.add(at.id);
  }
}
