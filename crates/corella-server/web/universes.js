// Samples of one prompt side by side, with the places where they part.

import { el } from "./dom.js";
import { compare } from "./diff.js";
import { childrenOf } from "./state.js";

/** What is shown, so that nothing is compared or built twice. */
let shown = [];
let compared = { texts: [], one: 0, marked: [] };

/**
 * Shows the model's continuations of `parent`, or nothing where there are fewer than two. `act` has go(id), prune(id). While
 * text is being written (`isWriting`) nothing is compared.
 */
export function drawUniverses(box, doc, parent, onPath, act, isWriting) {
  const all = parent === null ? [] : childrenOf(doc, parent).filter((n) => n.by === "model");
  box.hidden = all.length < 2;
  if (box.hidden) return;
  const here = Math.max(0, all.findIndex((n) => onPath.has(n.id)));
  const now = [box, isWriting, all.some((n) => onPath.has(n.id)) && here, ...all];
  if (now.length === shown.length && now.every((part, i) => part === shown[i])) return;
  shown = now;
  const models = new Set(all.map((n) => n.model ?? ""));
  const marked = isWriting ? all.map((n) => [{ text: n.text, shared: true }]) : differences(all.map((n) => n.text), here);
  box.replaceChildren(...all.map((node, i) => {
    const sure = node.tokens.reduce((n, t) => n + (t.logprob ?? 0), 0) / Math.max(1, node.tokens.length);
    return el("article", { className: "universe" + (onPath.has(node.id) ? " here" : "") },
      el("header", {}, el("span", {}, `${models.size > 1 ? node.model : "Universe " + (i + 1)} · ${node.tokens.length} tokens${sure === 0 ? "" : ` · ${(-sure / Math.LN2).toFixed(1)} bits each`}${node.seed == null ? "" : ` · seed ${node.seed}, sample ${node.sample + 1}`}`),
        el("button", { type: "button", className: "small", onclick: () => act.go(node.id) }, onPath.has(node.id) ? "on the page" : "Take"),
        el("button", { type: "button", className: "quiet small", "aria-label": "Prune universe " + (i + 1), title: "Prune", onclick: () => act.prune(node.id) }, "✂")),
      el("p", {}, ...marked[i].map((word) => (word.shared ? word.text : el("span", { className: "parts" }, word.text)))));
  }));
}

/** Each text's words, compared with those of the one on the page. */
function differences(texts, one) {
  const same = one === compared.one && texts.length === compared.texts.length && texts.every((text, i) => text === compared.texts[i]);
  if (!same) compared = { texts, one, marked: compare(texts, one) };
  return compared.marked;
}
