// What the panel ‘Branches’ and the universes do with the tree and the pages.

import { el } from "./dom.js";
import { nameOf } from "./pages.js";
import { landing } from "./panel_tree.js";
import { say } from "./status.js";
import * as state from "./state.js";
import { exportDocument, importDocument, withPlainLines } from "./tree_file.js";

/** What is said of a page that another tab has open. */
export const COPY = "This page is open in another tab. What you change here is kept as a copy of it.";

/** `isFree()` is false, and says so, while text is being written; `redraw()` draws the panel, `focus()` goes to the text. */
export function treeActions({ past, shelf, isFree, redraw, focus, modelName }) {
  const isBlank = () => Object.keys(past.document.nodes).length === 1 && state.textOf(past.document) === "";

  return {
    go: (id) => isFree() && past.commit({ ...past.document, leaf: landing(past.document, id) }),
    bookmark: (id) => past.commit(state.changeNode(past.document, id, { bookmark: !past.document.nodes[id].bookmark })),
    prune: (id) => isFree() && past.commit(state.prune(past.document, id)),
    sibling: (step) => isFree() && past.commit(state.sibling(past.document, step)),
    up() {
      const { parent } = past.document.nodes[past.document.leaf];
      if (isFree() && parent !== null) past.commit({ ...past.document, leaf: parent });
    },
    newPage() {
      if (!isFree()) return;
      shelf.add();
      past.reset(state.emptyDocument());
      say("");
      focus();
    },
    async turnTo(key) {
      if (!isFree()) return;
      // Much can have happened once it is read.
      const doc = await shelf.turnTo(key, isFree);
      if (doc === undefined) return;
      past.reset(doc === null ? state.emptyDocument() : withPlainLines(doc));
      say(shelf.isCopy ? COPY : "");
    },
    describe(fields) {
      if (Object.keys(fields).length) shelf.describe(fields);
      redraw();
    },
    removePage(key) {
      const name = nameOf(shelf.list.find((page) => page.key === key));
      shelf.remove(key);
      redraw();
      const back = () => {
        shelf.bringBack(key);
        redraw();
        say("");
      };
      say([`“${name}” is thrown away. `, el("button", { type: "button", className: "small", onclick: back }, "Bring it back")]);
    },
    exportTree() {
      const link = document.createElement("a");
      const { name, tags } = shelf.open;
      link.href = URL.createObjectURL(new Blob([exportDocument(past.document, { name, tags, model: modelName() })], { type: "application/json" }));
      link.download = (name.replace(/[^\p{L}\p{N} _-]/gu, "").trim() || "corella-tree") + ".json";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    },
    /** A page that holds anything stays as it is: the tree comes to one of its own. */
    async importTree(file) {
      try {
        const { doc, name, tags } = importDocument(await file.text());
        if (!isFree()) return;
        const own = !isBlank();
        if (own) shelf.add();
        past.reset(doc);
        if (name || tags.length) shelf.describe({ name: name || shelf.open.name, tags: [...new Set([...shelf.open.tags, ...tags])] });
        redraw();
        say(own ? "Imported as a page of its own." : "Imported.");
      } catch (error) {
        say(error.message, true);
      }
    },
  };
}
