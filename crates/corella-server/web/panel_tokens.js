// The panel ‘Tokens’: the text as the model sees it.

import { el, visible } from "./dom.js";
import { bits, percent } from "./filters.js";
import { pathTo, textOf } from "./state.js";

const SHOWN = 2000;

/** `tokens`: the server's [{ id, piece }] of the whole text; probabilities come from the nodes that the model wrote. */
export function drawTokens(panel, doc, tokens, context, error) {
  const known = probabilities(doc);
  const head = [
    el("h2", {}, "Tokens"),
    el("p", { className: "hint" }, tokens ? `${tokens.length} of ${context} tokens. A model knows ids only; the pieces are for people.` : "…"),
  ];
  if (error) head.push(el("p", { className: "status error" }, error));
  if (!tokens) {
    panel.replaceChildren(...head);
    return;
  }
  const hidden = Math.max(0, tokens.length - SHOWN);
  const starts = startsOf(tokens, textOf(doc));
  const rows = tokens.slice(hidden).map((t, i) => {
    const text = pieceText(t.piece);
    const logprob = known.get(starts[hidden + i] + ":" + text);
    return el("tr", {}, el("td", {}, String(hidden + i)), el("td", { className: "piece" }, ...visible(text)), el("td", {}, String(t.id)),
      el("td", {}, logprob === undefined ? "" : percent(Math.exp(logprob))), el("td", {}, logprob === undefined ? "" : bits(logprob).toFixed(1)));
  });
  panel.replaceChildren(...head, el("table", { className: "token-table" },
    el("thead", {}, el("tr", {}, ...["#", "piece", "id", "probability", "bits"].map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, ...rows)));
}

/** Where each token begins in the text. The first may only mark the start; it is no part of the text then. */
export function startsOf(tokens, text) {
  const pieces = tokens.map((t) => pieceText(t.piece));
  let at = pieces.length && !text.startsWith(pieces[0]) ? -pieces[0].length : 0;
  return pieces.map((piece) => (at += piece.length) - piece.length);
}

/** A piece is text, or bytes where it is part of a character. */
function pieceText(piece) {
  return typeof piece === "string" ? piece : piece.map((b) => "\\x" + b.toString(16).padStart(2, "0")).join("");
}

function probabilities(doc) {
  const known = new Map();
  let at = 0;
  for (const node of pathTo(doc)) {
    let inner = at;
    for (const t of node.tokens ?? []) {
      if (t.logprob !== null) known.set(inner + ":" + t.text, t.logprob);
      inner += t.text.length;
    }
    at += node.text.length;
  }
  return known;
}
