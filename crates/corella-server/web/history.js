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
  /** The document before the changes of `lastKind` that followed each other. */
  let start = first;

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
    /** What redo would bring, the nearest first. */
    get undone() {
      return future;
    },
    /**
     * The document that a change of this kind starts from: while a reader goes on typing it is the one before they began,
     * so that the tree keeps what they began with and where they arrived, and nothing between.
     */
    from: (kind) => (kind === lastKind ? start : present),
    /** A step that undo takes back. Typing in one go (`kind` equal, no pause) is one step. */
    commit(doc, kind = null) {
      const now = Date.now();
      const joined = kind !== null && kind === lastKind && now - lastTime < PAUSE;
      if (kind === null || kind !== lastKind) start = present;
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
