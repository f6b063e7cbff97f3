// The live run: asks for what is new in the run folder and draws it.

import { getJson } from "./api.js";
import { lineChart } from "./chart.js";
import { byId, el } from "./dom.js";
import { setUpTheme } from "./theme.js";

const PAUSE = 1500;
let log = [];
let samples = [];
let plan = "";

const steps = () => (/^steps\s*=\s*(\d+)/m.exec(plan) ?? [])[1];

async function update() {
  const last = log.length ? log[log.length - 1].step : 0;
  const news = await getJson("/corella/run?since=" + last);
  if (news === null) return say("This server does not follow a run.");
  // A row may be written again with more in it (a validation after the update): the newest counts.
  const byStep = new Map([...log, ...news.log].map((row) => [row.step, row]));
  log = [...byStep.values()].sort((a, b) => a.step - b.step);
  const seen = new Set(samples.map((s) => s.step + s.text));
  samples = [...samples, ...news.samples.filter((s) => !seen.has(s.step + s.text))];
  plan = news.plan;
  draw();
}

function draw() {
  const updates = log.filter((row) => row.loss !== undefined);
  const now = updates[updates.length - 1];
  if (!now) return say("The run has not made an update yet.");
  const total = Number(steps() ?? now.step);
  const recent = updates.slice(-50);
  const mean = recent.reduce((n, r) => n + r.ms, 0) / recent.length;
  const valid = log.filter((row) => row.val_loss !== undefined);
  say(now.step >= total ? "The run has finished." : "Training. This page follows the run.");
  const figures = [
    ["update", `${now.step.toLocaleString()} of ${total.toLocaleString()}`], ["loss", now.loss.toFixed(3)],
    ["validation", valid.length ? valid[valid.length - 1].val_loss.toFixed(3) : "–"], ["tokens read", (now.tokens_seen ?? 0).toLocaleString()],
    ["tokens/s", Math.round(now.tokens_per_second).toLocaleString()], ["left", duration(((total - now.step) * mean) / 1000)],
  ];
  byId("figures").replaceChildren(...figures.map(([name, value]) => el("div", { className: "figure" }, el("b", {}, value), el("span", {}, name))));
  const width = byId("loss").clientWidth;
  byId("loss").replaceChildren(lineChart([
    { points: updates.map((r) => [r.step, r.loss]) }, { className: "val", points: valid.map((r) => [r.step, r.val_loss]) },
  ], "Loss by update", width));
  byId("speed").replaceChildren(lineChart([{ points: updates.map((r) => [r.step, r.tokens_per_second]) }], "Tokens per second by update", width));
  byId("samples").replaceChildren(...samples.slice(-60).reverse().map((s) => el("div", { className: "sample" }, el("small", {}, "update " + s.step), ((s.prompt ?? "") + s.text).replace(/^\s*\n/, "") || "(the page ended at once)")));
  byId("plan").textContent = plan;
}

const say = (message) => (byId("status").textContent = message);

function duration(seconds) {
  if (seconds < 90) return Math.max(0, Math.round(seconds)) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}

async function follow() {
  for (;;) {
    try {
      await update();
    } catch (error) {
      say(error.message);
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

setUpTheme(byId("theme"));
follow();
