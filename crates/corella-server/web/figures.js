// The figures of a run, from its log.

/**
 * How a run of `total` updates stands after `step` of them: { sentence, isEnded }. Only its heartbeat, where there is one, tells that it has ended before,
 * and only the seconds that it is old (`silent`) that it was killed.
 */
export function standing(step, total, beat = null, silent = 0) {
  const at = step > 0 ? `at update ${step.toLocaleString()} of ${total.toLocaleString()}` : "before its first update";
  const ended = { finished: "The run has finished.", stopped: `The run has stopped ${at}. It can be resumed.`, failed: `The run has failed ${at}.` };
  const state = beat?.state ?? (step > 0 && step >= total ? "finished" : "training");
  if (ended[state]) return { sentence: ended[state], isEnded: true };
  if (beat && silent > patience(beat)) return { sentence: `No sign of life for ${duration(silent)}, ${at}: it was killed, or hangs. It can be resumed.`, isEnded: true };
  if (step === 0) return { sentence: "The run has not made an update yet.", isEnded: false };
  return { sentence: step >= total ? "The last update is made; the run is about to finish." : "Training. This page follows the run.", isEnded: false };
}

/** Seconds without a heartbeat that are nothing special: one comes between two updates, and none within a validation, an evaluation or a checkpoint. */
const patience = (beat) => Math.max(beat.state === "training" ? 120 : 1800, 20 * (beat.seconds_per_step ?? 0));

/**
 * [[name, value], …] of a run of `total` updates, from the rows of its log, of which at least one is an update, and its heartbeat,
 * where there is one. `isFollowed`: whether it goes on and the server still tells of it; what is to come of a run is not known otherwise.
 */
export function figures(log, total, beat = null, isFollowed = true) {
  const updates = log.filter((row) => row.loss !== undefined);
  const valid = log.filter((row) => row.val_loss !== undefined);
  const now = updates[updates.length - 1];
  const recent = updates.slice(-50);
  const mean = recent.reduce((n, r) => n + r.ms, 0) / recent.length;
  const goesOn = isFollowed && now.step < total && !standing(now.step, total, beat).isEnded;
  const left = goesOn ? now.eta ?? ((total - now.step) * mean) / 1000 : undefined;
  return [
    ["update", `${now.step.toLocaleString()} of ${total.toLocaleString()} (${percent(now.step / total)})`], ["loss", nats(now.loss)],
    ["validation", valid.length ? nats(valid[valid.length - 1].val_loss) : "–"], ["tokens read", (now.tokens_seen ?? 0).toLocaleString()],
    ...known("of the data", now.epochs, (n) => (n < 1 ? percent(n) : n.toFixed(2) + " times")),
    ["tokens/s", Math.round(part(recent.map((r) => r.tokens_per_second), 0.5)).toLocaleString()], ...known("of the peak (MFU)", now.mfu, percent), ["an update", spread(recent.map((r) => r.ms))],
    ...known("elapsed", now.elapsed, duration), ...known("left", left, duration), ...known("ends", now.time + left, moment),
    ...known("GPU-hours", beat?.gpu_hours, (n) => n.toFixed(2)), ...known("energy", beat?.energy_kwh, (n) => (n < 0.1 ? (1000 * n).toFixed(1) + " Wh" : n.toFixed(2) + " kWh")),
    ...known("so far", beat?.dollars, (n) => "$" + n.toFixed(2)),
  ];
}

/** A figure, where its value is known. */
const known = (name, value, text) => (Number.isFinite(value) ? [[name, text(value)]] : []);

const percent = (part) => (100 * part).toFixed(1) + " %";

/** The value that `share` of all values lie below: half of them below the median. */
function part(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.round(share * (sorted.length - 1))];
}

/** The median of milliseconds, and what nine in ten lie between. */
function spread(values) {
  const short = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms).toLocaleString());
  const [low, median, high] = [0.05, 0.5, 0.95].map((share) => short(part(values, share)));
  return `${median} ms (${low}–${high})`;
}

/** A time by the reader's clock, with its date where that is not today. */
function moment(seconds) {
  const at = new Date(1000 * seconds);
  const time = { hour: "2-digit", minute: "2-digit" };
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString([], time) : at.toLocaleString([], { day: "numeric", month: "short", ...time });
}

/** A loss; the log has null where it was no number. */
const nats = (loss) => (Number.isFinite(loss) ? loss.toFixed(3) : "not a number");

function duration(seconds) {
  if (seconds < 90) return Math.max(0, Math.round(seconds)) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}
