// One token's way through the model: what is computed, step by step, with the sizes of this model.

import { count } from "./anatomy_words.js";

/** Batch, tokens, and what else a step's result has. */
const of = (...sizes) => `(B, ${sizes.map((size) => (typeof size === "number" ? count(size) : size)).join(", ")})`;

const step = (part, name, text, shape) => ({ part, name, text, shape });

/** { before, layer, after }: the steps before the layers, in each of them and behind them, [{ part, name, text, shape }]. */
export function steps({ family, config: c }) {
  return { before: before(family, c), layer: [...attention(family, c), ...(family === "gpt2" ? mlp(c) : gated(c))], after: after(family, c) };
}

const norm = (family, c) => (family === "gpt2"
  ? `LayerNorm: mean 0 and deviation 1 over the ${count(c.n_embd)} numbers, then a learnt scale and shift`
  : `RMSNorm: the ${count(c.n_embd)} numbers divided by their root mean square, then a learnt scale`);

function before(family, c) {
  const lookUp = family === "gpt2" ? "the row of wte for each token, plus the row of wpe for its position" : "the row of the embedding for each token; positions come later";
  return [
    step(null, "Token ids", `the text as numbers from 0 to ${count(c.vocab_size - 1)}`, of("T")),
    step("embedding", "Embedding", lookUp, of("T", c.n_embd)),
  ];
}

function attention(family, c) {
  const q = c.n_head * c.head_size;
  const kv = (c.n_kv_head ?? c.n_head) * c.head_size;
  const first = step("norm", "Norm", norm(family, c), of("T", c.n_embd));
  const inputs = family === "gpt2"
    ? [step("attention", "Query, key, value", `one matrix makes all three, for ${c.n_head} heads of ${c.head_size}`, of("T", 3 * q))]
    : [step("attention", "Query, key, value", grouping(c), of("T", `${count(q)} + 2 · ${count(kv)}`)),
      step("attention", "Rotary positions", `pairs of numbers of q and k turn by angles that grow with the position (base ${count(c.rope_theta)})`, of("T", `${count(q)} + ${count(kv)}`))];
  return [
    first, ...inputs,
    step("attention", "Attention", `in each head, how much a token heeds itself and each one before it: softmax of q · k / √${c.head_size}`, of(c.n_head, "T", "T")),
    step("attention", "Values", "summed by these shares, heads side by side", of("T", q)),
    step("attention", "Projection", "mixes the heads; added to the residual stream", of("T", c.n_embd)),
    step("norm", "Norm", family === "gpt2" ? "LayerNorm again, with a scale and shift of its own" : "RMSNorm again, with a scale of its own", of("T", c.n_embd)),
  ];
}

/** How many queries share a key and a value. */
function grouping(c) {
  const each = c.n_head / c.n_kv_head;
  const own = `${c.n_head} heads of ${c.head_size}`;
  return each === 1 ? `three matrices, for ${own}` : `three matrices: ${own} of queries, ${c.n_kv_head} of keys and values, each for ${each} of queries`;
}

const mlp = (c) => [
  step("feed_forward", "Widening", `from ${count(c.n_embd)} to ${count(c.n_ff)} (fc)`, of("T", c.n_ff)),
  step("feed_forward", "GELU", "bends each number by itself: large ones pass, negative ones fade", of("T", c.n_ff)),
  step("feed_forward", "Projection", "back to the width; added to the residual stream", of("T", c.n_embd)),
];

const gated = (c) => [
  step("feed_forward", "Gate and up", `two matrices from ${count(c.n_embd)} to ${count(c.n_ff)}`, of("T", `2 · ${count(c.n_ff)}`)),
  step("feed_forward", "SwiGLU", "SiLU of the gate, times up", of("T", c.n_ff)),
  step("feed_forward", "Down", "back to the width; added to the residual stream", of("T", c.n_embd)),
];

function after(family, c) {
  const embedding = family === "gpt2" ? "wte" : "the embedding";
  return [
    step("norm", "Final norm", family === "gpt2" ? "LayerNorm once more" : "RMSNorm once more", of("T", c.n_embd)),
    step("head", "Logits", `the product with each row of ${c.tied ? embedding + " again" : "the head"}`, of("T", c.vocab_size)),
    step(null, "Softmax", "the probability of each token to come next; one is drawn, appended, and it begins again", of("T", c.vocab_size)),
  ];
}
