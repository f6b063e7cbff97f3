// The line under the page that says what has happened.

import { byId } from "./dom.js";

/** `message`: a sentence, or what to put in its place. */
export function say(message, error = false) {
  const status = byId("status");
  status.replaceChildren(...[message].flat());
  status.classList.toggle("error", error);
}

/** Whether an error stands there. */
export const saysError = () => byId("status").classList.contains("error");

let untilModel = "";

/** Says what holds only as long as there is no model. */
export function sayUntilModel(message, error = false) {
  say(message, error);
  untilModel = byId("status").textContent;
}

/** The model is there: what held until then goes, and nothing newer. */
export function modelHasCome() {
  if (byId("status").textContent === untilModel) say("");
}
