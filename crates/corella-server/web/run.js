// The live run: asks for what is new in the run folder and draws it.

import { again, getJson } from "./api.js";
import { lineChart } from "./chart.js";
import { byId, el } from "./dom.js";
import { figures } from "./figures.js";
import { setUpTheme } from "./theme.js";
import { merged, timeline } from "./timeline.js";

let log = [];
let samples = [];
let plan = "";
let beat = null;

const steps = () => (/^steps\s*=\s*(\d+)/m.exec(plan) ?? [])[1];

async function update() {
  const last = log.length ? log[log.length - 1].step : 0;
  const news = await getJson("/corella/run?since=" + last);
  if (news === null) {
    say("This server does not follow a run.");
    return;
  }
  // A row may be written again with more in it (a validation after the update): the newest counts.
  const byStep = new Map([...log, ...news.log].map((row) => [row.step, row]));
  log = [...byStep.values()].sort((a, b) => a.step - b.step);
  samples = merged(samples, news.samples);
  plan = news.plan;
  beat = news.heartbeat ?? null;
  draw();
}

function draw() {
  const updates = log.filter((row) => row.loss !== undefined);
  const now = updates[updates.length - 1];
  if (!now) return say("The run has not made an update yet.");
  const total = Number(steps() ?? now.step);
  const valid = log.filter((row) => row.val_loss !== undefined);
  say(now.step >= total ? "The run has finished." : "Training. This page follows the run.");
  byId("figures").replaceChildren(...figures(log, total, beat).map(([name, value]) => el("div", { className: "figure" }, el("b", {}, value), el("span", {}, name))));
  const width = byId("loss").clientWidth;
  byId("loss").replaceChildren(lineChart([
    { points: updates.map((r) => [r.step, r.loss]) }, { className: "val", points: valid.map((r) => [r.step, r.val_loss]) },
  ], "Loss by update", width));
  byId("speed").replaceChildren(lineChart([{ points: updates.map((r) => [r.step, r.tokens_per_second]) }], "Tokens per second by update", width));
  byId("samples").replaceChildren(...timeline(samples).map((s) => el("div", { className: "sample" }, el("small", {}, "update " + s.step), ((s.prompt ?? "") + s.text).replace(/^\s*\n/, "") || "(the page ended at once)")));
  byId("plan").textContent = plan;
}

const say = (message) => (byId("status").textContent = message);

setUpTheme(byId("theme"));
again(update, say);
