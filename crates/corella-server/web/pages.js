// Pages: trees by name, with tags, kept in this browser. One is open in each tab; the others wait as they were left. What is
// kept of a page: its document under its key, and { key, name, tags, begins, made, time, thrown } under `about` and the key,
// so that no tab ever writes what another one knows of other pages.

const ABOUT = "about ";
/** The page that was open last, in any tab. */
const OPEN = "open";
/** All that is known of pages as earlier versions kept it, in one list, and the one page from before that. */
const LIST = "list";
const FIRST = "page";
/** How long a page that was thrown away can be brought back, in ms. */
const MERCY = 3_600_000;
/** When the notes of tabs that were closed are looked for: whoever is reloading takes their own first. */
const OTHERS = 2000;

/** A name for a page that has none: its first words. */
export function nameOf(page) {
  return page.name || page.begins || "Empty page";
}

/** Tags as a reader types them: separated by commas, each once. */
export function tagsOf(text) {
  return [...new Set(text.split(",").map((tag) => tag.trim()).filter((tag) => tag !== ""))];
}

const blank = (key) => ({ key, name: "", tags: [], begins: "", made: Date.now(), time: 0 });
/** A key that no page has, here or in the database. */
const newKey = () => "page " + Date.now().toString(36) + Math.random().toString(36).slice(2, 10);

/**
 * The pages of this browser, in a {@link place} that nobody has released yet. `claim(key)` claims a page for this tab, `tab`
 * remembers { get(), set(key) } which one is open in it; `onList()` is called when another tab has changed the list.
 */
export function pages(kept, { claim, tab, onList = () => {} }) {
  const known = new Map();
  const mine = tab.get();
  const left = mine === null ? null : kept.waiting(mine);
  let own = (left && kept.waiting(ABOUT + mine)) ?? blank(left ? mine : newKey());
  let loaded = false;
  /** Whether anything was done to the open page before the database has told of its own. */
  let begun = left !== null;
  /** The document that was read and nobody has changed: it is not written again. */
  let asRead = null;
  /** Whether the open page is a copy that was not kept yet. */
  let isCopy = false;
  let letGo = claim(own.key);

  /** Keeps what is known of the open page. */
  function write(fields) {
    begun = true;
    own = { ...own, ...fields, time: Date.now() };
    known.set(own.key, own);
    if (asRead !== null && isCopy) kept.save(own.key, asRead);
    asRead = null;
    isCopy = false;
    kept.save(ABOUT + own.key, own);
    kept.save(OPEN, own.key);
    tab.set(own.key);
  }

  /** Opens what was read of a page: itself if this tab may have it, else a copy that is kept once it is changed. */
  function show(about, doc, release) {
    letGo.then((free) => free?.());
    isCopy = release === null;
    own = isCopy ? { ...about, key: newKey(), name: about.name && about.name + " (copy)", made: Date.now() } : about;
    letGo = isCopy ? claim(own.key) : Promise.resolve(release);
    asRead = doc;
    if (!isCopy) tab.set(own.key);
  }

  async function readList() {
    const all = await kept.all(ABOUT);
    known.clear();
    for (const about of all) known.set(about.key, about);
  }

  /** The list of an earlier version becomes one note for each page. */
  async function takeOldList() {
    const old = await kept.load(LIST);
    const doc = old || known.has(FIRST) ? null : await kept.load(FIRST);
    const list = old?.list ?? (doc ? [{ key: FIRST, name: "", tags: [], begins: "" }] : []);
    list.filter((page) => !known.has(page.key)).forEach((page, i) => {
      const about = { ...blank(page.key), ...page, made: i };
      known.set(page.key, about);
      kept.save(ABOUT + page.key, about);
    });
    if (old) kept.remove(LIST);
    return old?.open ?? list[0]?.key ?? null;
  }

  function forget(key) {
    known.delete(key);
    kept.remove(key);
    kept.remove(ABOUT + key);
  }

  /** What closed tabs could not save comes to the database, where it is the newest that is known of a page. */
  async function takeOthers() {
    for (const { time, changes } of kept.others()) {
      const pagesOf = new Set(changes.map(([key]) => (key.startsWith(ABOUT) ? key.slice(ABOUT.length) : key)).filter((key) => key !== OPEN));
      for (const key of pagesOf) {
        const about = await kept.load(ABOUT + key);
        if (key === own.key || (about && about.time > time)) continue;
        for (const [name, value] of changes) if (name === key || name === ABOUT + key) kept.save(name, value);
      }
    }
    await readList();
    onList();
  }

  kept.onOthers?.(async (keys) => {
    if (!loaded || !keys.some((key) => key.startsWith(ABOUT))) return;
    await readList();
    onList();
  });

  return {
    /** What the page before had begun and could not save, there without waiting: a document, or null. */
    left,
    /** Waits for the database: the document that was open last; null if there is none, or if the reader has begun another. */
    async load() {
      // Asked for at once: what a reader begins meanwhile is open later.
      const last = kept.load(OPEN);
      await readList();
      const before = await takeOldList();
      const opened = known.get(mine) ?? known.get(await last) ?? known.get(before) ?? null;
      const doc = opened && !opened.thrown ? await kept.load(opened.key) : null;
      const release = begun || opened === null ? null : await claim(opened.key);
      loaded = true;
      for (const page of known.values()) if (page.thrown && Date.now() - page.thrown > MERCY && page.key !== own.key) forget(page.key);
      if (begun) {
        if (opened && opened.key !== own.key && doc === null && opened.name === "" && opened.tags.length === 0 && opened.begins === "") forget(opened.key);
        release?.();
        write({});
      } else if (opened && (doc !== null || release)) {
        show(opened, doc, release);
      }
      kept.release();
      setTimeout(takeOthers, OTHERS)?.unref?.();
      return begun ? null : doc;
    },
    /** Whether the list is complete. */
    get isLoaded() {
      return loaded;
    },
    /** Whether the open page is a copy, not kept yet, of one that is open in another tab. */
    get isCopy() {
      return isCopy;
    },
    get list() {
      const all = [...known.values()].filter((page) => page.key !== own.key && !page.thrown);
      return [...all, own].sort((a, b) => a.made - b.made);
    },
    get open() {
      return own;
    },
    /** Keeps the open page; `begins` is how it begins. */
    save(doc, begins) {
      if (doc === asRead) return;
      asRead = null;
      kept.save(own.key, doc);
      write({ begins });
    },
    describe: write,
    /** Opens another page: its document, null if it has none; undefined if `isWanted()` does not hold any more once it is read. */
    async turnTo(key, isWanted) {
      const doc = await kept.load(key);
      const release = await claim(key);
      if (!isWanted() || !known.has(key)) {
        release?.();
        return undefined;
      }
      show(known.get(key), doc, release);
      if (!isCopy) kept.save(OPEN, key);
      return doc;
    },
    /** Opens a new page. */
    add() {
      const key = newKey();
      show({ ...blank(key), made: Math.max(Date.now(), ...[...known.values()].map((page) => page.made + 1)) }, null, undefined);
      letGo = claim(key);
      write({});
    },
    /** Throws a page away that is not open: for an hour it can be brought back. */
    remove(key) {
      this.mark(key, { thrown: Date.now() });
    },
    bringBack(key) {
      this.mark(key, { thrown: 0 });
    },
    mark(key, fields) {
      const page = known.get(key);
      if (!page) return;
      known.set(key, { ...page, ...fields });
      kept.save(ABOUT + key, known.get(key));
    },
  };
}
