// The panel ‘Branches’: every continuation that was made, to walk, bookmark and prune.

import { el, fill } from "./dom.js";
import { nameOf, tagsOf } from "./pages.js";
import { childrenOf, newestLeaf, pathTo } from "./state.js";

const SHOWN = 60;

/**
 * Draws the tree of the open page and the other pages; `act` has go(id), bookmark(id), prune(id), exportTree(),
 * importTree(file), newPage(), turnTo(key), removePage(key), describe({ name, tags }).
 */
export function drawTree(panel, doc, shelf, act) {
  const onPath = new Set(pathTo(doc).map((n) => n.id));
  const marked = Object.values(doc.nodes).filter((n) => n.bookmark);
  const file = el("input", { type: "file", accept: "application/json,.json", hidden: true, onchange: (e) => e.target.files[0] && act.importTree(e.target.files[0]) });
  // Name and tags are written in: they stay while everything around them is drawn anew.
  parts ??= { top: el("div"), about: about(act), marked: el("div"), tree: el("ul", { className: "tree", role: "tree", "aria-label": "Branches" }), rest: el("div") };
  if (!panel.contains(parts.top)) panel.replaceChildren(parts.top, parts.about.element, parts.marked, parts.tree, parts.rest);
  parts.about.show(shelf.open);
  fill(parts.top,
    el("h2", {}, "Branches"),
    el("p", { className: "hint" }, `${Object.keys(doc.nodes).length} pieces. Blue is the model’s, the rest is yours. Everything stays until you prune it; kept in this browser only.`),
    el("div", { className: "row" },
      el("button", { type: "button", className: "small", onclick: act.exportTree }, "Export"),
      el("button", { type: "button", className: "small", onclick: () => file.click() }, "Import"), file,
      el("button", { type: "button", className: "small", onclick: act.newPage }, "New page")));
  fill(parts.marked,
    marked.length ? el("h3", {}, "Bookmarks") : null,
    marked.length ? el("ul", { className: "tree" }, ...marked.map((n) => el("li", {}, el("div", { className: "node" }, goButton(n, act))))) : null,
    el("h3", {}, "Tree"));
  put(parts.tree, branch(doc, rootOf(doc), onPath, act));
  fill(parts.rest,
    shelf.isLoaded ? null : el("p", { className: "hint" }, "Pages from before come as soon as this browser’s storage has opened."),
    ...otherPages(shelf, act));
}

let parts = null;

/** Fields for name and tags of the open page. */
function about(act) {
  const field = (label, onchange) => el("input", { type: "text", "aria-label": label, maxLength: 80, onchange });
  const name = field("Name of this page", (e) => act.describe({ name: e.target.value.trim() }));
  const tags = field("Tags of this page, separated by commas", (e) => act.describe({ tags: tagsOf(e.target.value) }));
  tags.placeholder = "tags, separated by commas";
  return {
    element: el("div", { className: "row describe" }, name, tags),
    show(page) {
      name.placeholder = nameOf(page);
      if (document.activeElement !== name) name.value = page.name;
      if (document.activeElement !== tags) tags.value = page.tags.join(", ");
    },
  };
}

let chosenTag = null;

/** The pages that wait, of one tag if one is chosen. */
function otherPages(shelf, act) {
  const others = shelf.list.filter((page) => page.key !== shelf.open.key);
  if (others.length === 0) return [];
  const tags = [...new Set(shelf.list.flatMap((page) => page.tags))].sort();
  if (!tags.includes(chosenTag)) chosenTag = null;
  const choose = (tag) => {
    chosenTag = chosenTag === tag ? null : tag;
    act.describe({});
  };
  const shown = others.filter((page) => chosenTag === null || page.tags.includes(chosenTag)).reverse();
  return [el("h3", {}, "Other pages"),
    tags.length ? el("div", { className: "row tags" }, ...tags.map((tag) => el("button", { type: "button", className: "small", "aria-pressed": String(tag === chosenTag), onclick: () => choose(tag) }, tag))) : null,
    el("ul", { className: "tree pages" }, ...shown.map((page) => el("li", {}, el("div", { className: "node" },
      el("button", { type: "button", className: "go", onclick: () => act.turnTo(page.key) }, label(nameOf(page)), ...page.tags.map((tag) => el("span", { className: "tag" }, tag))),
      el("button", { type: "button", className: "quiet small act", title: "Throw this page away", "aria-label": "Throw away " + nameOf(page), onclick: () => act.removePage(page.key) }, "×")))))];
}

const rootOf = (doc) => pathTo(doc)[0];

const label = (text) => {
  const line = text.replace(/\s+/g, " ").trim();
  return line === "" ? "(empty)" : line.length > SHOWN ? line.slice(0, SHOWN) + "…" : line;
};

function goButton(node, act) {
  return el("button", { type: "button", className: "go" + (node.by === "model" ? " model-text" : ""), title: (node.model ? node.model + ": " : "") + node.text.slice(0, 400), onclick: () => act.go(node.id) }, label(node.text));
}

/** A node with what hangs on it: items of a list. A chain without forks stays at one indentation. */
function branch(doc, node, onPath, act) {
  const all = [];
  for (let at = node; at; ) {
    const children = childrenOf(doc, at.id);
    const item = itemOf(at, act);
    const isLeaf = doc.leaf === at.id;
    const name = (onPath.has(at.id) ? "on-path" : "") + (isLeaf ? " leaf" : "");
    if (item.className !== name) item.className = name;
    if (item.ariaSelected !== String(isLeaf)) item.ariaSelected = String(isLeaf);
    if (children.length > 1) {
      if (item.children.length === 1) item.append(el("ul", { role: "group" }));
      put(item.lastChild, children.flatMap((child) => branch(doc, child, onPath, act)));
    } else if (item.children.length > 1) {
      item.lastChild.remove();
    }
    all.push(item);
    at = children.length === 1 ? children[0] : null;
  }
  return all;
}

/** Items by their nodes, which never change: of a large tree, most are there from the drawing before. */
const items = new WeakMap();

function itemOf(node, act) {
  if (!items.has(node)) items.set(node, el("li", { role: "treeitem" }, el("div", { className: "node" }, goButton(node, act), actions(node, act))));
  return items.get(node);
}

/** Puts elements into a list; those that are in their place are not touched. */
function put(list, wanted) {
  const keep = new Set(wanted);
  for (const child of [...list.children]) if (!keep.has(child)) child.remove();
  let next = list.firstElementChild;
  for (const element of wanted) {
    if (element === next) next = next.nextElementSibling;
    else list.insertBefore(element, next);
  }
}

function actions(node, act) {
  const bookmark = el("button", { type: "button", className: "quiet small act" + (node.bookmark ? " on" : ""), title: "Bookmark", "aria-label": "Bookmark", "aria-pressed": String(node.bookmark), onclick: () => act.bookmark(node.id) }, node.bookmark ? "★" : "☆");
  const prune = node.parent === null ? null : el("button", { type: "button", className: "quiet small act", title: "Prune this branch", "aria-label": "Prune this branch", onclick: () => act.prune(node.id) }, "✂");
  return el("span", {}, bookmark, prune);
}

/** Where a reader lands who chooses node `id`: at the end of its newest branch, or at itself if it is on the path. */
export function landing(doc, id) {
  return pathTo(doc).some((n) => n.id === id) ? id : newestLeaf(doc, id);
}
