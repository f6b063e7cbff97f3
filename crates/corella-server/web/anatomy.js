// The page ‘Anatomy’: asks once what the served model is made of, and draws it.

import { again, getJson, models } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { drawFacts, drawParts, drawStack, drawWay, drawZip } from "./anatomy_picture.js";
import { dimensions, lead, sizes, symbols } from "./anatomy_words.js";
import { setUpTheme } from "./theme.js";

const say = (message) => (byId("status").textContent = message);

function draw(name, model) {
  document.title = `Corella anatomy: ${name}`;
  byId("status").hidden = true;
  byId("anatomy").hidden = false;
  fill(byId("lead"), el("b", {}, name), lead(model));
  fill(byId("figures"), ...sizes(model).map(([name, value]) => el("div", { className: "figure" }, el("b", {}, value), el("span", {}, name))));
  byId("note").hidden = !model.note;
  byId("note").textContent = `Of its size: ${model.note}.`;
  byId("symbols").textContent = symbols(model);
  drawZip(byId("zip"), model);
  drawParts(byId("parts"), model);
  drawStack(byId("stack"), model);
  drawWay(byId("way"), model);
  drawFacts(byId("files"), dimensions.files(model));
  drawFacts(byId("config"), dimensions.config(model));
}

/** Shows the model, once the server has one. */
async function show() {
  const [[served], model] = await Promise.all([models(), getJson("/corella/anatomy")]);
  if (model === null) say("This server does not tell what its model is made of.");
  else draw(served.id, model);
  return true;
}

setUpTheme(byId("theme"));
again(show, say);
