// The document: a tree of pieces of text, and where in it the reader stands. Plain data, never changed in place, so that
// undo is a list of older documents and the page can be drawn from nothing else.
//
// node: { id, parent, by: "you" | "model", text, tokens, sampling, model, finish, seed, sample, bookmark, moved }
//   tokens of a model's node: [{ id, text, logprob, entropy, top: [{ id, text, logprob, part }] }], texts add up to node.text
//   moved: true where the tokens were drawn behind another text than the one that stands in front of them now
// document: { nodes: { id: node }, leaf, next }   leaf: the node whose path from the root is the text on the page

import { plainLines } from "./lines.js";

/** A document that holds `text`, typed by the reader. */
export function emptyDocument(text = "") {
  const root = { id: 0, parent: null, by: "you", text: plainLines(text), tokens: null, bookmark: false };
  return { nodes: { 0: root }, leaf: 0, next: 1 };
}

/** The nodes from the root to `id`, in order. */
export function pathTo(doc, id = doc.leaf) {
  const path = [];
  for (let node = doc.nodes[id]; node; node = doc.nodes[node.parent]) path.push(node);
  return path.reverse();
}

/** The text from the root to `id`. */
export function textOf(doc, id = doc.leaf) {
  return pathTo(doc, id).map((node) => node.text).join("");
}

/** How special tokens are called: `<|endoftext|>`, `</s>`, `[PAD]`. */
const SPECIAL = /^(<[^\s<>]+>|\[[A-Z_]+\])$/;

/** Whether the model has drawn a special token in the first `end` characters of the page. What a reader types is text, whatever it says. */
export function hasSpecial(doc, end = Infinity) {
  let at = 0;
  for (const node of pathTo(doc)) {
    let place = at;
    for (const token of node.tokens ?? []) {
      place += token.text.length;
      if (place <= end && SPECIAL.test(token.text)) return true;
    }
    at += node.text.length;
  }
  return false;
}

/** Children by their parents, for each set of nodes that was asked about: nodes are never changed in place. */
const families = new WeakMap();

/** The nodes that continue `id`, the oldest first. */
export function childrenOf(doc, id) {
  let family = families.get(doc.nodes);
  if (!family) {
    family = new Map();
    // Keys that are whole numbers come in their order.
    for (const node of Object.values(doc.nodes)) {
      if (family.has(node.parent)) family.get(node.parent).push(node);
      else family.set(node.parent, [node]);
    }
    families.set(doc.nodes, family);
  }
  return family.get(id) ?? [];
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
export const plainToken = (text) => ({ id: null, text, logprob: null, entropy: null, top: [] });

/**
 * The reader changed the text on the page to `written`. What was typed at the end of the reader's own last node stays in that
 * node; a change anywhere else starts a branch at the first character that differs, and the old text stays in the tree. What
 * the model wrote behind the change goes along with its tokens, marked as moved.
 */
export function editText(doc, written) {
  const text = plainLines(written);
  const path = pathTo(doc);
  const old = path.map((n) => n.text).join("");
  if (text === old) return doc;
  let same = 0;
  while (same < old.length && same < text.length && old[same] === text[same]) same++;
  // A surrogate pair is one character.
  if (same > 0 && /[\ud800-\udbff]/.test(text[same - 1] ?? "")) same--;
  const leaf = doc.nodes[doc.leaf];
  const ownEnd = old.length - leaf.text.length;
  if (leaf.by === "you" && same >= ownEnd && childrenOf(doc, leaf.id).length === 0) return changeNode(doc, leaf.id, { text: text.slice(ownEnd) });
  const kept = keptTail(path, old, text, same);
  same = Math.min(same, text.length - kept.length, old.length - kept.length);
  let start = 0;
  for (const node of path) {
    const end = start + node.text.length;
    if (same < end || node === leaf) {
      const branch = branchAt(doc, node, same - start, text.slice(same, text.length - kept.length));
      return kept.nodes.reduce((made, fields) => addNode(made, made.leaf, fields), branch);
    }
    start = end;
  }
  return doc;
}

/**
 * What may be kept of the end of the page when its text becomes another one from character `same` on: { nodes, length }, the
 * pieces from the first whole token of the model's on that stands behind the change, and how many characters they have. A
 * space can belong to what stands before the change or to the token behind it: the token gets it.
 */
function keptTail(path, old, text, same) {
  const most = Math.min(old.length, text.length);
  let equal = 0;
  while (equal < most && old[old.length - 1 - equal] === text[text.length - 1 - equal]) equal++;
  const from = old.length - equal;
  const earlier = Math.max(0, old.length - text.length);
  const isKept = (at, token) => at >= from && at - earlier > same - token.text.length;
  const nodes = [];
  let start = 0;
  for (const node of path) {
    let at = start;
    start += node.text.length;
    if (node.by === "you") {
      if (nodes.length) nodes.push({ text: node.text });
      continue;
    }
    const tokens = node.tokens.filter((token) => isKept((at += token.text.length) - token.text.length, token));
    const kept = tokens.map((token) => token.text).join("");
    if (kept !== "") nodes.push({ by: "model", text: kept, tokens, model: node.model, sampling: node.sampling, moved: true });
  }
  const all = nodes.map((node) => node.text).join("");
  // A full stop or a line break that both texts end with is no text of the model's.
  return /[\p{L}\p{N}]/u.test(all) ? { nodes, length: all.length } : { nodes: [], length: 0 };
}

/** A branch of the reader's own, `at` characters into `node`. */
function branchAt(doc, node, at, text) {
  const put = (made, parent) => (text === "" ? { ...made, leaf: parent } : addNode(made, parent, { text }));
  if (at <= 0 && node.parent !== null) return put(doc, node.parent);
  if (at <= 0) {
    // A new beginning: the old one stays as another child of an empty root.
    const moved = { ...node, id: doc.next, parent: node.id };
    const nodes = { ...doc.nodes, [node.id]: { ...node, by: "you", text: "", tokens: null }, [moved.id]: moved };
    for (const child of childrenOf(doc, node.id)) nodes[child.id] = { ...child, parent: moved.id };
    return put({ ...doc, nodes, next: doc.next + 1 }, node.id);
  }
  return put(splitNode(doc, node.id, at)[0], node.id);
}

/**
 * The document with the branches that undo has taken away and redo would bring again, `undone` the nearest first: what is
 * written next stands beside them. A reader stays where they are.
 */
export function withUndone(doc, undone) {
  const text = textOf(doc);
  const holdsAll = (later) => Object.keys(doc.nodes).every((id) => later.nodes[id]) && textOf(later, doc.leaf) === text;
  const later = undone.findLast(holdsAll);
  return later ? { ...later, leaf: doc.leaf } : doc;
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
  const found = [id];
  for (let i = 0; i < found.length; i++) for (const child of childrenOf(doc, found[i])) found.push(child.id);
  return found;
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
