// What temperature and the filters make of a distribution, in the order in which the server applies them: top-k, typical,
// top-p, min-p on the distribution at the temperature. Computed here for the tokens that the server named; the mass of all
// others is one entry, so that nothing is hidden.

/**
 * `top`: [{ id, text, logprob }] under the raw model, the likeliest first. Returns rows { ...token, raw, kept, drawn }:
 * raw probability, whether the filters keep it, probability of being drawn; and `rest`, the raw mass of the unnamed.
 */
export function reshape(top, { temperature, topK, topP, minP }) {
  const raw = top.map((t) => Math.exp(t.logprob));
  const rest = Math.max(0, 1 - raw.reduce((a, b) => a + b, 0));
  const kept = top.map(() => true);
  if (temperature === 0) {
    return { rest, rows: top.map((t, i) => ({ ...t, raw: raw[i], kept: i === 0, drawn: i === 0 ? 1 : 0 })) };
  }
  const weight = raw.map((p) => Math.pow(p, 1 / temperature));
  // The unnamed tokens are taken as many equal ones as small as the last named; their share only bounds the truth.
  const least = raw.length ? raw[raw.length - 1] : 0;
  const unnamed = least > 0 ? (rest / least) * Math.pow(least, 1 / temperature) : 0;
  if (topK > 0) kept.forEach((_, i) => (kept[i] &&= i < topK));
  if (topP < 1) {
    const total = weight.reduce((a, w, i) => a + (kept[i] ? w : 0), topK > 0 ? 0 : unnamed);
    let reached = 0;
    weight.forEach((w, i) => {
      if (!kept[i]) return;
      kept[i] = i === 0 || reached < topP * total;
      reached += w;
    });
  }
  if (minP > 0) weight.forEach((w, i) => (kept[i] &&= i === 0 || w >= minP * weight[0]));
  const filtered = topK > 0 || topP < 1 || minP > 0;
  const sum = weight.reduce((a, w, i) => a + (kept[i] ? w : 0), filtered ? 0 : unnamed);
  return { rest, rows: top.map((t, i) => ({ ...t, raw: raw[i], kept: kept[i], drawn: kept[i] ? weight[i] / sum : 0 })) };
}

/** Surprise of a token in bits. */
export const bits = (logprob) => -logprob / Math.LN2;

/** A probability for people. */
export function percent(p) {
  if (p >= 0.0995) return Math.round(p * 100) + " %";
  if (p >= 0.00995) return (p * 100).toFixed(1) + " %";
  return p >= 0.0001 ? (p * 100).toFixed(2) + " %" : "< 0.01 %";
}

/** 0 … 1 for colours: how sure (probability) or how open (entropy in nats) the model was at a token. */
export function heat(token, by) {
  if (by === "entropy") return token.entropy === null ? null : Math.min(1, token.entropy / 6);
  return token.logprob === null ? null : Math.min(1, -token.logprob / 6);
}
