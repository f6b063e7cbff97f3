// How a piece of text ended, in words.

/** Why a sample ended. `room`: the tokens that the context left room for, null if that is not known; `asked`: those asked for. */
export function reason(finish, room, asked) {
  if (finish === "length") return room !== null && room < asked ? "the context is full" : "the number of tokens asked for";
  return finish === "stop" ? "a stop string or the end of a document" : finish;
}

/**
 * The sentence for what was written: `asked` are the requests [{ model, request }], `results` what became of each, as
 * Promise.allSettled tells; `count` tokens came in `seconds` from the first, which came `wait` ms after the request.
 * Returns [sentence, whether it is an error].
 */
export function ending({ asked, results, count, seconds, wait }) {
  const failed = results.map((r, i) => ({ model: asked[i].model, error: r.reason })).filter(({ error }) => error);
  if (failed.some(({ error }) => error.name === "AbortError")) return [`Stopped after ${count} tokens; the text so far stays.`, false];
  if (failed.length) {
    const one = ({ model, error }) => (asked.length > 1 ? model + ": " : "") + error.message + (error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "");
    return [failed.map(one).join(" "), true];
  }
  const values = results.map((r) => r.value);
  // Several may arrive in one piece, so that the page's own clock shows too much.
  const rate = values.length === 1 && values[0].speed ? values[0].speed : count / seconds;
  const speed = count > 1 && seconds > 0 ? ` · ${rate.toFixed(0)} tokens/s · first after ${Math.round(wait)} ms` : "";
  const reasons = [...new Set(values.flatMap((value, i) => value.finish.map((finish) => reason(finish, value.room ?? null, asked[i].request.max_tokens))))].join(", ");
  const seed = values.length === 1 && values[0].seed !== null ? ` · seed ${values[0].seed}` : "";
  return [`${count} token${count === 1 ? "" : "s"}${speed} · ended: ${reasons || "nothing to add"}${seed}`, false];
}
