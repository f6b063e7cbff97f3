// The live run: asks for what is new in the run folder and draws it.

import { again, getJson } from "./api.js";
import { lineChart } from "./chart.js";
import { byId, el } from "./dom.js";
import { figures, standing } from "./figures.js";
import { setUpTheme } from "./theme.js";
import { merged, timeline } from "./timeline.js";

let log = [];
let samples = [];
let plan = "";
let beat = null;
let silent = 0;

/** How long a run that has ended is left alone, in ms: it may be resumed. */
const REST = 30_000;

const steps = () => (/^steps\s*=\s*(\d+)/m.exec(plan) ?? [])[1];

async function update() {
  const last = log.length ? log[log.length - 1].step : 0;
  const news = await getJson("/corella/run?since=" + last);
  if (news === null) {
    say("This server does not follow a run.");
    return true;
  }
  // A row may be written again with more in it (a validation after the update): the newest counts.
  const byStep = new Map([...log, ...news.log].map((row) => [row.step, row]));
  log = [...byStep.values()].sort((a, b) => a.step - b.step);
  samples = merged(samples, news.samples);
  plan = news.plan;
  beat = news.heartbeat ?? null;
  silent = news.silent ?? 0;
  return draw() ? REST : false;
}

/** Draws the run; returns whether it has ended. */
function draw() {
  const updates = log.filter((row) => row.loss !== undefined);
  const now = updates[updates.length - 1];
  const { sentence, isEnded } = standing(now?.step ?? 0, totalOf(now), beat, silent);
  say(sentence);
  byId("trouble").hidden = !beat?.trouble;
  byId("trouble").textContent = beat?.trouble ? "What went wrong last: " + beat.trouble : "";
  byId("shown").hidden = !now;
  if (!now) return isEnded;
  const valid = log.filter((row) => row.val_loss !== undefined);
  drawFigures(now, !isEnded);
  const width = byId("loss").clientWidth;
  byId("loss").replaceChildren(lineChart([
    { points: updates.map((r) => [r.step, r.loss]) }, { className: "val", points: valid.map((r) => [r.step, r.val_loss]) },
  ], "Loss by update", width));
  byId("speed").replaceChildren(lineChart([{ points: updates.map((r) => [r.step, r.tokens_per_second]) }], "Tokens per second by update", width));
  byId("samples").replaceChildren(...timeline(samples).map((s) => el("div", { className: "sample" }, el("small", {}, "update " + s.step), ((s.prompt ?? "") + s.text).replace(/^\s*\n/, "") || "(the page ended at once)")));
  byId("writes").hidden = samples.length === 0;
  byId("plan").textContent = plan;
  return isEnded;
}

const totalOf = (now) => Number(steps() ?? now?.step ?? 0);

function drawFigures(now, isFollowed) {
  byId("figures").replaceChildren(...figures(log, totalOf(now), beat, isFollowed).map(([name, value]) => el("div", { className: "figure" }, el("b", {}, value), el("span", {}, name))));
}

function say(message, error = false) {
  byId("status").textContent = message;
  byId("status").classList.toggle("error", error);
}

/** The server tells of the run no more: what it told stays, but for what was to come. */
function lost(message) {
  say(message, true);
  const now = log.findLast((row) => row.loss !== undefined);
  if (now) drawFigures(now, false);
}

setUpTheme(byId("theme"));
again(update, lost);
