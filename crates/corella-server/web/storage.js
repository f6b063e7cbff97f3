// What the browser keeps: the document, its past and the settings. IndexedDB, because a tree with probabilities outgrows
// localStorage. One write at a time; the newest state of each key wins; a page that cannot store says so once.

import { leaveNote, otherNotes, ownNote, takeBack } from "./rescue.js";

const NAME = "corella";
const STORE = "pages";

/** A change waits for others that follow it within so many ms, and no longer than so long in all. */
const PAUSE = 500;
const LONGEST = 2000;

/** Copies that take longer than this are followed by a rest, of at most so long, in ms. */
const COSTS = 8;
const MOST_REST = 1000;

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * A place that remembers values by their keys. What a page saves is written only after `release()`, so that it can read
 * before; until the database has confirmed it, a reload carries it over. `onError(message)` is told once if nothing can be
 * written. Other tabs are told of the keys that this one has written, and `onOthers(keys)` hears of theirs.
 */
export function place(onError) {
  const database = open();
  /** What the database has not confirmed yet. */
  const unsaved = new Map(ownNote());
  const tabs = typeof BroadcastChannel === "function" ? new BroadcastChannel(NAME) : null;
  let writing = false;
  let held = true;
  let timer = null;
  /** When the oldest change that waits was made. */
  let since = null;
  let told = false;
  /** Whether the database has taken anything from this page. */
  let takes = false;

  function writeSoon() {
    since ??= performance.now();
    clearTimeout(timer);
    timer = setTimeout(write, Math.max(0, Math.min(PAUSE, since + LONGEST - performance.now())));
  }

  async function write() {
    if (held || writing || unsaved.size === 0) return;
    writing = true;
    let written = false;
    let took = 0;
    const changes = [...unsaved];
    clearTimeout(timer);
    since = null;
    try {
      const db = await database;
      await new Promise((resolve, reject) => {
        const transaction = db.transaction(STORE, "readwrite");
        const store = transaction.objectStore(STORE);
        const begun = performance.now();
        for (const [key, value] of changes) value === null ? store.delete(key) : store.put(value, key);
        took = performance.now() - begun;
        transaction.oncomplete = resolve;
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
      });
      for (const [key, value] of changes) if (unsaved.get(key) === value) unsaved.delete(key);
      written = takes = true;
      tabs?.postMessage(changes.map(([key]) => key));
    } catch (error) {
      if (!told) onError("This browser does not keep the page: " + (error?.message ?? error) + ". Export it before you leave.");
      told = true;
    }
    // Values are copied while the page stands still: of its time, large ones get a fifth.
    if (took > COSTS) await new Promise((done) => setTimeout(done, Math.min(MOST_REST, 4 * took)));
    writing = false;
    // After a failure the next change tries again.
    if (written && unsaved.size > 0) writeSoon();
  }

  /** What `ask(store)` finds in the database; null if there is none. */
  async function read(ask) {
    try {
      const db = await database;
      return await new Promise((resolve, reject) => {
        const request = ask(db.transaction(STORE).objectStore(STORE));
        request.onsuccess = () => resolve(request.result ?? null);
        request.onerror = () => reject(request.error);
      });
    } catch {
      return null;
    }
  }

  addEventListener("visibilitychange", () => document.visibilityState === "hidden" && write());
  // Whoever leaves does not wait for the database: what it has not confirmed is handed to the next page.
  addEventListener("pagehide", () => leaveNote([...unsaved], takes));
  addEventListener("pageshow", (event) => event.persisted && takeBack());

  return {
    /** Lets what was saved go to the database. */
    release() {
      held = false;
      write();
    },
    /** A value that waits for the database, without waiting: null if there is none. */
    waiting: (key) => unsaved.get(key) ?? null,
    save(key, value) {
      unsaved.set(key, value);
      writeSoon();
    },
    remove(key) {
      this.save(key, null);
    },
    load: async (key) => (unsaved.has(key) ? unsaved.get(key) : read((store) => store.get(key))),
    /** All values whose keys begin with `prefix`, in the order of their keys. */
    async all(prefix) {
      const range = () => IDBKeyRange.bound(prefix, prefix + "\uffff");
      const [keys, values] = await Promise.all([read((store) => store.getAllKeys(range())), read((store) => store.getAll(range()))]);
      const found = new Map((keys ?? []).map((key, i) => [key, values?.[i] ?? null]));
      for (const [key, value] of unsaved) if (key.startsWith(prefix)) found.set(key, value);
      return [...found.values()].filter((value) => value !== null);
    },
    others: otherNotes,
    onOthers: (listen) => tabs?.addEventListener("message", (event) => listen(event.data)),
  };
}

/** Settings, small and synchronous. */
export const settings = {
  read(key, fallback) {
    try {
      return { ...fallback, ...JSON.parse(localStorage.getItem(key) ?? "{}") };
    } catch {
      return { ...fallback };
    }
  },
  write(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // Full or forbidden: settings last as long as the page.
    }
  },
};

/** The page that this tab had open before a reload; every tab has its own. */
export const tabsPage = {
  get() {
    try {
      return sessionStorage.getItem("corella-page");
    } catch {
      return null;
    }
  },
  set(key) {
    try {
      sessionStorage.setItem("corella-page", key);
    } catch {
      // Forbidden: then a reload opens what was open last.
    }
  },
};
