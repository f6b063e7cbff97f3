// Small helpers for building elements.

/** An element with properties, attributes (`aria-…`, `data-…`, `role`), listeners (`onclick`) and children. */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith("aria-") || key.startsWith("data-") || key === "role" || key === "style") element.setAttribute(key, value);
    else element[key] = value;
  }
  return children.length ? fill(element, ...children) : element;
}

/** Replaces what is in an element; absent children (null, undefined, false) are left out. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The element with an id; the page is broken without it. */
export const byId = (id) => document.getElementById(id);

/** A token's text with what cannot be seen made visible. */
export function visible(text) {
  if (text === "") return [el("span", { className: "space" }, "∅")];
  return text.split(/([ \n\t])/).filter((part) => part !== "").map((part) => {
    const mark = { " ": "␣", "\n": "⏎", "\t": "⇥" }[part];
    return mark ? el("span", { className: "space" }, mark) : part;
  });
}
