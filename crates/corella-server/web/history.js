// Undo and redo over whole documents. Documents share their nodes, so a long past costs little.

const LONGEST = 400;
const PAUSE = 800;

/** A past. `onChange(document)` is called after every change. */
export function history(first, onChange) {
  let past = [];
  let present = first;
  let future = [];
  let lastKind = null;
  let lastTime = 0;

  const show = (doc) => {
    present = doc;
    onChange(present);
  };
  return {
    get document() {
      return present;
    },
    get canUndo() {
      return past.length > 0;
    },
    get canRedo() {
      return future.length > 0;
    },
    /** A step that undo takes back. Typing in one go (`kind` equal, no pause) is one step. */
    commit(doc, kind = null) {
      const now = Date.now();
      const joined = kind !== null && kind === lastKind && now - lastTime < PAUSE;
      if (!joined) past = [...past, present].slice(-LONGEST);
      [lastKind, lastTime] = [kind, now];
      future = [];
      show(doc);
    },
    /** A change that belongs to the step before it: tokens that stream in, moving about. */
    amend(doc) {
      lastKind = null;
      show(doc);
    },
    /** Another document, with a past of its own. */
    reset(doc) {
      [past, future, lastKind] = [[], [], null];
      show(doc);
    },
    undo() {
      if (past.length === 0) return;
      future = [present, ...future];
      const doc = past[past.length - 1];
      past = past.slice(0, -1);
      lastKind = null;
      show(doc);
    },
    redo() {
      if (future.length === 0) return;
      past = [...past, present];
      const doc = future[0];
      future = future.slice(1);
      lastKind = null;
      show(doc);
    },
  };
}
