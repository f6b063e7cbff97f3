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
 * For each text, its words with a mark: [{ text, shared }]. A word is shared if it belongs to the longest common subsequence
 * with text number `one`; a word of that text, if it belongs to those with all the others. Quadratic in the words; texts are
 * cut at `limit` words, the rest counts as not shared.
 */
export function compare(texts, one = 0, limit = 400) {
  const all = texts.map(wordsOf);
  const cut = all.map((words) => words.slice(0, limit).map((word) => word.trim()));
  const marks = all.map((words, i) => words.map((_, k) => i === one && k < limit));
  all.forEach((_, i) => {
    if (i === one) return;
    const common = commonWords(cut[one], cut[i]);
    const ones = new Set(common.map(([a]) => a));
    marks[one].forEach((_, k) => (marks[one][k] &&= ones.has(k)));
    for (const [, b] of common) marks[i][b] = true;
  });
  return all.map((words, i) => words.map((text, k) => ({ text, shared: marks[i][k] })));
}

/** The pairs of indices of a longest common subsequence of words. */
function commonWords(a, b) {
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const found = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) found.push([i++, j++]);
    else if (length[i + 1][j] >= length[i][j + 1]) i++;
    else j++;
  }
  return found;
}
