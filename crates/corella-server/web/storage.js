// What the browser keeps: the document, its past and the settings. IndexedDB, because a tree with probabilities outgrows
// localStorage. One write at a time; the newest state wins; a page that cannot store says so once.

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

/** A place that remembers one value under `key`. `onError(message)` is told once if it cannot. */
export function remember(key, onError) {
  const database = open();
  let waiting = null;
  let writing = false;
  let failed = false;

  async function write() {
    if (writing || waiting === null) return;
    writing = true;
    const value = waiting;
    waiting = null;
    try {
      const db = await database;
      await new Promise((resolve, reject) => {
        const transaction = db.transaction(STORE, "readwrite");
        transaction.objectStore(STORE).put(value, key);
        transaction.oncomplete = resolve;
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
      });
    } catch (error) {
      if (!failed) onError("This browser does not keep the page: " + (error?.message ?? error) + ". Export it before you leave.");
      failed = true;
    }
    writing = false;
    write();
  }

  return {
    save(value) {
      waiting = value;
      write();
    },
    async load() {
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
