// Pages: trees by name, with tags, kept in this browser. One is open; the others wait as they were left.

import { place } from "./storage.js";

const LIST = "list";
/** Where the one page was kept before there were several. */
const FIRST = "page";

/** A name for a page that has none: its first words. */
export function nameOf(page) {
  return page.name || page.begins || "Empty page";
}

/** Tags as a reader types them: separated by commas, each once. */
export function tagsOf(text) {
  return [...new Set(text.split(",").map((tag) => tag.trim()).filter((tag) => tag !== ""))];
}

/** The pages of this browser. `onError(message)` is told once if nothing can be kept. */
export function pages(onError) {
  let list = [{ key: FIRST, name: "", tags: [], begins: "" }];
  let open = FIRST;
  const kept = place(onError);
  let loaded = false;
  let early = null;

  const write = () => kept.save(LIST, { list, open });
  const change = (key, fields) => {
    list = list.map((page) => (page.key === key ? { ...page, ...fields } : page));
    write();
  };

  return {
    /** The document that was open last; null if there is none, or if the reader has begun another meanwhile. */
    async load() {
      const found = await kept.load(LIST);
      if (found) ({ list, open } = found);
      const doc = await kept.load(open);
      loaded = true;
      if (early === null) return doc;
      if (doc !== null) this.add();
      this.save(...early);
      return null;
    },
    get list() {
      return list;
    },
    get open() {
      return list.find((page) => page.key === open);
    },
    /** Keeps the open page; `begins` is how it begins. */
    save(doc, begins) {
      if (!loaded) {
        early = [doc, begins];
        return;
      }
      kept.save(open, doc);
      if (begins !== this.open.begins) change(open, { begins });
    },
    describe: (fields) => change(open, fields),
    /** Opens another page and returns its document. */
    async turnTo(key) {
      const doc = await kept.load(key);
      open = key;
      write();
      return doc;
    },
    /** Opens a new page. */
    add() {
      open = "page " + (Math.max(0, ...list.map((page) => Number(page.key.split(" ")[1] ?? 0))) + 1);
      list = [...list, { key: open, name: "", tags: [], begins: "" }];
      write();
    },
    /** Throws a page away that is not open. */
    remove(key) {
      list = list.filter((page) => page.key !== key);
      kept.remove(key);
      write();
    },
  };
}
