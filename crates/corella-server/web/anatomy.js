// The page ‘Anatomy’: asks once what the served model is made of, and draws it.

import { askForKey, getJson, models } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { drawFacts, drawParts, drawStack, drawWay, drawZip } from "./anatomy_picture.js";
import { dimensions, lead, sizes, symbols } from "./anatomy_words.js";
import { setUpTheme } from "./theme.js";

/** How long to wait until the server is asked again for a model that is still to come, in ms. */
const PAUSE = 1500;

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

/** Asks until the server has a model. */
async function ask() {
  for (;;) {
    try {
      const [[served], model] = await Promise.all([models(), getJson("/corella/anatomy")]);
      return model === null ? say("This server does not tell what its model is made of.") : draw(served.id, model);
    } catch (error) {
      say(error.message);
      if (error.status === 401) {
        if (!askForKey()) return;
        continue;
      }
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

setUpTheme(byId("theme"));
ask();
