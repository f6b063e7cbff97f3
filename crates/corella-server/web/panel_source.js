// The panel ‘Source’: which spans of the text stand word for word in what the model read, or in a text pasted here.

import { el, fill } from "./dom.js";
import { automaton, overlaps, recited } from "./overlap.js";

const SHOWN = 40;

/** The panel's own state: a pasted reference and its automaton. */
export function sourcePanel(panel, { onSpans, text, lastPromptAndAnswer, trace }) {
  let reference = "";
  let states = null;
  let traced = null;
  /** The text that was traced. */
  let tracedText = null;
  let message = "";

  function setReference(value) {
    reference = value;
    states = value === "" ? null : automaton(value);
    update();
  }

  /** Spans for the page: those of the training data if they are known, else those of the reference. */
  function update() {
    if (traced) onSpans(traced.spans.map((s) => ({ start: s.start, end: s.end, weight: (0.25 + 0.75 * Math.min(1, Math.log2(1 + s.count) / 8)).toFixed(2) })));
    else if (states) onSpans(overlaps(states, text()).map((s) => ({ start: s.start, end: s.end, weight: "0.8" })));
    else onSpans([]);
    if (!panel.hidden) draw();
  }

  async function ask() {
    message = "looking …";
    draw();
    const asked = text();
    try {
      const found = await trace(asked);
      if (asked !== text()) return;
      [traced, tracedText] = [found.spans ? found : null, asked];
      message = traced ? "" : `${found.hint} Or paste a text to compare with below.`;
    } catch (error) {
      message = error.message;
    }
    update();
    draw();
  }

  function draw() {
    const area = panel.querySelector("textarea") ?? el("textarea", { className: "area", rows: 6, "aria-label": "Reference text", placeholder: "Paste a text here, such as the page that the model seems to recite.", value: reference, oninput: (e) => setReference(e.target.value) });
    const kept = document.activeElement === area;
    fill(panel,
      el("h2", {}, "Where it comes from"),
      el("p", { className: "hint" }, "Underlined on the page: spans that stand word for word in the training data. The stronger, the more often they stand there."),
      el("div", { className: "row" }, el("button", { type: "button", className: "small", onclick: ask }, "Search the training data")),
      message ? el("p", { className: "hint" }, message) : null,
      ...(traced ? tracedSpans() : []),
      el("h3", {}, "Against a text of your own"), area, ...comparison());
    if (kept) area.focus();
  }

  function tracedSpans() {
    if (traced.spans.length === 0) return [el("p", {}, "No span of this text stands in the training data.")];
    return traced.spans.slice(0, SHOWN).map((s) => fill(el("details", { className: "demo" }),
      el("summary", {}, `“${shorten(text().slice(s.start, s.end))}” · ${s.tokens} tokens · ${s.count === 1 ? "once" : `${s.count} times`} in the training data`),
      ...s.documents.map((d) => el("pre", {}, el("span", { className: "space" }, d.before), el("strong", {}, d.match), el("span", { className: "space" }, d.after), `\n— document ${d.document}`)),
      leaving(s)));
  }

  /** What was found holds for one text only; the page may be drawn after the answer has come. */
  function textChanged() {
    if (tracedText === text()) return;
    [traced, tracedText, message] = [null, null, ""];
    update();
  }

  /** How the original goes on where the text does not follow it any more. */
  function leaving(span) {
    if (span.leaves) return el("p", { className: "hint" }, `Then the original goes on: “${shorten(span.leaves)}”`);
    return span.documents[0]?.after === "" && span.end < text().length ? el("p", { className: "hint" }, "There the original ends.") : null;
  }

  function comparison() {
    if (!states) return [];
    const all = text();
    const spans = overlaps(states, all);
    const share = spans.reduce((n, s) => n + s.end - s.start, 0) / Math.max(1, all.length);
    const { prompt, answer, tokens } = lastPromptAndAnswer();
    const lines = [el("p", {}, `${Math.round(share * 100)} % of the page stands in the reference, in ${spans.length} span${spans.length === 1 ? "" : "s"} of 24 characters or more.`)];
    const r = answer === "" ? null : recited(states, reference, prompt, answer);
    if (r) lines.push(el("p", { className: "measured" }, recital(r, tokensOf(tokens, r.same))));
    return lines;
  }

  return { draw, update, ask, setReference(value) { panel.querySelector("textarea")?.remove(); setReference(value); }, textChanged };
}

/** How far a continuation recites, in words. */
function recital({ same, end, expected, got }, count) {
  const extent = `${same} character${same === 1 ? "" : "s"}${count === null ? "" : ` (${count} token${count === 1 ? "" : "s"})`}`;
  if (end === "reference") return `The continuation recites the reference to its end: ${extent}.`;
  if (end === "answer") return `All of the continuation stands in the reference: ${extent}. There the original goes on: “${shorten(expected)}”.`;
  return `Recited word for word: ${extent}; then it writes “${shorten(got)}” where the original has “${shorten(expected)}”.`;
}

/** How many whole tokens lie in the first `length` characters; null where the server does not tell of tokens. */
function tokensOf(tokens, length) {
  if (tokens.every((token) => token.logprob === null)) return null;
  let at = 0;
  return tokens.filter((token) => (at += token.text.length) <= length).length;
}

const shorten = (s) => {
  const line = s.replace(/\s+/g, " ");
  return line.length > 70 ? line.slice(0, 34) + " … " + line.slice(-30) : line;
};
