// Which of a run's samples are shown.

/** Most updates whose samples are shown at once. */
const MOST = 60;

/** At most `most` of `n` places, the first and the last among them, in equal factors between: a run's texts change most at its beginning. */
export function places(n, most = MOST) {
  const count = Math.min(n, most);
  const chosen = [];
  let at = 0; // Counted from 1.
  for (let left = count - 1; left >= 0; left--) {
    const factor = at === 0 ? 1 : (n / at) ** (1 / (left + 1));
    at = Math.max(left === 0 ? n : Math.round(at * factor), at + 1);
    chosen.push(at - 1);
  }
  return chosen;
}

/** Samples, and newer ones of the same run: one for each update and prompt, the newest of each. */
export function merged(samples, news) {
  return [...new Map([...samples, ...news].map((s) => [JSON.stringify([s.step, s.prompt]), s])).values()].sort((a, b) => a.step - b.step);
}

/** The samples to show, the newest update first, each update with all of its prompts. */
export function timeline(samples) {
  const steps = [...new Set(samples.map((s) => s.step))];
  const shown = new Set(places(steps.length).map((i) => steps[i]));
  return samples.filter((s) => shown.has(s.step)).sort((a, b) => b.step - a.step);
}
