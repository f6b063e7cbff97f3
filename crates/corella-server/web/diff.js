// Where parallel universes part: samples of one prompt compared word by word.

/** Words with the spaces before them. */
export function wordsOf(text) {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

/** Characters that all texts share from the start. */
export function commonStart(texts) {
  if (texts.length < 2) return texts[0]?.length ?? 0;
  let n = 0;
  while (texts.every((t) => n < t.length && t[n] === texts[0][n])) n++;
  return n;
}

/**
 * For each text, its words with a mark: [{ text, shared }], shared if the word belongs to the longest common subsequence
 * with every other text. Quadratic in the words; texts are cut at `limit` words, the rest counts as not shared.
 */
export function compare(texts, limit = 400) {
  const all = texts.map(wordsOf);
  return all.map((words, i) => {
    const shared = words.map(() => true);
    all.forEach((others, j) => {
      if (i === j) return;
      const common = commonWords(words.slice(0, limit), others.slice(0, limit));
      words.forEach((_, k) => (shared[k] &&= common.has(k)));
    });
    return words.map((text, k) => ({ text, shared: shared[k] }));
  });
}

/** Indices into `a` of a longest common subsequence of words. */
function commonWords(a, b) {
  const same = (i, j) => a[i].trim() === b[j].trim();
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      length[i][j] = same(i, j) ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const found = new Set();
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (same(i, j)) {
      found.add(i);
      i++;
      j++;
    } else if (length[i + 1][j] >= length[i][j + 1]) i++;
    else j++;
  }
  return found;
}
