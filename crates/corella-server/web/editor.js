// The text box. A transparent textarea, so that typing, selecting, spell-checking and screen readers work as everywhere,
// over a backdrop with the same text in spans that carry the colours. Both have the same font and padding, and the backdrop
// gives the height, so they never scroll apart.

import { byId, el } from "./dom.js";
import { heat } from "./filters.js";
import { pathTo } from "./state.js";

/** How far below the window the end of the page may be and still count as in sight, in pixels. */
const NEAR = 160;

/**
 * `onEdit(text)` is called as the reader types, `onMove(x, y)` when the pointer moves over the text, `onTap(x, y)` when a
 * finger taps it, `onLeave()` when the pointer has left.
 */
export function editor({ onEdit, onMove, onTap, onLeave }) {
  const text = byId("text");
  const backdrop = byId("backdrop");
  const page = byId("page");
  let places = [];
  let colour = "none";
  let spans = [];
  let drawn = [];

  text.addEventListener("input", () => onEdit(text.value));
  text.addEventListener("pointermove", (event) => onMove(event.clientX, event.clientY));
  text.addEventListener("pointerleave", onLeave);
  // A finger cannot rest on a token: it taps.
  text.addEventListener("click", (event) => event.pointerType === "touch" && onTap(event.clientX, event.clientY));

  /** The model's token at a point of the window, as it is drawn now: { node, index, token, start, element }, or null. */
  function placeAtPoint(x, y) {
    const element = document.elementsFromPoint(x, y).find((e) => e.classList?.contains("token"));
    return element ? places[Number(element.dataset.place)] : null;
  }

  /** Draws the path of the document. Nodes that did not change since the last drawing are left alone. */
  function draw(doc, byColour, sources) {
    const restyle = byColour !== colour || sources !== spans;
    colour = byColour;
    spans = sources;
    backdrop.classList.toggle("who", colour === "none");
    const path = pathTo(doc);
    const value = path.map((n) => n.text).join("");
    if (text.value !== value) setValue(value);
    let start = 0;
    places = [];
    const before = drawn;
    drawn = path.map((node, i) => {
      const old = before[i];
      const same = old && old.node === node && old.start === start && !restyle && old.firstPlace === places.length;
      const made = same ? old : drawNode(node, start, places.length);
      places.push(...made.places);
      start += node.text.length;
      return made;
    });
    const keep = new Set(drawn);
    before.filter((d) => !keep.has(d)).forEach((d) => d.element.remove());
    drawn.forEach((d, i) => {
      if (backdrop.children[i] !== d.element) backdrop.insertBefore(d.element, backdrop.children[i] ?? null);
    });
  }

  function drawNode(node, start, firstPlace) {
    const element = el("span", { className: "by-" + node.by });
    const made = { node, start, firstPlace, element, places: [] };
    let at = start;
    if (node.by !== "model") {
      element.append(...underlined(node.text, at));
      return made;
    }
    node.tokens.forEach((token, index) => {
      const span = el("span", { className: "token", "data-place": String(firstPlace + made.places.length) }, ...underlined(token.text, at));
      tint(span, token);
      made.places.push({ node: node.id, moved: node.moved === true, index, token, start: at, element: span });
      element.append(span);
      at += token.text.length;
    });
    return made;
  }

  function tint(span, token) {
    if (colour !== "probability" && colour !== "entropy") return;
    const value = heat(token, colour);
    if (value === null) return;
    span.classList.add(colour === "probability" ? "hot" : "open");
    span.style.setProperty("--a", (0.02 + 0.6 * value).toFixed(3));
  }

  /** Text with the spans that stand in the training data underlined; spans are { start, end, weight } in characters. */
  function underlined(piece, at) {
    if (colour !== "trace" || spans.length === 0) return [piece];
    const end = at + piece.length;
    const parts = [];
    let from = at;
    for (const span of spans) {
      if (span.end <= from || span.start >= end) continue;
      if (span.start > from) parts.push(piece.slice(from - at, span.start - at));
      const [a, b] = [Math.max(span.start, from), Math.min(span.end, end)];
      parts.push(el("span", { className: "span", style: "--a:" + span.weight }, piece.slice(a - at, b - at)));
      from = b;
    }
    if (from < end) parts.push(piece.slice(from - at));
    return parts;
  }

  /** Sets the text and keeps the cursor: at the end if it was there, else where it stood. */
  function setValue(value) {
    const { selectionStart, selectionEnd, value: old } = text;
    const atEnd = selectionStart === old.length;
    text.value = value;
    if (atEnd) text.setSelectionRange(value.length, value.length);
    else text.setSelectionRange(Math.min(selectionStart, value.length), Math.min(selectionEnd, value.length));
  }

  return {
    draw,
    placeAtPoint,
    focus: () => text.focus(),
    cursor: () => text.selectionStart,
    toEnd: () => text.setSelectionRange(text.value.length, text.value.length),
    /** The model's token at the cursor (the one before it, if it stands between two). */
    placeAtCursor() {
      const at = text.selectionStart;
      return places.findLast((p) => p.start < at && at <= p.start + p.token.text.length) ?? places.find((p) => p.start === at) ?? null;
    },
    mark(place) {
      backdrop.querySelectorAll(".token.at").forEach((e) => e.classList.remove("at"));
      place?.element.classList.add("at");
    },
    setStreaming(on) {
      page.classList.toggle("streaming", on);
    },
    /** Whether the end of the page is in sight, or nearly: then it stays so while text streams in. */
    showsEnd: () => page.getBoundingClientRect().bottom - innerHeight < NEAR,
    /** Brings the end of the page into sight. */
    showEnd() {
      const box = page.parentElement;
      const scroller = box.scrollHeight > box.clientHeight + 1 ? box : document.scrollingElement;
      scroller.scrollTop += Math.max(0, page.getBoundingClientRect().bottom - innerHeight);
    },
  };
}
