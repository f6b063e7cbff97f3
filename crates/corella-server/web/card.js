// The card that hangs on a token: what else could have stood there, each one click away.

import { byId, el, visible } from "./dom.js";
import { bits, percent } from "./filters.js";

/** Why a token cannot be chosen. */
export const PART = "part of a character: no text can go on from it";

/**
 * `placeAt(x, y)` tells which token lies at a point of the window; `onTake(place, alternative)` is called when a reader goes
 * on from another token.
 */
export function card({ placeAt, onTake, onClose }) {
  const box = byId("card");
  let current = null;
  let timer = null;

  box.addEventListener("pointerenter", () => clearTimeout(timer));
  // A finger that is lifted has left too, but means to press.
  box.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && close());
  document.addEventListener("pointerdown", (event) => box.contains(event.target) || close(false));
  // Whoever goes on with the Tab key has left it.
  box.addEventListener("focusout", (event) => event.relatedTarget && !box.contains(event.relatedTarget) && close());
  box.addEventListener("keydown", (event) => {
    const buttons = [...box.querySelectorAll("button:enabled")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length)?.focus();
      event.preventDefault();
    }
  });

  function fill(place) {
    const { token } = place;
    const facts = token.logprob === null ? "no probability is known for this text"
      : `${percent(Math.exp(token.logprob))} · ${bits(token.logprob).toFixed(1)} bits`
        + (token.entropy === null ? "" : ` · entropy ${(token.entropy / Math.LN2).toFixed(1)} bits`) + (token.id === null ? "" : ` · id ${token.id}`)
        + (place.moved ? " · drawn behind another text" : "");
    const drawn = (t) => (token.id === null ? t.text === token.text : t.id === token.id);
    const largest = Math.max(...token.top.map((t) => t.logprob), token.logprob ?? -99);
    const rows = token.top.map((t) => el("button", {
      type: "button", className: "bar-row" + (drawn(t) ? " chosen" : ""), disabled: t.part === true,
      title: drawn(t) ? "the token that was drawn" : t.part ? PART : "continue from this token",
      onclick: () => { close(true); onTake(place, t); },
    },
    el("span", { className: "piece" }, ...visible(t.text)),
    el("span", { className: "track" }, el("span", { className: "drawn", style: `width:${100 * Math.exp(t.logprob - largest)}%` })),
    el("span", { className: "number" }, percent(Math.exp(t.logprob)))));
    box.replaceChildren(el("h2", {}, ...visible(token.text)), el("p", { className: "hint" }, facts), el("div", { className: "bars" }, ...rows));
  }

  function open(place, focus) {
    clearTimeout(timer);
    const isNew = current !== place;
    if (isNew) fill(place);
    current = place;
    box.hidden = false;
    if (isNew) box.scrollTop = 0;
    const rect = place.element.getBoundingClientRect();
    const height = box.offsetHeight;
    const below = rect.bottom + height + 12 < innerHeight || rect.top < height;
    box.style.left = Math.max(8, Math.min(rect.left, innerWidth - box.offsetWidth - 8)) + scrollX + "px";
    box.style.top = (below ? rect.bottom + 6 : rect.top - height - 6) + scrollY + "px";
    if (focus) box.querySelector("button:enabled")?.focus();
  }

  function close(now = true) {
    clearTimeout(timer);
    if (!now) {
      timer = setTimeout(close, 250);
      return;
    }
    if (!box.hidden) onClose();
    box.hidden = true;
    current = null;
  }

  /** Shows what lies at a point; closes, after a moment, over nothing. */
  function look(x, y) {
    const place = placeAt(x, y);
    if (place) open(place, false);
    else close(false);
  }

  return {
    /** The pointer has moved. What lies under it counts once it has rested: the text may have been drawn anew until then. */
    hover(x, y) {
      clearTimeout(timer);
      if (current === null || placeAt(x, y) !== current) timer = setTimeout(() => look(x, y), box.hidden ? 220 : 60);
    },
    tap: look,
    open: (place) => open(place, true),
    leave: () => close(false),
    close,
    get isOpen() {
      return !box.hidden;
    },
  };
}
