// The panel ‘Next token’: the distribution at the end of the text, and what the sampling settings make of it, live.

import { PART } from "./card.js";
import { el, visible } from "./dom.js";
import { percent, reshape } from "./filters.js";

/** `distribution`: the likeliest tokens [{ id, text, logprob }], null while it is being fetched; `onTake(token)` appends one;
 * `behind` is the text it follows. */
export function drawNext(panel, distribution, sampling, { onTake, onRefresh, error, behind }) {
  const { temperature, topK, topP, minP } = sampling.values;
  const head = [
    el("h2", {}, "The next token"),
    el("p", { className: "hint" }, "Grey: the model’s own probability. Colour: the chance of being drawn with the sampling settings. Click a token to append it."),
    el("div", { className: "row" }, el("button", { type: "button", className: "small", onclick: onRefresh }, "Look at the cursor"),
      el("span", { className: "behind" }, behind === "" ? "at the start of a text" : "…" + behind.slice(-28).replace(/\n/g, "⏎"))),
  ];
  if (error) head.push(el("p", { className: "status error" }, error));
  if (!distribution) {
    panel.replaceChildren(...head);
    return;
  }
  const { rows, rest } = reshape(distribution, { temperature, topK, topP, minP });
  const largest = Math.max(...rows.map((r) => Math.max(r.raw, r.drawn)), 1e-9);
  const width = (p) => `width:${(100 * p) / largest}%`;
  const bars = rows.map((r) => el("button", {
    type: "button", className: "bar-row" + (r.kept ? "" : " cut"), disabled: r.part === true,
    title: `id ${r.id}: ${percent(r.raw)} of the model, ${percent(r.drawn)} as drawn${r.part ? "; " + PART : ""}`, onclick: () => onTake(r),
  },
  el("span", { className: "piece" }, ...visible(r.text)),
  el("span", { className: "track" }, el("span", { className: "raw", style: width(r.raw) }), el("span", { className: "drawn", style: width(r.drawn) })),
  el("span", { className: "number" }, percent(r.drawn))));
  const kept = rows.filter((r) => r.kept).length;
  panel.replaceChildren(...head,
    el("div", { className: "row", "aria-label": "Sampling" }, ...sliders(sampling)),
    el("div", { className: "bars" }, ...bars),
    el("p", { className: "hint" }, `${kept} of the ${rows.length} named tokens can be drawn. All others together: ${percent(rest)} of the model’s probability.`));
}

function sliders(sampling) {
  const one = (key, label, min, max, step) => el("label", { className: "slider", style: "width:100%;grid-template-columns:6rem 1fr 3rem" }, label,
    el("input", { type: "range", min, max, step, value: sampling.values[key], oninput: (e) => sampling.set({ [key]: Number(e.target.value) }) }),
    el("span", { className: "number" }, String(sampling.values[key])));
  return [one("temperature", "Temperature", 0, 2, 0.05), one("topK", "Top-k", 0, 40, 1), one("topP", "Top-p", 0.05, 1, 0.01), one("minP", "Min-p", 0, 0.5, 0.01)];
}
