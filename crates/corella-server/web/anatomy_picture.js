// The page ‘Anatomy’, drawn: bars to scale, the stack of layers, lists.

import { stack } from "./anatomy_stack.js";
import { steps } from "./anatomy_steps.js";
import { PARTS, PURPOSES, bytes, count, purpose, shape, share, zip, zipBars } from "./anatomy_words.js";
import { el, fill } from "./dom.js";

const swatch = (part, shared = false) => el("span", { className: `swatch ${part ?? "none"}${shared ? " shared" : ""}`, "aria-hidden": "true" });

/** A table whose first column says what its rows are; `columns` are [name, whether it holds numbers, their unit], `rows` [heading, ...texts]. */
function wide(columns, rows) {
  const side = ([, end]) => (end ? "end" : "");
  const heads = columns.map((column) => el("th", { scope: "col", className: `${column[0]} ${side(column)}` }, column[0]));
  const cell = (content, i) => el("td", { className: side(columns[i + 1]), "data-unit": content && columns[i + 1][2] }, content);
  return el("table", { className: "facts wide" }, el("thead", {}, el("tr", {}, ...heads)),
    el("tbody", {}, ...rows.map(([heading, ...cells]) => el("tr", {}, el("th", { scope: "row" }, ...heading), ...cells.map(cell)))));
}

/** A bar whose full width stands for `whole` numbers, with a piece for each of `parts`, [{ part, parameters }]. */
function bar({ parts, shared }, whole, label) {
  return el("span", { className: "scale", role: "img", "aria-label": label }, ...parts.map(({ part, parameters }) => el("span", {
    className: `piece ${part}${shared ? " shared" : ""}`, style: `width:${(100 * parameters) / whole}%`, title: `${PARTS[part]}: ${count(parameters)}`,
  })));
}

const inWords = (parts, whole) => parts.map(({ part, parameters }) => `${PARTS[part]} ${share(parameters, whole)}`).join(", ");

/** The bar of all parameters, and the table that says what its pieces are. */
export function drawParts(place, { parts, parameters, config }) {
  const heading = (part, text, shared) => [swatch(part, shared), PARTS[part], el("small", {}, text)];
  const rows = parts.map((row) => [heading(row.part, PURPOSES[row.part]), share(row.parameters, parameters), count(row.parameters), bytes(row.bytes)]);
  if (config.tied) rows.push([heading("head", "the token embedding again, and counted there", true), "shared", "", ""]);
  fill(place, bar({ parts }, parameters, inWords(parts, parameters)), wide([["part"], ["share", true], ["numbers", true, "numbers"], ["bytes", true]], rows));
}

/** A row for each layer, and for what stands before and behind them, on one scale. */
export function drawStack(place, model) {
  const rows = stack(model);
  const whole = Math.max(...rows.filter((row) => !row.folded).map((row) => row.parameters));
  fill(place, ...rows.map((row) => drawRow(row, whole, model)));
}

function drawRow(row, whole, model) {
  if (row.folded) {
    return el("details", { className: "between" }, el("summary", {}, row.name), ...row.folded.map((layer) => drawRow(layer, whole, model)));
  }
  const line = [el("span", { className: "name" }, row.name), bar(row, whole, row.shared ? "the token embedding again" : inWords(row.parts, row.parameters)),
    el("span", { className: "number" }, row.shared ? "shared" : count(row.parameters))];
  return row.shared ? el("div", { className: "layer" }, el("div", { className: "layer-row" }, ...line))
    : el("details", { className: "layer" }, el("summary", { className: "layer-row" }, ...line), tensorTable(row.tensors, model));
}

function tensorTable(tensors, model) {
  const row = (tensor) => [[swatch(tensor.part), el("code", {}, tensor.name), el("small", {}, purpose(tensor, model))],
    shape(tensor.shape), tensor.dtype, count(tensor.parameters), bytes(tensor.bytes)];
  return wide([["tensor"], ["shape"], ["format"], ["numbers", true, "numbers"], ["bytes", true]], tensors.map(row));
}

/** The steps of a token's way, those of a layer in a frame. */
export function drawWay(place, model) {
  const { before, layer, after } = steps(model);
  const list = (items, first) => el("ol", { className: "way", start: first }, ...items.map((step, i) => el("li", {}, el("span", { className: "at" }, String(first + i)), swatch(step.part),
    el("b", {}, step.name), el("span", { className: "what" }, step.text), el("code", {}, step.shape))));
  const layers = model.layers.length;
  fill(place, list(before, 1),
    el("section", { className: "repeated", "aria-label": "in each layer" }, el("p", { className: "times" }, layers === 1 ? "in the one layer" : `${layers} times, in each layer with its own numbers`), list(layer, before.length + 1)),
    list(after, before.length + layer.length + 1));
}

/** The text, the numbers and what these can keep, on one scale. */
export function drawZip(place, model) {
  const bars = zipBars(model);
  const whole = Math.max(...bars.map(([, n]) => n));
  const rows = bars.map(([name, n]) => el("div", { className: "bar-row" }, el("span", {}, name),
    el("span", { className: "track" }, el("span", { className: "raw", style: `width:${(100 * n) / whole}%` })), el("span", { className: "number" }, bytes(n))));
  fill(place, el("div", { className: "bars" }, ...rows), ...zip(model).map((sentence) => el("p", { className: "hint" }, sentence)));
}

/** [[name, value], …] as a table. */
export function drawFacts(place, facts) {
  fill(place, el("table", { className: "facts" }, el("tbody", {}, ...facts.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value))))));
}
