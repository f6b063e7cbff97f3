// node --test: the parts of the playground that need no page. They are the very files that the server embeds.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

// The files are ES modules without a package file of their own: they are loaded through data URLs with their imports resolved.
const cache = new Map();
async function load(name) {
  if (!cache.has(name)) {
    const text = readFileSync(new URL("../web/" + name, import.meta.url), "utf8");
    let source = text;
    for (const [whole, target] of text.matchAll(/from "\.\/([a-z_]+\.js)"/g)) {
      source = source.replace(whole, `from ${JSON.stringify(await load(target))}`);
    }
    cache.set(name, "data:text/javascript," + encodeURIComponent(source));
  }
  return cache.get(name);
}
const module = async (name) => import(await load(name));

const state = await module("state.js");
const treeFile = await module("tree_file.js");
const filters = await module("filters.js");
const diff = await module("diff.js");
const overlap = await module("overlap.js");
const { history } = await module("history.js");
const { askForKey, events, getJson } = await module("api.js");
const { figures, standing } = await module("figures.js");
const { merged, places, timeline } = await module("timeline.js");
const { pages } = await module("pages.js");
const { lineChart, niceTicks } = await module("chart.js");
const words = await module("anatomy_words.js");
const { stack } = await module("anatomy_stack.js");
const { steps } = await module("anatomy_steps.js");

const token = (text, logprob = -1) => ({ id: 1, text, logprob, entropy: null, top: [{ id: 1, text, logprob }, { id: 2, text: "X", logprob: -2 }] });

function written(prompt, ...pieces) {
  let doc = state.emptyDocument(prompt);
  doc = state.addNode(doc, doc.leaf, { by: "model", tokens: [] });
  return state.appendTokens(doc, doc.leaf, pieces.map((p) => token(p)));
}

const shape = (doc) => Object.values(doc.nodes).map((n) => [n.id, n.parent, n.text]);

test("typing at the end of one's own text stays in one node", () => {
  const doc = state.editText(state.emptyDocument("Once"), "Once upon");
  assert.deepEqual(shape(doc), [[0, null, "Once upon"]]);
});

test("typing behind generated text makes a node of one's own, and the text is what was typed", () => {
  const doc = state.editText(written("A", " b", " c"), "A b c!");
  assert.equal(state.textOf(doc), "A b c!");
  assert.equal(doc.nodes[doc.leaf].by, "you");
  assert.equal(doc.nodes[1].tokens.length, 2, "the model's tokens keep their probabilities");
});

test("a change inside generated text starts a branch and keeps the old one", () => {
  const before = written("A", " big", " dog");
  const doc = state.editText(before, "A big cat");
  assert.equal(state.textOf(doc), "A big cat");
  const leaves = Object.values(doc.nodes).filter((n) => state.childrenOf(doc, n.id).length === 0).map((n) => state.textOf(doc, n.id)).sort();
  assert.deepEqual(leaves, ["A big cat", "A big dog"]);
  assert.deepEqual(doc.nodes[1].tokens.map((t) => t.text), [" big", " "], "cut inside a token: its front has no probability");
  assert.equal(doc.nodes[1].tokens[1].logprob, null);
});

test("deleting the end goes back without losing it", () => {
  const doc = state.editText(written("A", " b", " c"), "A b");
  assert.equal(state.textOf(doc), "A b");
  const all = Object.values(doc.nodes).map((n) => state.textOf(doc, n.id));
  assert.ok(all.includes("A b c"));
});

test("a new beginning keeps the old page as a branch", () => {
  const doc = state.editText(written("Hello", " you"), "Bye");
  assert.equal(state.textOf(doc), "Bye");
  assert.ok(Object.values(doc.nodes).some((n) => state.textOf(doc, n.id) === "Hello you"));
});

test("random edits always give the text that was typed, and every node hangs on the root", () => {
  let seed = 7;
  const random = (n) => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % n;
  let doc = written("Once upon", " a", " time", " 🦓", " there");
  for (let i = 0; i < 500; i++) {
    const text = state.textOf(doc);
    const at = random(text.length + 1);
    const end = Math.min(text.length, at + random(4));
    const next = text.slice(0, at) + ["", "x", " yz", "\n", "é"][random(5)] + text.slice(end);
    doc = state.editText(doc, next);
    assert.equal(state.textOf(doc), next);
    if (random(6) === 0) {
      doc = state.addNode(doc, doc.leaf, { by: "model", tokens: [] });
      doc = state.appendTokens(doc, doc.leaf, [token(" m"), token("n")]);
    }
    if (random(9) === 0) {
      const ids = Object.keys(doc.nodes);
      doc = { ...doc, leaf: Number(ids[random(ids.length)]) };
    }
    for (const node of Object.values(doc.nodes)) {
      assert.ok(node.parent === null || doc.nodes[node.parent]);
      if (node.tokens) assert.equal(node.tokens.map((t) => t.text).join(""), node.text);
    }
  }
  const about = { name: "A page", tags: ["one", "two"] };
  const imported = treeFile.importDocument(treeFile.exportDocument(doc, { ...about, model: "m" }));
  assert.deepEqual(imported.doc.nodes[0].text, doc.nodes[0].text);
  assert.deepEqual({ name: imported.name, tags: imported.tags }, about);
});

test("an alternative starts a sibling at its token", () => {
  const doc = state.takeAlternative(written("A", " b", " c", " d"), 1, 1, { id: 9, text: " z", logprob: -3 });
  assert.equal(state.textOf(doc), "A b z");
  assert.equal(state.childrenOf(doc, 1).length, 2);
  const first = state.takeAlternative(written("A", " b", " c"), 1, 0, { id: 9, text: " z", logprob: -3 });
  assert.equal(state.textOf(first), "A z");
});

test("pruning moves a reader out, and siblings can be walked", () => {
  let doc = written("A", " b");
  doc = state.addNode(doc, 0, { by: "model", text: " c", tokens: [token(" c")] });
  assert.equal(state.textOf(state.sibling(doc, 1)), "A b");
  assert.equal(state.textOf(state.prune(doc, doc.leaf)), "A");
  assert.equal(state.prune(doc, 0), doc);
});

test("a file that is no tree is refused with a sentence", () => {
  const node = (id, parent) => ({ id, parent, by: "you", text: "" });
  const file = (nodes) => JSON.stringify({ format: "corella-tree-1", leaf: 0, nodes });
  for (const text of ["", "[]", "{}", file([]), file([node(0, 1), node(1, 0)]), file([node(0, null), node(1, 5)]), file([node(0, null), node(0, null)]), file([node(-1, null)])]) {
    assert.throws(() => treeFile.importDocument(text), /\.$/, text);
  }
});

test("filters keep what they say", () => {
  const top = [0.5, 0.25, 0.15, 0.1].map((p, id) => ({ id, text: String(id), logprob: Math.log(p) }));
  const kept = (params) => filters.reshape(top, { temperature: 1, topK: 0, topP: 1, minP: 0, ...params }).rows.filter((r) => r.kept).length;
  assert.equal(kept({}), 4);
  assert.equal(kept({ topK: 2 }), 2);
  assert.equal(kept({ topP: 0.6 }), 2);
  assert.equal(kept({ minP: 0.28 }), 3);
  assert.equal(kept({ temperature: 0 }), 1);
  const { rows } = filters.reshape(top, { temperature: 2, topK: 2, topP: 1, minP: 0 });
  assert.ok(Math.abs(rows[0].drawn - Math.SQRT2 / (1 + Math.SQRT2)) < 1e-9);
  assert.ok(Math.abs(rows.reduce((n, r) => n + r.drawn, 0) - 1) < 1e-9);
});

test("universes are marked where they part", () => {
  const marked = diff.compare(["He chose Mike and won.", "He chose Ron and won."]);
  assert.deepEqual(marked[0].filter((w) => !w.shared).map((w) => w.text), [" Mike"]);
  assert.deepEqual(marked.map((m) => m.map((w) => w.text).join("")), ["He chose Mike and won.", "He chose Ron and won."]);
  assert.equal(diff.commonStart(["abc", "abd"]), 2);
});

test("overlaps with a reference are those that a search finds", () => {
  const reference = "the quick brown fox jumps over the lazy dog and the quick cat";
  const states = overlap.automaton(reference);
  const text = "yes, the quick brown fox sat; over the lazy dog and then";
  const spans = overlap.overlaps(states, text, 10);
  assert.deepEqual(spans.map((s) => text.slice(s.start, s.end)), ["the quick brown fox ", " over the lazy dog and the"]);
  for (const s of spans) assert.equal(reference.slice(s.at, s.at + s.end - s.start), text.slice(s.start, s.end));
  const recited = (prompt, text) => overlap.recited(states, reference, prompt, text);
  const r = recited("quick brown", " fox jumps under");
  assert.deepEqual([r.same, r.end, r.got, r.expected.slice(0, 4)], [" fox jumps ".length, null, "under", "over"]);
  assert.deepEqual([recited("lazy dog and", " the quick cat sat").end, recited("lazy dog and", " the quick").end], ["reference", "answer"]);
  assert.equal(recited("no such prompt", "x"), null);
  assert.equal(recited("A day on which the quick brown fox", " jumps").same, 6, "the longest end of the prompt that stands there");
});

test("undo takes typing back in one step and redo brings it again", () => {
  const shown = [];
  const past = history("a", (doc) => shown.push(doc));
  past.commit("ab", "typing");
  past.commit("abc", "typing");
  past.amend("abcd");
  past.undo();
  assert.equal(past.document, "a");
  past.redo();
  assert.equal(past.document, "abcd");
  past.commit("x");
  assert.equal(past.canRedo, false);
});

test("events are read however the stream is cut", async () => {
  const bytes = new TextEncoder().encode('data: {"a":"é"}\n\n: ping\n\ndata: one\r\ndata: two\r\n\r\ndata: [DONE]\n\n');
  for (const size of [1, 2, 3, 7, 1000]) {
    const stream = new ReadableStream({
      start(controller) {
        for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
        controller.close();
      },
    });
    const found = [];
    for await (const event of events(stream)) found.push(event);
    assert.deepEqual(found, ['{"a":"é"}', "one\ntwo", "[DONE]"]);
  }
});

test("tokens stand where their text stands, with a first one that only marks the start or without", async () => {
  const { startsOf } = await module("panel_tokens.js");
  const tokens = (...pieces) => pieces.map((piece, id) => ({ id, piece }));
  assert.deepEqual(startsOf(tokens("<|endoftext|>", "Once", " upon"), "Once upon"), [-13, 0, 4]);
  assert.deepEqual(startsOf(tokens("Once", " upon"), "Once upon"), [0, 4]);
  assert.deepEqual(startsOf([], ""), []);
  assert.deepEqual(startsOf(tokens("<s>", " ", "Once", [0xc3], [0xa9], " upon"), "Onceé upon"), [-4, -1, 0, 4, 5, 6], "a space that the tokenizer puts in front, and bytes");
});

test("a sample is read from what each kind of server tells of its tokens", async () => {
  const { tokenReader } = await module("read_tokens.js");
  const bytes = (text) => [...new TextEncoder().encode(text)];
  const drawn = (text, ...others) => ({ id: 5, bytes: bytes(text), logprob: -1, entropy: 2, top_logprobs: [text, ...others].map((token, id) => ({ id, token, logprob: -1 - id })) });
  const read = tokenReader();
  const [half] = read({ completion_probabilities: [{ ...drawn("x"), bytes: [0xc3] }] });
  const [rest] = read({ completion_probabilities: [{ ...drawn("x"), bytes: [0xa9] }] });
  assert.deepEqual([half.text, rest.text, rest.entropy], ["", "é", 2], "a character belongs to the token that completes it");
  const lists = { tokens: [" a", " b"], token_logprobs: [-1, -2], top_logprobs: [{ " a": -1, " the": -0.5 }, null] };
  const listed = tokenReader()({ text: " a b", logprobs: lists });
  assert.deepEqual(listed.map((t) => [t.text, t.logprob, t.top.map((a) => a.text)]), [[" a", -1, [" the", " a"]], [" b", -2, []]]);
  assert.deepEqual(tokenReader()({ text: "plain", logprobs: null }).map((t) => [t.text, t.logprob]), [["plain", null]]);
  assert.deepEqual(tokenReader()({ text: "" }), []);
  const marked = tokenReader()({ completion_probabilities: [drawn("\ufeff"), drawn("a\ufeff")] });
  assert.deepEqual(marked.map((t) => t.text), ["\ufeff", "a\ufeff"], "a byte order mark is a character of the text");
});

test("what a healed prompt has already is not written again, and only alternatives that spell it are offered", async () => {
  const { tokenReader } = await module("read_tokens.js");
  const drawn = (text, ...others) => ({ id: 5, bytes: [...new TextEncoder().encode(text)], logprob: -1, top_logprobs: [text, ...others].map((token, id) => ({ id, token, logprob: -1 })) });
  const read = tokenReader(" in");
  const [one] = read({ completion_probabilities: [drawn(" international", " internal", " a")] });
  assert.deepEqual([one.text, one.top.map((a) => a.text)], ["ternational", ["ternational", "ternal"]]);
  assert.equal(read({ completion_probabilities: [drawn(" in")] })[0].text, " in", "only once");
  const slow = tokenReader("日");
  const tokens = [[0xe6], [0x97, 0xa5], [0x21]].map((bytes) => slow({ completion_probabilities: [{ ...drawn("x"), bytes }] })[0].text);
  assert.deepEqual(tokens, ["", "", "!"]);
});

test("tags are what stands between commas, each once", async () => {
  const { tagsOf, nameOf } = await module("pages.js");
  assert.deepEqual(tagsOf(" poems, drafts ,, poems"), ["poems", "drafts"]);
  assert.deepEqual([nameOf({ name: "", begins: "Once" }), nameOf({ name: "A", begins: "Once" }), nameOf({ name: "", begins: "" })], ["Once", "A", "Empty page"]);
});

test("ticks are round and enclose the range", () => {
  assert.deepEqual(niceTicks(0, 10), [0, 2, 4, 6, 8, 10]);
  for (const [low, high] of [[0, 10], [3.2, 7.9], [0.001, 0.0011], [-5, 5], [4, 4]]) {
    const ticks = niceTicks(low, high);
    assert.ok(ticks[0] <= low && ticks[ticks.length - 1] >= high && ticks.length <= 8, `${low} ${high}: ${ticks}`);
  }
});

test("a run of a million updates is drawn", (t) => {
  const element = () => ({ attributes: {}, children: [], setAttribute(key, value) { this.attributes[key] = value; }, append(...more) { this.children.push(...more); } });
  globalThis.document = { createElementNS: element };
  t.after(() => delete globalThis.document);
  const points = Array.from({ length: 1_000_000 }, (_, i) => [i + 1, i % 1000 === 0 ? null : 5 - i / 1e6]);
  const svg = lineChart([{ points }, { points: [[500_000, 4.4]] }], "Loss", 600);
  const drawn = svg.children.filter((c) => "points" in c.attributes).map((c) => c.attributes.points.split(" ").length);
  assert.deepEqual(drawn, [800, 1]);
});

/** A browser's database as a map, and the locks of its tabs. */
function browser(entries = []) {
  const database = new Map(entries);
  const claimed = new Set();
  const listeners = new Set();
  return {
    database,
    /** The words that the database holds of each page, by key. */
    pages: () => Object.fromEntries([...database].filter(([key]) => key.startsWith("about ")).map(([key, about]) => [database.get(about.key), about.tags.join()])),
    /** A tab whose database opens when `open()` is called; a reload of it has the same `waiting` and `tab`. */
    tab(waiting = new Map(), own = new Map(), onList = () => {}) {
      let open;
      let released = false;
      const opened = new Promise((done) => (open = done));
      const write = () => {
        if (!released) return;
        const keys = [...waiting.keys()];
        waiting.forEach((value, key) => (value === null ? database.delete(key) : database.set(key, value)));
        waiting.clear();
        for (const listen of listeners) if (listen !== heard) listen(keys);
      };
      let heard = null;
      const kept = {
        waiting: (key) => waiting.get(key) ?? null,
        load: async (key) => (waiting.has(key) ? waiting.get(key) : (await opened, database.get(key) ?? null)),
        all: async (prefix) => (await opened, [...new Map([...database, ...waiting])].filter(([key, value]) => key.startsWith(prefix) && value !== null).map(([, value]) => value)),
        save: (key, value) => (waiting.set(key, value), write()),
        remove: (key) => (waiting.set(key, null), write()),
        release: () => ((released = true), write()),
        others: () => [],
        onOthers: (listen) => listeners.add((heard = listen)),
      };
      const mine = new Set();
      const claim = async (key) => {
        if (claimed.has(key)) return null;
        claimed.add(key);
        mine.add(key);
        return () => claimed.delete(key);
      };
      const shelf = pages(kept, { claim, tab: { get: () => own.get("page") ?? null, set: (key) => own.set("page", key) }, onList });
      const leave = () => mine.forEach((key) => claimed.delete(key));
      return { shelf, open, waiting, own, leave, async ready() { open(); return shelf.load(); } };
    },
  };
}

test("pages that were begun before the database opened join those it holds, over any number of reloads", async () => {
  const stored = browser([["list", { list: [{ key: "page", name: "Old", tags: [], begins: "Once" }], open: "page" }], ["page", "Once upon"]]);
  let tab;
  for (const [i, text] of ["A", "B", "C"].entries()) {
    tab?.leave();
    tab = stored.tab(tab?.waiting, tab?.own);
    const { shelf } = tab;
    assert.equal(shelf.left, i === 0 ? null : "AB"[i - 1], "what was begun is there at once");
    shelf.load();
    if (i > 0) shelf.add();
    shelf.save(text, text);
    shelf.describe({ tags: [text] });
  }
  assert.deepEqual([...stored.database.keys()], ["list", "page"], "nothing is written over what has not been read");
  tab.leave();
  const { shelf, ready } = stored.tab(tab.waiting, tab.own);
  assert.equal(shelf.left, "C");
  assert.equal(await ready(), null, "what was begun stays open");
  assert.deepEqual(shelf.list.map((page) => [page.name, page.begins, page.tags.join()]), [["Old", "Once", ""], ["", "A", "A"], ["", "B", "B"], ["", "C", "C"]]);
  assert.deepEqual(shelf.list.map((page) => stored.database.get(page.key)), ["Once upon", "A", "B", "C"]);
  assert.equal(stored.database.get("open"), shelf.open.key);
  assert.ok(!stored.database.has("list"));
});

test("a reader who has begun nothing gets the page that was open, and an unused page makes room for one that was begun", async () => {
  const list = [{ key: "page", name: "", tags: [], begins: "Once" }, { key: "page 2", name: "", tags: [], begins: "" }];
  const { shelf, ready } = browser([["list", { list, open: "page" }], ["page", "Once upon"]]).tab();
  assert.equal(await ready(), "Once upon");
  assert.equal(shelf.open.key, "page");
  const other = browser([["list", { list, open: "page 2" }], ["page", "Once upon"]]).tab();
  const loading = other.shelf.load();
  other.shelf.save("New", "New");
  other.open();
  await loading;
  assert.deepEqual(other.shelf.list.map((page) => page.begins), ["Once", "New"]);
});

test("what two tabs write, in one page or in several, is all kept", async () => {
  const stored = browser();
  const first = stored.tab();
  await first.ready();
  first.shelf.save("Shared start", "Shared");
  const second = stored.tab();
  assert.equal(await second.ready(), "Shared start");
  assert.ok(second.shelf.isCopy);
  second.shelf.save("Shared start", "Shared");
  assert.deepEqual(Object.keys(stored.pages()), ["Shared start"], "a copy is kept once it is changed");
  first.shelf.save("Shared start, and what A wrote", "Shared");
  second.shelf.save("Shared start, and what B wrote", "Shared");
  first.shelf.add();
  first.shelf.save("A second page of A", "A second");
  second.shelf.save("Shared start, and what B wrote!", "Shared");
  assert.deepEqual(Object.keys(stored.pages()).sort(), ["A second page of A", "Shared start, and what A wrote", "Shared start, and what B wrote!"]);
  await new Promise((done) => setTimeout(done));
  assert.deepEqual(second.shelf.list.map((page) => page.begins).sort(), ["A second", "Shared", "Shared"], "each tab hears of the pages of the other");
  const [shared] = second.shelf.list.filter((page) => stored.database.get(page.key) === "Shared start, and what A wrote");
  assert.equal(await second.shelf.turnTo(shared.key, () => true), "Shared start, and what A wrote");
  assert.equal(second.shelf.isCopy, false, "the first tab has let it go");
});

test("a page that was thrown away can be brought back, and goes at last", async () => {
  const stored = browser();
  const tab = stored.tab();
  await tab.ready();
  tab.shelf.save("Important", "Important");
  const { key } = tab.shelf.open;
  tab.shelf.add();
  tab.shelf.save("Second", "Second");
  tab.shelf.remove(key);
  assert.deepEqual([tab.shelf.list.map((page) => page.begins), stored.database.get(key)], [["Second"], "Important"]);
  tab.shelf.bringBack(key);
  assert.deepEqual(tab.shelf.list.map((page) => page.begins), ["Important", "Second"]);
  stored.database.set("about " + key, { ...stored.database.get("about " + key), thrown: Date.now() - 7_200_000 });
  tab.leave();
  const later = stored.tab(new Map(), tab.own);
  assert.equal(await later.ready(), "Second");
  assert.ok(!stored.database.has(key) && !stored.database.has("about " + key));
});

test("a loss that is no number is named, and the page of a run goes on", () => {
  const update = (step, loss) => ({ step, loss, ms: 1000, tokens_per_second: 512, tokens_seen: step * 512 });
  const of = (log) => Object.fromEntries(figures(log, 100));
  const healthy = of([update(1, 5), { ...update(2, 4.25), val_loss: 4.5 }]);
  assert.deepEqual([healthy.loss, healthy.validation, healthy.left], ["4.250", "4.500", "2 min"]);
  const broken = of([update(1, 5), { ...update(2, null), val_loss: null }]);
  assert.deepEqual([broken.loss, broken.validation], ["not a number", "not a number"]);
  assert.equal(of([update(1, 5)]).validation, "–");
});

test("the figures of a run have its times, its share of the data and what it used", () => {
  const update = (step, ms) => ({ step, loss: 5, ms, tokens_per_second: 512, tokens_seen: step * 512 });
  const log = Array.from({ length: 21 }, (_, i) => update(i + 1, 400 + i));
  Object.assign(log[20], { epochs: 0.25, mfu: 0.4257, elapsed: 1200, eta: 5400, time: 1.7e9 });
  const found = Object.fromEntries(figures(log, 84, { gpu_hours: 2.5, energy_kwh: 0.0006, dollars: 7 }));
  const expected = { update: "21 of 84 (25.0 %)", "of the data": "25.0 %", "of the peak (MFU)": "42.6 %", "an update": "410 ms (401–419)", elapsed: "20 min", left: "1.5 h", "GPU-hours": "2.50", energy: "0.6 Wh", "so far": "$7.00" };
  for (const [name, value] of Object.entries(expected)) assert.equal(found[name], value, name);
  assert.match(found.ends, /1[45]/, "14 or 15 November 2023, as the reader's clock goes");
  const plain = Object.fromEntries(figures([update(1, 5)], 84));
  assert.deepEqual(Object.keys(plain), ["update", "loss", "validation", "tokens read", "tokens/s", "an update", "left"], "what is not known is not shown");
});

test("a run that has ended says how, where it stands, and nothing of what is to come; its speed is the usual one", () => {
  const log = [1, 2, 3].map((step) => ({ step, loss: 5, ms: 50, tokens_per_second: step === 3 ? 3000 : 20000 + step, tokens_seen: step * 512, eta: 180, time: 1.7e9 }));
  const of = (...given) => Object.fromEntries(figures(log, ...given));
  for (const [total, state] of [[9, "stopped"], [9, "failed"], [3, "finished"], [3, "saving"]]) {
    const found = of(total, { state });
    assert.deepEqual([found.left, found.ends], [undefined, undefined], state);
  }
  assert.equal(of(9, { state: "training" }).left, "3 min");
  assert.deepEqual([of(9, { state: "training" }, false).left, of(9, null, false).ends], [undefined, undefined], "of a server that is gone");
  assert.equal(of(3)["tokens/s"], (20001).toLocaleString());
  assert.deepEqual(standing(120, 900, { state: "stopped" }), { sentence: "The run has stopped at update 120 of 900. It can be resumed.", isEnded: true });
  assert.match(standing(120, 900, { state: "failed" }).sentence, /failed at update 120 of 900/);
  assert.match(standing(0, 900, { state: "stopped" }).sentence, /stopped before its first update/);
  for (const [step, beat, isEnded] of [[900, { state: "finished" }, true], [900, null, true], [900, { state: "saving" }, false], [120, { state: "training" }, false], [0, null, false]]) {
    assert.equal(standing(step, 900, beat).isEnded, isEnded, `${step} ${beat?.state}`);
  }
});

test("a run whose heart has not beaten for long has been killed, or hangs; one that is busy has not", () => {
  const beat = { state: "training", seconds_per_step: 2 };
  assert.equal(standing(120, 900, beat, 100).isEnded, false);
  assert.deepEqual(standing(120, 900, beat, 840), { sentence: "No sign of life for 14 min, at update 120 of 900: it was killed, or hangs. It can be resumed.", isEnded: true });
  assert.equal(standing(120, 900, { state: "training", seconds_per_step: 60 }, 840).isEnded, false, "updates of a minute");
  assert.equal(standing(120, 900, { state: "evaluating" }, 840).isEnded, false, "an evaluation takes long");
  assert.match(standing(0, 900, { state: "training" }, 840).sentence, /before its first update/);
  assert.match(standing(120, 900, { state: "stopped" }, 9e9).sentence, /stopped/);
});

test("special tokens that the model has drawn are told from text that says the same", () => {
  const end = token("<|endoftext|>");
  const drawn = state.appendTokens(written("The", " end"), 1, [end]);
  assert.ok(state.hasSpecial(drawn));
  assert.ok(state.hasSpecial(state.addNode(drawn, drawn.leaf, { text: " and more" })));
  const length = state.textOf(drawn).length;
  assert.deepEqual([state.hasSpecial(drawn, length), state.hasSpecial(drawn, length - 1)], [true, false], "up to the cursor");
  assert.ok(!state.hasSpecial(written("The <|endoftext|>", " end", " of <b>")));
  assert.ok(!state.hasSpecial(state.editText(drawn, state.textOf(drawn).slice(0, -1))), "what is left of a name is text");
  assert.ok(["</s>", "<|eot_id|>", "[PAD]"].every((name) => state.hasSpecial(written("A", name))));
});

test("the samples of a long run are shown from its first to its newest, with all prompts of an update", () => {
  const steps = places(1601).map((i) => 20 * i);
  assert.equal(steps.length, 60);
  assert.deepEqual([...steps.slice(0, 6), steps[59]], [0, 20, 40, 60, 80, 100, 32000]);
  assert.ok(steps.some((step) => step >= 400 && step <= 440), "near update 420, as in the lesson");
  for (let n = 1; n < 200; n++) {
    const few = places(n);
    assert.ok(few.length === Math.min(n, 60) && few[0] === 0 && few[few.length - 1] === n - 1 && few.every((at, i) => i === 0 || at > few[i - 1]), String(n));
  }
  const samples = Array.from({ length: 200 }, (_, i) => ["A", "B"].map((prompt) => ({ step: i, prompt, text: "" }))).flat();
  const shown = timeline(samples);
  assert.equal(shown.length, 120);
  assert.deepEqual([shown[0].step, shown[119].step, shown.filter((s) => s.prompt === "A").length], [199, 0, 60]);
  const again = merged(samples, [{ step: 199, prompt: "B", text: "new" }, { step: 200, prompt: "A", text: "" }]);
  assert.deepEqual([again.length, again[399].text], [401, "new"], "a run that was resumed writes its last samples again");
});

test("a server that wants a key is asked again with the reader's", async (t) => {
  const kept = new Map();
  const before = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = before;
    delete globalThis.sessionStorage;
    delete globalThis.prompt;
  });
  Object.defineProperty(globalThis, "sessionStorage", { value: { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) }, configurable: true });
  globalThis.fetch = async (path, init) => (init.headers.authorization === "Bearer secret" ? Response.json({ log: [] }) : Response.json({ error: { message: "a key is needed" } }, { status: 401 }));
  await assert.rejects(getJson("/corella/run?since=0"), { status: 401 });
  globalThis.prompt = () => null;
  assert.equal(askForKey(), false);
  const asked = [];
  globalThis.prompt = (text) => asked.push(text) && (asked.length === 1 ? "wrong" : "secret");
  assert.equal(askForKey(), true);
  assert.equal(askForKey(), true);
  assert.doesNotMatch(asked[0], /refused/);
  assert.match(asked[1], /refused/, "that the first was wrong is said");
  assert.deepEqual(await getJson("/corella/run?since=0"), { log: [] });
});

test("line breaks are those of a text box, wherever they come from", async () => {
  const { tokenReader } = await module("read_tokens.js");
  const drawn = (text, ...others) => ({ id: 5, bytes: [...new TextEncoder().encode(text)], logprob: -1, top_logprobs: others.map((token, id) => ({ id, token, logprob: -1 })) });
  const read = tokenReader();
  const pieces = ["one\r", "\ntwo\r", "three\r\n", "\n", "four"].flatMap((text) => read({ completion_probabilities: [drawn(text, "a\rb")] }));
  assert.equal(pieces.map((t) => t.text).join(""), "one\ntwo\nthree\n\nfour");
  assert.equal(pieces[0].top[0].text, "a\nb");
  assert.equal(tokenReader()({ text: "a\r\nb" })[0].text, "a\nb");
  assert.equal(state.textOf(state.editText(state.emptyDocument("a\rb"), "a\r\nb\rc")), "a\nb\nc");
  const file = { format: "corella-tree-1", leaf: 1, nodes: [{ id: 0, parent: null, by: "you", text: "a\r\n" }, { id: 1, parent: 0, by: "model", text: "b\r\nc", tokens: [{ id: 1, text: "b\r" }, { id: 2, text: "\nc" }] }] };
  const { doc } = treeFile.importDocument(JSON.stringify(file));
  assert.deepEqual([state.textOf(doc), doc.nodes[1].tokens.map((t) => t.text)], ["a\nb\nc", ["b\n", "c"]]);
});

test("a part of a character is shown by its bytes and marked", async () => {
  const { tokenReader } = await module("read_tokens.js");
  const top = [{ id: 1, token: "\ufffd", bytes: [0xe6], logprob: -1 }, { id: 2, token: "日", bytes: [0xe6, 0x97, 0xa5], logprob: -2 }];
  const [token] = tokenReader()({ completion_probabilities: [{ id: 2, bytes: [0xe6, 0x97, 0xa5], logprob: -2, top_logprobs: top }] });
  assert.deepEqual(token.top, [{ id: 1, text: "\\xE6", logprob: -1, part: true }, { id: 2, text: "日", logprob: -2 }]);
  const lists = { tokens: ["a"], token_logprobs: [-1], top_logprobs: [{ "bytes:\\xe6": -1 }] };
  assert.deepEqual(tokenReader()({ text: "a", logprobs: lists })[0].top, [{ id: null, text: "\\xe6", logprob: -1, part: true }]);
});

test("how a text ended is said: full contexts, several models, errors", async () => {
  const { ending } = await module("ending.js");
  const asked = [{ model: "own", request: { max_tokens: 128 } }];
  const value = (finish, room) => ({ status: "fulfilled", value: { finish, room, seed: 7, speed: 100 } });
  const of = (results, of = asked) => ending({ asked: of, results, count: 4, seconds: 1, wait: 2 });
  assert.match(of([value(["length"], 4)])[0], /^4 tokens .* ended: the context is full · seed 7$/);
  assert.match(of([value(["length"], 128)])[0], /ended: the number of tokens asked for/);
  assert.match(of([value(["stop"], 4)])[0], /ended: a stop string or the end of a document/);
  const failed = { status: "rejected", reason: Object.assign(new Error("It does not fit."), { retryAfter: "3" }) };
  assert.deepEqual(of([failed]), ["It does not fit. Try again in 3 s.", true]);
  assert.deepEqual(of([failed, value(["length"], 128)], [...asked, { model: "twin", request: { max_tokens: 128 } }]), ["own: It does not fit. Try again in 3 s.", true]);
  assert.equal(of([{ status: "rejected", reason: new DOMException("", "AbortError") }])[1], false);
});

test("an answer that breaks off is told from one that ends", async (t) => {
  const { complete } = await module("api.js");
  const before = globalThis.fetch;
  Object.defineProperty(globalThis, "sessionStorage", { value: { getItem: () => null }, configurable: true });
  t.after(() => {
    globalThis.fetch = before;
    delete globalThis.sessionStorage;
  });
  const line = (text) => `data: ${JSON.stringify({ choices: [{ index: 0, text }], corella: { max_tokens: 4 } })}\n\n`;
  const sent = [];
  const answers = (...parts) => (globalThis.fetch = async (path, init) => {
    sent.push(init.body);
    return new Response(new ReadableStream({ start: (c) => (c.enqueue(new TextEncoder().encode(line("a"))), parts.forEach((part) => (part === null ? c.error(new TypeError("network error")) : c.enqueue(new TextEncoder().encode(part)))), parts.includes(null) || c.close()) }));
  });
  answers("data: [DONE]\n\n");
  assert.equal((await complete("x\ud83d", {}, () => {})).room, 4);
  assert.equal(JSON.parse(sent[0]).prompt, "x\ufffd", "half a character cannot be sent");
  for (const parts of [[], [null]]) {
    answers(...parts);
    await assert.rejects(complete("x", {}, () => {}), { status: 0, message: /broke off; the text so far stays/ });
  }
});

test("a typing step leaves one cut in the tree, however often the key is pressed", () => {
  const past = history(written("A", " big", " dog", " sat", " down"), () => {});
  for (let length = "A big dog sat down".length - 1; length >= 5; length--) past.commit(state.editText(past.from("typing"), "A big dog sat down".slice(0, length)), "typing");
  assert.equal(state.textOf(past.document), "A big");
  assert.deepEqual(shape(past.document).map(([, , text]) => text), ["A", " big", " dog sat down"]);
  past.commit(state.editText(past.from("typing"), "A big cat"), "typing");
  assert.deepEqual(shape(past.document).map(([, , text]) => text), ["A", " big ", "dog sat down", "cat"]);
  past.amend(past.document);
  past.commit(state.editText(past.from("typing"), "A big ca"), "typing");
  assert.equal(state.textOf(past.document), "A big ca");
});

test("what the model wrote behind a change goes along with its tokens", () => {
  const before = written("Onse upon", " a", " time", ".");
  const doc = state.editText(before, "Once upon a time.");
  assert.equal(state.textOf(doc), "Once upon a time.");
  const last = doc.nodes[doc.leaf];
  assert.deepEqual([last.by, last.moved, last.tokens.map((t) => t.text)], ["model", true, [" a", " time", "."]]);
  assert.ok(Object.values(doc.nodes).some((n) => state.textOf(doc, n.id) === "Onse upon a time."), "what stood there stays");
  const inside = state.editText(before, "Onse upon a long time.");
  assert.deepEqual(inside.nodes[inside.leaf].tokens.map((t) => t.text), [" time", "."]);
  const gone = state.editText(before, "Onse time.");
  assert.deepEqual([state.textOf(gone), gone.nodes[gone.leaf].moved], ["Onse time.", true]);
  const other = state.editText(before, "Nothing of it.");
  assert.equal(other.nodes[other.leaf].by, "you", "a full stop alone is no text of the model's");
});

test("what was undone stays as a branch when other text is written in its place", () => {
  const doc = state.emptyDocument("A");
  const first = state.appendTokens(state.addNode(doc, 0, { by: "model", tokens: [] }), 1, [token(" b")]);
  const kept = state.withUndone(doc, [first]);
  assert.deepEqual([state.textOf(kept), state.childrenOf(kept, 0).map((n) => n.text)], ["A", [" b"]]);
  assert.equal(state.withUndone(state.emptyDocument("B"), [first]).nodes[1], undefined, "of another text it is no branch");
});

test("a long chain and many samples are read in one pass", () => {
  let doc = state.emptyDocument("A");
  for (let i = 0; i < 20_000; i++) doc.nodes[i + 1] = { id: i + 1, parent: i, by: "you", text: "x", tokens: null, bookmark: false };
  doc = { ...doc, next: 20_001, leaf: 20_000 };
  assert.equal(state.newestLeaf(doc, 0), 20_000);
  assert.equal(Object.keys(state.prune(doc, 1).nodes).length, 1);
  const texts = Array.from({ length: 40 }, (_, i) => Array.from({ length: 300 }, (_, k) => "w" + ((k * (i + 3)) % 11)).join(" "));
  assert.equal(diff.compare(texts).length, 40);
});

test("keys are found by what they write, on a Mac by where they lie", async () => {
  const { commandOf } = await module("keys.js");
  const press = (key, code, held = [], mac = false) => commandOf({ key, code, ...Object.fromEntries(held.map((name) => [name + "Key", true])) }, mac);
  assert.equal(press(".", "Period", ["alt"]), "alternatives");
  assert.equal(press("b", "KeyN", ["alt"]), "bookmark", "another layout");
  assert.equal(press("&", "Digit1", ["alt"]), "panel 1");
  assert.equal(press("{", "Digit7", ["alt", "ctrl"]), null, "AltGr writes");
  assert.equal(press("≥", "Period", ["alt", "ctrl"], true), "alternatives");
  assert.equal(press("≥", "Period", ["alt"], true), null, "Option writes");
  assert.equal(press("ArrowLeft", "ArrowLeft", ["alt"], true), null, "Option moves by words");
  assert.equal(press("ArrowLeft", "ArrowLeft", ["alt", "ctrl"], true), "previous");
  assert.equal(press("Enter", "Enter", ["meta"], true), "continue");
  assert.equal(press("Enter", "Enter", ["ctrl", "shift"]), "here");
  assert.equal(press("Enter", "Enter", ["alt"]), "again");
  assert.equal(press("Z", "KeyZ", ["ctrl", "shift"]), "redo");
  assert.equal(press("a", "KeyA"), null);
});

test("a transcript is taken apart and goes on by turns", async () => {
  const { transcriptOf } = await module("panel_demos.js");
  const parts = transcriptOf({ stop: "\\nHuman:", prompt: "A helpful one.\nHuman: Hi\nAssistant: Hello\nHuman: {}\nAssistant:" });
  assert.equal(parts.description, "A helpful one.");
  assert.equal(parts.whole("$& $$?"), "A helpful one.\nHuman: Hi\nAssistant: Hello\nHuman: $& $$?\nAssistant:");
  assert.equal(parts.behind(parts.description, "$'?"), "A helpful one.\nHuman: $'?\nAssistant:");
});

const GPT2 = { family: "gpt2", config: { n_layer: 12, n_head: 12, head_size: 64, n_embd: 768, n_ff: 3072, context: 1024, vocab_size: 50257, tied: true } };
const LLAMA = { family: "llama", config: { n_layer: 32, n_head: 32, n_kv_head: 8, head_size: 128, n_embd: 4096, n_ff: 14336, context: 131072, vocab_size: 128256, rope_theta: 500000, tied: false } };
/** The sizes of a shape without the marks between thousands, which differ by the reader's language. */
const plain = (text) => text.replace(/(?<=\d)\D(?=\d{3})/g, "");

test("the steps of a GPT-2 and of a Llama are those that its family computes, with its sizes", () => {
  const shapes = (model) => Object.values(steps(model)).map((list) => list.map((step) => plain(step.shape)));
  assert.deepEqual(shapes(GPT2), [
    ["(B, T)", "(B, T, 768)"],
    ["(B, T, 768)", "(B, T, 2304)", "(B, 12, T, T)", "(B, T, 768)", "(B, T, 768)", "(B, T, 768)", "(B, T, 3072)", "(B, T, 3072)", "(B, T, 768)"],
    ["(B, T, 768)", "(B, T, 50257)", "(B, T, 50257)"],
  ]);
  assert.deepEqual(shapes(LLAMA), [
    ["(B, T)", "(B, T, 4096)"],
    ["(B, T, 4096)", "(B, T, 4096 + 2 · 1024)", "(B, T, 4096 + 1024)", "(B, 32, T, T)", "(B, T, 4096)", "(B, T, 4096)", "(B, T, 4096)", "(B, T, 2 · 14336)", "(B, T, 14336)", "(B, T, 4096)"],
    ["(B, T, 4096)", "(B, T, 128256)", "(B, T, 128256)"],
  ]);
  const said = (model) => plain(JSON.stringify(steps(model)));
  for (const part of ["LayerNorm", "wpe", "GELU", "12 heads of 64", "√64", "each row of wte again"]) assert.ok(said(GPT2).includes(part), part);
  for (const part of ["RMSNorm", "Rotary", "base 500000", "8 of keys and values, each for 4 of queries", "SwiGLU", "each row of the head"]) assert.ok(said(LLAMA).includes(part), part);
  assert.ok(!said(LLAMA).includes("LayerNorm") && !said(GPT2).includes("RMSNorm"));
});

test("sizes and shares of a model are written as inspect writes them", () => {
  assert.deepEqual([999, 1000, 990_208, 497_759_232, 811_706_777_600, 66e12].map(words.bytes), ["999 bytes", "1.0 kB", "990.2 kB", "497.8 MB", "811.71 GB", "66.0 TB"]);
  assert.deepEqual([words.share(1, 3), words.share(1, 400), words.share(1, 1e6), words.share(0, 5), words.share(5, 5)], ["33.3 %", "0.25 %", "< 0.01 %", "0.00 %", "100.0 %"]);
  const llama = { ...LLAMA, parameters: 8_030_261_248, parameter_bytes: 4_912_897_280, bits_per_parameter: 4.8943, formats: [{ dtype: "Q4_K" }, { dtype: "Q6_K" }] };
  assert.deepEqual(words.sizes(llama).map(([name, value]) => `${plain(value)} ${name}`), [
    "8030261248 parameters", "32 layers", "32 heads of 128, 8 of keys and values", "4096 width", "131072 tokens of context", "128256 tokens of vocabulary",
    "Q4_K, Q6_K number formats", "4.91 GB 4.89 bits a number",
  ]);
  assert.equal(words.lead({ family: "gpt2", kind: "base", code_lines: 215, parameter_bytes: 497_759_232 }), " is a base GPT-2 model: 215 lines of code and 497.8 MB of numbers.");
  assert.match(words.lead({ family: "llama", kind: "instruct", code_lines: 208, parameter_bytes: 1e9 }), /^ is an instruct Llama model/);
});

test("the zip is told where the text is known, and else only what can be kept", () => {
  const model = { parameter_bytes: 811_706_777_600, capacity_bytes: 182_634_024_960, bits_kept: 3.6, corpus: { bytes: 66e12, source: "as published", comparison: ["1 to 81.3", "most is blurred"] } };
  assert.deepEqual(words.zip(model), ["66.0 TB of text (as published); 1 to 81.3; most is blurred.", "About 182.63 GB can be learnt by heart, at 3.6 bits per parameter (arXiv 2505.24832)."]);
  assert.deepEqual(words.zipBars(model), [["the text", 66e12], ["the numbers", 811_706_777_600], ["capacity", 182_634_024_960]]);
  const [capacity, unknown] = words.zip({ ...model, corpus: null });
  assert.ok(capacity.includes("182.63 GB") && unknown.includes("not known"));
  assert.equal(words.zipBars({ ...model, corpus: null }).length, 2);
});

test("the stack has every tensor once, folds the middle of many layers, and a shared head is not counted", () => {
  const layers = (n) => Array.from({ length: n }, () => ({ parameters: 10, parts: [{ part: "attention", parameters: 10 }] }));
  const tensor = (layer, role, part, parameters) => ({ layer, role, part, parameters });
  const model = (n, tied) => ({ layers: layers(n), config: { tied }, tensors: [tensor(null, "token_embedding", "embedding", 30), tensor(null, "position_embedding", "embedding", 4),
    ...layers(n).flatMap((_, i) => [tensor(i, "qkv", "attention", 7), tensor(i, "attention_output", "attention", 3)]), tensor(null, "final_norm", "norm", 2),
    ...(tied ? [] : [tensor(null, "head", "head", 30)])] });
  const names = (rows) => rows.map((row) => row.name.replace(/:.*/, ""));
  const all = (rows) => rows.flatMap((row) => (row.folded ? all(row.folded) : row.tensors));
  const small = stack(model(2, true));
  assert.deepEqual(names(small), ["Embedding", "Layer 0", "Layer 1", "Final norm", "Head"]);
  assert.deepEqual(small.map((row) => row.parameters), [34, 10, 10, 2, 30]);
  assert.deepEqual(small.map((row) => row.shared ?? false), [false, false, false, false, true]);
  assert.equal(stack(model(16, true)).length, 16 + 3);
  const large = stack(model(126, false));
  assert.deepEqual(names(large), ["Embedding", "Layer 0", "Layer 1", "Layer 2", "Layers 3 to 124", "Layer 125", "Final norm", "Head"]);
  assert.match(plain(large[4].name), /: 122 more, 1220 numbers$/);
  for (const n of [2, 126]) assert.deepEqual(all(stack(model(n, n > 16))), model(n, n > 16).tensors);
  assert.deepEqual(large.at(-1).tensors.map((own) => own.role), ["head"]);
});
