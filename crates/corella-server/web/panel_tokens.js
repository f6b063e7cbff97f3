// The panel ‘Tokens’: the text as the model sees it.

import { el, visible } from "./dom.js";
import { bits, percent } from "./filters.js";
import { bytesOf } from "./read_tokens.js";
import { pathTo, textOf } from "./state.js";

const SHOWN = 2000;

/**
 * `tokens`: the server's [{ id, piece }] of the whole text. Probabilities come from the nodes that the model wrote, or from
 * `scores`, [{ id, logprob }] of the text as it stands; `onScore()` asks for them.
 */
export function drawTokens(panel, doc, { tokens, scores, context, error, onScore }) {
  const head = [
    el("h2", {}, "Tokens"),
    el("p", { className: "hint" }, tokens ? `${tokens.length} of ${context} tokens. A model knows ids only; the pieces are for people.` : "…"),
  ];
  if (error) head.push(el("p", { className: "status error" }, error));
  if (!tokens) {
    panel.replaceChildren(...head);
    return;
  }
  const scored = scores?.length === tokens.length && scores.every((score, i) => score.id === tokens[i].id);
  head.push(el("div", { className: "row" }, el("button", { type: "button", className: "small", onclick: onScore, disabled: scored }, "Score the text"),
    el("span", { className: "hint" }, scored ? "What the model makes of each token, also of yours." : "The probabilities are those with which the model drew its tokens.")));
  const known = scored ? null : probabilities(doc);
  const hidden = Math.max(0, tokens.length - SHOWN);
  const starts = startsOf(tokens, textOf(doc));
  const rows = tokens.slice(hidden).map((t, i) => {
    const text = pieceText(t.piece);
    const logprob = scored ? scores[hidden + i].logprob ?? undefined : known.get(starts[hidden + i] + ":" + text);
    return el("tr", {}, el("td", {}, String(hidden + i)), el("td", { className: "piece" }, ...visible(text)), el("td", {}, String(t.id)),
      el("td", {}, logprob === undefined ? "" : percent(Math.exp(logprob))), el("td", {}, logprob === undefined ? "" : bits(logprob).toFixed(1)));
  });
  panel.replaceChildren(...head, el("table", { className: "token-table" },
    el("thead", {}, el("tr", {}, ...["#", "piece", "id", "probability", "bits"].map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, ...rows)));
}

const encoder = new TextEncoder();
const lengthOf = (text) => encoder.encode(text).length;

/**
 * Where each token begins in the text, in bytes of UTF-8. Tokens end where the text ends; in front there may be more than the
 * text: a token that marks the start, a space that the tokenizer puts there. It lies before the text then.
 */
export function startsOf(tokens, text) {
  const lengths = tokens.map(({ piece }) => (typeof piece === "string" ? lengthOf(piece) : piece.length));
  let at = lengthOf(text) - lengths.reduce((sum, length) => sum + length, 0);
  return lengths.map((length) => (at += length) - length);
}

/** A piece is text, or bytes where it is part of a character. */
const pieceText = (piece) => (typeof piece === "string" ? piece : bytesOf(piece));

/** The logprobs with which the model drew what stands on the page, by place in bytes and text. */
export function probabilities(doc) {
  const known = new Map();
  let at = 0;
  for (const node of pathTo(doc)) {
    for (const t of node.tokens ?? []) {
      if (t.logprob !== null && !node.moved) known.set(at + ":" + t.text, t.logprob);
      at += lengthOf(t.text);
    }
    if (!node.tokens) at += lengthOf(node.text);
  }
  return known;
}
