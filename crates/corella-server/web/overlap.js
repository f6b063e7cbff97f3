// Verbatim overlap with a reference text, in the browser: a suffix automaton of the reference, read once along the text.

/** The automaton of all substrings of `text` (Blumer et al. 1985); linear in its length. */
export function automaton(text) {
  const states = [{ length: 0, link: -1, next: new Map(), first: 0 }];
  let last = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    const current = states.push({ length: states[last].length + 1, link: 0, next: new Map(), first: i + 1 }) - 1;
    let p = last;
    for (; p !== -1 && !states[p].next.has(c); p = states[p].link) states[p].next.set(c, current);
    if (p !== -1) {
      const q = states[p].next.get(c);
      if (states[p].length + 1 === states[q].length) states[current].link = q;
      else {
        const clone = states.push({ length: states[p].length + 1, link: states[q].link, next: new Map(states[q].next), first: states[q].first }) - 1;
        for (; p !== -1 && states[p].next.get(c) === q; p = states[p].link) states[p].next.set(c, clone);
        states[q].link = states[current].link = clone;
      }
    }
    last = current;
  }
  return states;
}

/**
 * Maximal spans of `text` of at least `least` characters that stand verbatim in the reference:
 * [{ start, end, at }], `at` where the span begins in the reference (its first occurrence).
 */
export function overlaps(states, text, least = 24) {
  const longest = [];
  let state = 0;
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    while (state !== 0 && !states[state].next.has(text[i])) {
      state = states[state].link;
      length = states[state].length;
    }
    if (states[state].next.has(text[i])) {
      state = states[state].next.get(text[i]);
      length++;
    }
    longest.push({ length, at: states[state].first - length });
  }
  const spans = [];
  for (let i = text.length - 1; i >= 0; ) {
    const { length: n, at } = longest[i];
    if (n >= least) {
      spans.unshift({ start: i + 1 - n, end: i + 1, at });
      i -= n;
    } else i--;
  }
  return spans;
}

/** Fewest characters of the end of a prompt that tell where in the reference it stands. */
const ENOUGH = 12;

/**
 * How far `text` (what follows a prompt) recites `reference` from where the prompt ends in it: { same, end, expected, got },
 * the characters until the first that differs; `end` says what ended there: the "reference", the "answer", or neither (null).
 * The prompt stands where the longest end of it is found first; null if that is less than a few words. `states` is the
 * reference's automaton.
 */
export function recited(states, reference, prompt, text) {
  let state = 0;
  let length = 0;
  for (const c of prompt.split("")) {
    while (state !== 0 && !states[state].next.has(c)) {
      state = states[state].link;
      length = states[state].length;
    }
    if (states[state].next.has(c)) {
      state = states[state].next.get(c);
      length++;
    }
  }
  if (length < Math.min(ENOUGH, prompt.length)) return null;
  const rest = reference.slice(states[state].first);
  let n = 0;
  while (n < text.length && n < rest.length && text[n] === rest[n]) n++;
  const end = n === rest.length ? "reference" : n === text.length ? "answer" : null;
  return { same: n, end, expected: rest.slice(n, n + 40), got: text.slice(n, n + 40) };
}
