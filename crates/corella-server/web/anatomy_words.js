// What the page ‘Anatomy’ says of a model, from the document that `corella inspect --json` prints.

const FAMILIES = { gpt2: "GPT-2", llama: "Llama" };

/** The parts of a model, in the order of a token's way. */
export const PARTS = { embedding: "Embedding", attention: "Attention", feed_forward: "Feed-forward", norm: "Norms", head: "Head" };

/** What they do. */
export const PURPOSES = {
  embedding: "turns tokens into vectors", attention: "lets each token gather from those before it", feed_forward: "works on each token by itself",
  norm: "keep vectors in scale", head: "turns a vector into a logit for each token",
};

/** What a tensor does, by its role; `c` is the configuration. */
const ROLES = {
  token_embedding: (c) => "a vector for each token of the vocabulary" + (c.tied ? "; the head reads the same rows" : ""),
  position_embedding: () => "a vector for each position in the context, added to the token’s",
  attention_norm: () => "the learnt scale of the norm before attention",
  attention_norm_bias: () => "the learnt shift of that norm",
  qkv: () => "makes a query, a key and a value of each token, for all heads at once",
  qkv_bias: () => "added to queries, keys and values",
  query: () => "makes the queries: what each head looks for",
  key: () => "makes the keys: what a token is found by",
  value: () => "makes the values: what a token hands on where it is found",
  attention_output: () => "mixes what the heads have gathered into the residual stream",
  attention_output_bias: () => "added to that",
  feed_forward_norm: () => "the learnt scale of the norm before the feed-forward layer",
  feed_forward_norm_bias: () => "the learnt shift of that norm",
  gate: () => "says, through SiLU, how much of each number of ‘up’ passes",
  up: (c) => `widens each vector from ${count(c.n_embd)} to ${count(c.n_ff)}`,
  up_bias: () => "added to that, in front of GELU",
  down: () => "narrows it again, into the residual stream",
  down_bias: () => "added to that",
  final_norm: () => "the learnt scale of the norm behind the last layer",
  final_norm_bias: () => "the learnt shift of that norm",
  head: () => "a row for each token: its product with a vector is that token’s logit",
};

/** What a tensor of the document does, in a few words. */
export const purpose = (tensor, model) => ROLES[tensor.role]?.(model.config) ?? "";

/** A whole number, as people write it. */
export const count = (n) => n.toLocaleString();

/** A size in decimal units, rounded as `corella inspect` rounds it. */
export function bytes(n) {
  if (n < 1e3) return `${n} bytes`;
  const [unit, power, digits] = [["kB", 1e3, 1], ["MB", 1e6, 1], ["GB", 1e9, 2], ["TB", 1e12, 1]].findLast(([, power]) => n >= power);
  return `${(n / power).toFixed(digits)} ${unit}`;
}

/** A share of a whole in percent; what is there is never written as nothing. */
export function share(part, whole) {
  const percent = (100 * part) / whole;
  return percent > 0 && percent < 0.01 ? "< 0.01 %" : percent.toFixed(percent < 1 ? 2 : 1) + " %";
}

/** The shape of a tensor. */
export const shape = (sizes) => sizes.map(count).join(" × ");

/** What follows the model's name in the first sentence. */
export function lead({ family, kind, code_lines, parameter_bytes }) {
  return ` is ${kind === "instruct" ? "an instruct" : "a base"} ${FAMILIES[family] ?? family} model: `
    + `${count(code_lines)} lines of code and ${bytes(parameter_bytes)} of numbers.`;
}

/** [[name, value], …]: the sizes of a model. */
export function sizes({ parameters, parameter_bytes, bits_per_parameter, formats, config: c }) {
  const grouped = c.n_kv_head !== undefined && c.n_kv_head !== c.n_head;
  const bits = Number(bits_per_parameter.toFixed(2));
  return [
    ["parameters", count(parameters)], ["layers", count(c.n_layer)],
    [`heads of ${c.head_size}${grouped ? `, ${c.n_kv_head} of keys and values` : ""}`, count(c.n_head)], ["width", count(c.n_embd)],
    ["tokens of context", count(c.context)], ["tokens of vocabulary", count(c.vocab_size)],
    [formats.length === 1 ? "number format" : "number formats", formats.map((format) => format.dtype).join(", ")], [`${bits} bits a number`, bytes(parameter_bytes)],
  ];
}

/** What the letters of the shapes mean. */
export function symbols({ config: c, kv_bytes_per_token }) {
  return `B texts at once, T tokens in each, at most ${count(c.context)}; C = ${count(c.n_embd)} numbers travel for each token. `
    + `While it writes, the keys and values of earlier tokens are kept: ${bytes(kv_bytes_per_token)} a token in 16 bits.`;
}

/** The sentences of the lossy zip: what is known of the text that the model has read, and what parameters can keep. */
export function zip({ corpus, capacity_bytes, bits_kept }) {
  const capacity = `About ${bytes(capacity_bytes)} can be learnt by heart, at ${bits_kept} bits per parameter (arXiv 2505.24832).`;
  if (!corpus) return [capacity, "How much text it was trained on is not known here."];
  return [`${bytes(corpus.bytes)} of text (${corpus.source}); ${corpus.comparison.join("; ")}.`, capacity];
}

/** The bars of the lossy zip, [[name, bytes], …]. */
export function zipBars({ corpus, parameter_bytes, capacity_bytes }) {
  return [...(corpus ? [["the text", corpus.bytes]] : []), ["the numbers", parameter_bytes], ["capacity", capacity_bytes]];
}

/** The lists at the end of the page, [[name, value], …]. */
export const dimensions = {
  files: ({ files, file_bytes }) => [...files.map((file) => [file.name, bytes(file.bytes)]), ["in all", bytes(file_bytes)]],
  config: ({ config }) => Object.entries(config).map(([name, value]) => [name, typeof value === "number" && value >= 1 ? count(value) : String(value)]),
};
