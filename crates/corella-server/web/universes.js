// Samples of one prompt side by side, with the places where they part.

import { el } from "./dom.js";
import { compare } from "./diff.js";
import { childrenOf } from "./state.js";

/** The samples as they are shown, by the ids of their nodes: { node, isHere, words, title, element }. */
let shown = new Map();
let compared = { texts: [], one: 0, marked: [] };

/**
 * Shows the model's continuations of `parent`, or nothing where there are fewer than two. `act` has go(id), prune(id). While
 * text is being written (`isWriting`) nothing is compared, and what did not change is left alone.
 */
export function drawUniverses(box, doc, parent, onPath, act, isWriting) {
  const all = parent === null ? [] : childrenOf(doc, parent).filter((n) => n.by === "model");
  box.hidden = all.length < 2;
  if (box.hidden) return;
  const one = Math.max(0, all.findIndex((n) => onPath.has(n.id)));
  const models = new Set(all.map((n) => n.model ?? ""));
  const marked = isWriting ? null : differences(all.map((n) => n.text), one);
  const before = shown;
  shown = new Map(all.map((node, i) => {
    const now = { node, isHere: onPath.has(node.id), words: marked?.[i] ?? null, title: models.size > 1 ? node.model : "Universe " + (i + 1) };
    const old = before.get(node.id);
    const same = old && old.node === node && old.isHere === now.isHere && old.title === now.title && (isWriting || old.words === now.words);
    return [node.id, same ? old : { ...now, element: article(now, act) }];
  }));
  const elements = [...shown.values()].map(({ element }) => element);
  if (elements.length !== box.children.length || elements.some((element, i) => element !== box.children[i])) box.replaceChildren(...elements);
}

function article({ node, isHere, words, title }, act) {
  const sure = node.tokens.reduce((n, t) => n + (t.logprob ?? 0), 0) / Math.max(1, node.tokens.length);
  const facts = `${title} · ${node.tokens.length} tokens${sure === 0 ? "" : ` · ${(-sure / Math.LN2).toFixed(1)} bits each`}${node.seed == null ? "" : ` · seed ${node.seed}, sample ${node.sample + 1}`}`;
  return el("article", { className: "universe" + (isHere ? " here" : "") },
    el("header", {}, el("span", {}, facts),
      el("button", { type: "button", className: "small", onclick: () => act.go(node.id) }, isHere ? "on the page" : "Take"),
      el("button", { type: "button", className: "quiet small", "aria-label": "Prune " + title.replace("Universe", "universe"), title: "Prune", onclick: () => act.prune(node.id) }, "✂")),
    el("p", {}, ...(words ?? [{ text: node.text, shared: true }]).map((word) => (word.shared ? word.text : el("span", { className: "parts" }, word.text)))));
}

/** Each text's words, compared with those of the one on the page. */
function differences(texts, one) {
  const same = one === compared.one && texts.length === compared.texts.length && texts.every((text, i) => text === compared.texts[i]);
  if (!same) compared = { texts, one, marked: compare(texts, one) };
  return compared.marked;
}
