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

/** A place that remembers values by their keys. `onError(message)` is told once if it cannot. */
export function place(onError) {
  const database = open();
  /** What the database has not confirmed yet. */
  const unsaved = new Map(rescued());
  let writing = false;
  let failed = false;

  async function write() {
    if (writing || unsaved.size === 0) return;
    writing = true;
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
    } catch (error) {
      if (!failed) onError("This browser does not keep the page: " + (error?.message ?? error) + ". Export it before you leave.");
      failed = true;
    }
    writing = false;
    if (!failed) write();
  }

  // Whoever leaves does not wait for the database: what it has not confirmed is handed to the next page.
  addEventListener("pagehide", () => rescue([...unsaved]));
  write();

  return {
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

function rescue(changes) {
  try {
    // A page that comes back as it was has left an older note.
    localStorage.removeItem(RESCUE);
    if (changes.length) localStorage.setItem(RESCUE, JSON.stringify(changes));
  } catch {
    // Too long for this place, or forbidden: the database has all but the last moments.
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
