// From the choices of a stream to tokens as the page keeps them: { id, text, logprob, entropy, top: [{ id, text, logprob }] }.
// What a server does not tell is null, or an empty list. An alternative that is part of a character only is shown by its bytes
// and has `part: true`: no text can go on from it.

import { lineReader, plainLines } from "./lines.js";

/**
 * Reads one sample, chunk by chunk. `healed` is the end of the prompt that the first tokens spell again: it stands on the
 * page already, so their texts begin behind it.
 */
export function tokenReader(healed = "") {
  // A byte order mark in the middle of a text is a character like others.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const lines = lineReader();
  let owed = healed;
  let owedBytes = new TextEncoder().encode(healed).length;

  /** A token with its bytes. A character that spans tokens belongs to the token that completes it. */
  function whole(t) {
    const skipped = Math.min(owedBytes, t.bytes.length);
    owedBytes -= skipped;
    const before = owed;
    if (skipped > 0) owed = owedBytes === 0 ? "" : null;
    // Of the alternatives, those that spell what stands there.
    const top = t.top_logprobs.filter((a) => before === "" || (before !== null && owedBytes === 0 && a.token.startsWith(before)));
    return {
      id: t.id,
      text: lines(decoder.decode(new Uint8Array(t.bytes.slice(skipped)), { stream: true })),
      logprob: t.logprob,
      entropy: t.entropy ?? null,
      top: top.map((a) => alternative(a, before.length)),
    };
  }

  return (choice) => {
    if (choice.completion_probabilities) return choice.completion_probabilities.map(whole);
    const text = choice.text ?? "";
    const lists = choice.logprobs;
    if (lists?.tokens?.join("") === text && text !== "") return lists.tokens.map((piece, i) => listed(lines(piece), lists, i));
    return text === "" ? [] : [{ id: null, text: lines(text), logprob: null, entropy: null, top: [] }];
  };
}

/** A token that could have been drawn, without its first `skipped` characters. */
function alternative({ id, token, bytes, logprob }, skipped) {
  if (bytes && !isText(bytes)) return { id, text: bytesOf(bytes), logprob, part: true };
  return { id, text: plainLines(token.slice(skipped)), logprob };
}

function isText(bytes) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(bytes));
    return true;
  } catch {
    return false;
  }
}

/** Bytes for people: `\xE6\x97`. */
export const bytesOf = (bytes) => bytes.map((b) => "\\x" + b.toString(16).toUpperCase().padStart(2, "0")).join("");

/** A token of OpenAI's parallel lists, which know texts only; part of a character begins with `bytes:` there. */
function listed(text, lists, i) {
  const top = Object.entries(lists.top_logprobs?.[i] ?? {})
    .map(([other, logprob]) => (/^bytes:(\\x[0-9a-f]{2})+$/.test(other) ? { id: null, text: other.slice(6), logprob, part: true } : { id: null, text: plainLines(other), logprob }));
  return { id: null, text, logprob: lists.token_logprobs?.[i] ?? null, entropy: null, top: top.sort((a, b) => b.logprob - a.logprob) };
}
