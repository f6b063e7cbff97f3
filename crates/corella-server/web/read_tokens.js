// From the choices of a stream to tokens as the page keeps them: { id, text, logprob, entropy, top: [{ id, text, logprob }] }.
// What a server does not tell is null, or an empty list.

/**
 * Reads one sample, chunk by chunk. `healed` is the end of the prompt that the first tokens spell again: it stands on the
 * page already, so their texts begin behind it.
 */
export function tokenReader(healed = "") {
  const decoder = new TextDecoder();
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
      text: decoder.decode(new Uint8Array(t.bytes.slice(skipped)), { stream: true }),
      logprob: t.logprob,
      entropy: t.entropy ?? null,
      top: top.map((a) => ({ id: a.id, text: a.token.slice(before.length), logprob: a.logprob })),
    };
  }

  return (choice) => {
    if (choice.completion_probabilities) return choice.completion_probabilities.map(whole);
    const text = choice.text ?? "";
    const lists = choice.logprobs;
    if (lists?.tokens?.join("") === text && text !== "") return lists.tokens.map((piece, i) => listed(piece, lists, i));
    return text === "" ? [] : [{ id: null, text, logprob: null, entropy: null, top: [] }];
  };
}

/** A token of OpenAI's parallel lists, which know texts only. */
function listed(text, lists, i) {
  const top = Object.entries(lists.top_logprobs?.[i] ?? {}).map(([piece, logprob]) => ({ id: null, text: piece, logprob }));
  return { id: null, text, logprob: lists.token_logprobs?.[i] ?? null, entropy: null, top: top.sort((a, b) => b.logprob - a.logprob) };
}
