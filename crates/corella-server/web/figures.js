// The figures of a run, from its log.

/** [[name, value], …] of a run of `total` updates, from the rows of its log, of which at least one is an update. */
export function figures(log, total) {
  const updates = log.filter((row) => row.loss !== undefined);
  const valid = log.filter((row) => row.val_loss !== undefined);
  const now = updates[updates.length - 1];
  const recent = updates.slice(-50);
  const mean = recent.reduce((n, r) => n + r.ms, 0) / recent.length;
  return [
    ["update", `${now.step.toLocaleString()} of ${total.toLocaleString()}`], ["loss", nats(now.loss)],
    ["validation", valid.length ? nats(valid[valid.length - 1].val_loss) : "–"], ["tokens read", (now.tokens_seen ?? 0).toLocaleString()],
    ["tokens/s", Math.round(now.tokens_per_second).toLocaleString()], ["left", duration(((total - now.step) * mean) / 1000)],
  ];
}

/** A loss; the log has null where it was no number. */
const nats = (loss) => (Number.isFinite(loss) ? loss.toFixed(3) : "not a number");

function duration(seconds) {
  if (seconds < 90) return Math.max(0, Math.round(seconds)) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}
