// The stack of a model: what stands before the layers, the layers, what stands behind them.

import { count } from "./anatomy_words.js";

/** Of more layers than these the middle ones are folded: the first ones and the last stay. */
const MOST = 16;
const FIRST = 3;

const sum = (rows) => rows.reduce((n, row) => n + row.parameters, 0);

/**
 * [{ name, parameters, parts, tensors }] in the order of a token's way; a row that stands for others has these as `folded`. A
 * head that is the embedding has no tensors of its own: it is `shared`, and as large as that.
 */
export function stack({ tensors, layers, config }) {
  const outside = (name, part) => {
    const own = tensors.filter((tensor) => tensor.layer === null && tensor.part === part);
    return { name, parameters: sum(own), parts: [{ part, parameters: sum(own) }], tensors: own };
  };
  const blocks = layers.map(({ parameters, parts }, i) => ({ name: `Layer ${i}`, parameters, parts, tensors: tensors.filter((tensor) => tensor.layer === i) }));
  return [outside("Embedding", "embedding"), ...(blocks.length > MOST ? fold(blocks) : blocks), outside("Final norm", "norm"),
    config.tied ? sharedHead(tensors) : outside("Head", "head")];
}

function fold(blocks) {
  const folded = blocks.slice(FIRST, -1);
  const name = `Layers ${FIRST} to ${blocks.length - 2}: ${folded.length} more, ${count(sum(folded))} numbers`;
  return [...blocks.slice(0, FIRST), { name, parameters: sum(folded), parts: [], tensors: [], folded }, blocks.at(-1)];
}

function sharedHead(tensors) {
  const { parameters } = tensors.find((tensor) => tensor.role === "token_embedding");
  return { name: "Head", parameters, parts: [{ part: "head", parameters }], tensors: [], shared: true };
}
