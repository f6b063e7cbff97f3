// Samples of one prompt side by side, with the places where they part.

import { el } from "./dom.js";
import { compare } from "./diff.js";
import { childrenOf } from "./state.js";

/** Shows the model's continuations of `parent`, or nothing where there are fewer than two. `act` has go(id), keep(id). */
export function drawUniverses(box, doc, parent, onPath, act) {
  const all = parent === null ? [] : childrenOf(doc, parent).filter((n) => n.by === "model");
  box.hidden = all.length < 2;
  if (box.hidden) return;
  const models = new Set(all.map((n) => n.model ?? ""));
  const marked = compare(all.map((n) => n.text));
  box.replaceChildren(...all.map((node, i) => {
    const sure = node.tokens.reduce((n, t) => n + (t.logprob ?? 0), 0) / Math.max(1, node.tokens.length);
    return el("article", { className: "universe" + (onPath.has(node.id) ? " here" : "") },
      el("header", {}, el("span", {}, `${models.size > 1 ? node.model : "Universe " + (i + 1)} · ${node.tokens.length} tokens${sure === 0 ? "" : ` · ${(-sure / Math.LN2).toFixed(1)} bits each`}${node.seed == null ? "" : ` · seed ${node.seed}, sample ${node.sample + 1}`}`),
        el("button", { type: "button", className: "small", onclick: () => act.go(node.id) }, onPath.has(node.id) ? "on the page" : "Take"),
        el("button", { type: "button", className: "quiet small", "aria-label": "Prune universe " + (i + 1), title: "Prune", onclick: () => act.prune(node.id) }, "✂")),
      el("p", {}, ...marked[i].map((word) => (word.shared ? word.text : el("span", { className: "parts" }, word.text)))));
  }));
}
