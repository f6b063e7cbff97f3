// The keys: from a keyboard event to the name of what it asks for.

/** Whether keys are those of a Mac, where Option writes characters and moves the cursor. */
export const onMac = () => /Mac|iPhone|iPad/.test(navigator.platform ?? "");

const WITH_CONTROL = { z: "undo", y: "redo" };
/** With Alt, or with Control and Option on a Mac: the key, and where it lies on the keyboard. */
const WITH_ALT = [
  ["ArrowLeft", "ArrowLeft", "previous"], ["ArrowRight", "ArrowRight", "next"], ["ArrowUp", "ArrowUp", "up"],
  ["b", "KeyB", "bookmark"], [".", "Period", "alternatives"], ["Enter", "Enter", "again"],
];

/** What an event asks for, or null: continue, here, again, stop, undo, redo, previous, next, up, bookmark, alternatives, panel 1 … 6, help. */
export function commandOf(event, mac) {
  const { key, code, altKey, shiftKey } = event;
  const control = event.ctrlKey || event.metaKey;
  if (key === "Escape") return "stop";
  if (key === "F1") return "help";
  // Control and Alt together are AltGr on some keyboards.
  if (mac ? altKey && event.ctrlKey && !event.metaKey : altKey && !control) {
    const digit = /^Digit([1-6])$/.exec(code);
    if (digit) return "panel " + digit[1];
    return WITH_ALT.find(([written, place]) => (mac ? code === place : key.toLowerCase() === written.toLowerCase()))?.[2] ?? null;
  }
  if (!control || altKey) return null;
  if (key === "Enter") return shiftKey ? "here" : "continue";
  const command = WITH_CONTROL[key.toLowerCase()] ?? null;
  return command === "undo" && shiftKey ? "redo" : command;
}

/** The keys in a sentence, as they are called on a Mac. */
export const asOnMac = (text) => text.replace("Ctrl", "⌘").replace("Alt", "⌃⌥").replace("Shift", "⇧");
