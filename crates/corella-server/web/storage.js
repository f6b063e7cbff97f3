// What the browser keeps: the document, its past and the settings. IndexedDB, because a tree with probabilities outgrows
// localStorage. One write at a time; the newest state of each key wins; a page that cannot store says so once.

const NAME = "corella";
const STORE = "pages";

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
 * written.
 */
export function place(onError) {
  const database = open();
  /** What the database has not confirmed yet. */
  const unsaved = new Map(rescued());
  let writing = false;
  let held = true;
  let told = false;
  /** Whether the database has taken anything from this page. */
  let takes = false;

  async function write() {
    if (held || writing || unsaved.size === 0) return;
    writing = true;
    let written = false;
    const changes = [...unsaved];
    try {
      const db = await database;
      await new Promise((resolve, reject) => {
        const transaction = db.transaction(STORE, "readwrite");
        const store = transaction.objectStore(STORE);
        for (const [key, value] of changes) value === null ? store.delete(key) : store.put(value, key);
        transaction.oncomplete = resolve;
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
      });
      for (const [key, value] of changes) if (unsaved.get(key) === value) unsaved.delete(key);
      written = takes = true;
    } catch (error) {
      if (!told) onError("This browser does not keep the page: " + (error?.message ?? error) + ". Export it before you leave.");
      told = true;
    }
    writing = false;
    // After a failure the next change tries again.
    if (written) write();
  }

  // Whoever leaves does not wait for the database: what it has not confirmed is handed to the next page.
  addEventListener("pagehide", () => rescue([...unsaved], takes));

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
      write();
    },
    remove(key) {
      this.save(key, null);
    },
    async load(key) {
      if (unsaved.has(key)) return unsaved.get(key);
      try {
        const db = await database;
        return await new Promise((resolve, reject) => {
          const request = db.transaction(STORE).objectStore(STORE).get(key);
          request.onsuccess = () => resolve(request.result ?? null);
          request.onerror = () => reject(request.error);
        });
      } catch {
        return null;
      }
    },
  };
}

const RESCUE = "unsaved";

/** `elsewhere`: whether the database has all but the last moments of it. */
function rescue(changes, elsewhere) {
  // The lists of alternatives are most of a tree: where there is nothing else and no room, the text goes without them.
  const withoutAlternatives = (key, value) => (key === "top" ? [] : value);
  for (const only of elsewhere ? [null] : [null, withoutAlternatives]) {
    try {
      // A page that comes back as it was has left an older note.
      localStorage.removeItem(RESCUE);
      if (changes.length) localStorage.setItem(RESCUE, JSON.stringify(changes, only));
      return;
    } catch {
      // Too long for this place, or forbidden.
    }
  }
}

/** What the page before could not save. */
function rescued() {
  try {
    const changes = JSON.parse(localStorage.getItem(RESCUE) ?? "[]");
    localStorage.removeItem(RESCUE);
    return changes;
  } catch {
    return [];
  }
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
