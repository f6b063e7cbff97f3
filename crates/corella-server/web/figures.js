// The figures of a run, from its log.

/**
 * [[name, value], …] of a run of `total` updates, from the rows of its log, of which at least one is an update, and its heartbeat,
 * where there is one.
 */
export function figures(log, total, beat = null) {
  const updates = log.filter((row) => row.loss !== undefined);
  const valid = log.filter((row) => row.val_loss !== undefined);
  const now = updates[updates.length - 1];
  const recent = updates.slice(-50);
  const mean = recent.reduce((n, r) => n + r.ms, 0) / recent.length;
  const left = now.eta ?? ((total - now.step) * mean) / 1000;
  return [
    ["update", `${now.step.toLocaleString()} of ${total.toLocaleString()} (${percent(now.step / total)})`], ["loss", nats(now.loss)],
    ["validation", valid.length ? nats(valid[valid.length - 1].val_loss) : "–"], ["tokens read", (now.tokens_seen ?? 0).toLocaleString()],
    ...known("of the data", now.epochs, (n) => (n < 1 ? percent(n) : n.toFixed(2) + " times")),
    ["tokens/s", Math.round(now.tokens_per_second).toLocaleString()], ...known("of the peak (MFU)", now.mfu, percent), ["an update", spread(recent.map((r) => r.ms))],
    ...known("elapsed", now.elapsed, duration), ["left", duration(left)], ...known("ends", now.time, (time) => moment(time + left)),
    ...known("GPU-hours", beat?.gpu_hours, (n) => n.toFixed(2)), ...known("energy", beat?.energy_kwh, (n) => (n < 0.1 ? (1000 * n).toFixed(1) + " Wh" : n.toFixed(2) + " kWh")),
    ...known("so far", beat?.dollars, (n) => "$" + n.toFixed(2)),
  ];
}

/** A figure, where its value is known. */
const known = (name, value, text) => (Number.isFinite(value) ? [[name, text(value)]] : []);

const percent = (part) => (100 * part).toFixed(1) + " %";

/** The median of milliseconds, and what nine in ten lie between. */
function spread(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part) => sorted[Math.round(part * (sorted.length - 1))];
  const short = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms).toLocaleString());
  return `${short(at(0.5))} ms (${short(at(0.05))}–${short(at(0.95))})`;
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
