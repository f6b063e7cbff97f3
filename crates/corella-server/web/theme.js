// Light or dark: the system's choice until the button is pressed.

import { settings } from "./storage.js";

export function setUpTheme(button) {
  const kept = settings.read("theme", { name: null });
  const root = document.documentElement;
  if (kept.name) root.dataset.theme = kept.name;
  button.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    settings.write("theme", { name: root.dataset.theme });
  });
}
