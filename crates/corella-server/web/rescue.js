// What a page that is left has not brought into the database: a note for whoever comes next, one for each page, so that two
// tabs do not take each other's. The page after a reload takes its own at once; those of tabs that were closed come later.

const NOTE = "unsaved ";
const MINE = "corella-unsaved";
const name = NOTE + Date.now().toString(36) + Math.random().toString(36).slice(2, 10);

/** Writes the note; `elsewhere`: whether the database has all but the last moments of it. */
export function leaveNote(changes, elsewhere) {
  takeBack();
  if (changes.length === 0) return;
  // The lists of alternatives are most of a tree: where there is nothing else and no room, the text goes without them.
  const withoutAlternatives = (key, value) => (key === "top" ? [] : value);
  for (const only of elsewhere ? [null] : [null, withoutAlternatives]) {
    try {
      localStorage.setItem(name, JSON.stringify({ time: Date.now(), changes }, only));
      sessionStorage.setItem(MINE, name);
      return;
    } catch {
      // Too long for this place, or forbidden.
    }
  }
}

/** Removes the note of this page, which has come back as it was. */
export function takeBack() {
  try {
    localStorage.removeItem(name);
  } catch {
    // Forbidden: then there is none.
  }
}

function take(note) {
  try {
    const { time, changes } = JSON.parse(localStorage.getItem(note));
    localStorage.removeItem(note);
    return [{ time, changes }];
  } catch {
    return [];
  }
}

/** What the page before a reload of this tab could not save: [[key, value]]. */
export function ownNote() {
  try {
    const note = sessionStorage.getItem(MINE);
    sessionStorage.removeItem(MINE);
    return note ? take(note).flatMap(({ changes }) => changes) : [];
  } catch {
    return [];
  }
}

/** What tabs that are gone could not save: [{ time, changes: [[key, value]] }], `time` when they were left. */
export function otherNotes() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(NOTE) && key !== name).flatMap(take);
  } catch {
    return [];
  }
}
