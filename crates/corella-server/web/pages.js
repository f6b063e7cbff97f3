// Pages: trees by name, with tags, kept in this browser. One is open; the others wait as they were left.

const LIST = "list";
/** Pages that were begun before the database had told what it holds. They join its list when it does. */
const EARLY = "early";
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

const blank = (key) => ({ key, name: "", tags: [], begins: "" });
/** A key that no page has, here or in the database. */
const newKey = () => "page " + Date.now().toString(36) + Math.random().toString(36).slice(2, 10);

/** The pages of this browser, in a {@link place} that nobody has released yet. */
export function pages(kept) {
  const left = kept.waiting(EARLY);
  let list = left?.list ?? [blank(newKey())];
  let open = left?.open ?? list[0].key;
  let loaded = false;
  /** Whether anything was done to these pages before the database has told of its own. */
  let begun = left !== null;

  const write = () => {
    begun = true;
    kept.save(loaded ? LIST : EARLY, { list, open });
  };
  const describe = (fields) => {
    list = list.map((page) => (page.key === open ? { ...page, ...fields } : page));
    write();
  };

  return {
    /** What the page before had begun and could not save, there without waiting: a document, or null. */
    left: left && kept.waiting(open),
    /** Waits for the database: the document that was open last; null if there is none, or if the reader has begun another. */
    async load() {
      const found = (await kept.load(LIST)) ?? { list: [blank(FIRST)], open: FIRST };
      const doc = await kept.load(found.open);
      loaded = true;
      if (begun) {
        const unused = (page) => page.key === found.open && doc === null && page.name === "" && page.tags.length === 0;
        list = [...found.list.filter((page) => !unused(page)), ...list];
        kept.remove(EARLY);
        write();
      } else {
        ({ list, open } = found);
      }
      kept.release();
      return begun ? null : doc;
    },
    /** Whether the list is complete. */
    get isLoaded() {
      return loaded;
    },
    get list() {
      return list;
    },
    get open() {
      return list.find((page) => page.key === open);
    },
    /** Keeps the open page; `begins` is how it begins. */
    save(doc, begins) {
      kept.save(open, doc);
      describe({ begins });
    },
    describe,
    /** The document of another page. */
    read: (key) => kept.load(key),
    /** Opens another page. */
    turnTo(key) {
      open = key;
      write();
    },
    /** Opens a new page. */
    add() {
      open = newKey();
      list = [...list, blank(open)];
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
