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
const filters = await module("filters.js");
const diff = await module("diff.js");
const overlap = await module("overlap.js");
const { history } = await module("history.js");
const { askForKey, events, getJson } = await module("api.js");
const { figures } = await module("figures.js");
const { merged, places, timeline } = await module("timeline.js");
const { pages } = await module("pages.js");
const { niceTicks } = await module("chart.js");

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
  const imported = state.importDocument(state.exportDocument(doc, { ...about, model: "m" }));
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
    assert.throws(() => state.importDocument(text), /\.$/, text);
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
  const r = overlap.recited(reference, "quick brown", " fox jumps under");
  assert.equal(r.same, " fox jumps ".length);
  assert.equal(overlap.recited(reference, "no such prompt", "x"), null);
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

/** A place over a map, as storage.js has it over a database that opens when `open()` is called. */
function storedIn(database, waiting = new Map()) {
  let open;
  const opened = new Promise((done) => (open = done));
  const kept = {
    waiting: (key) => waiting.get(key) ?? null,
    load: async (key) => (waiting.has(key) ? waiting.get(key) : (await opened, database.get(key) ?? null)),
    save: (key, value) => waiting.set(key, value),
    remove: (key) => waiting.set(key, null),
    release: () => waiting.forEach((value, key) => (value === null ? database.delete(key) : database.set(key, value))),
  };
  return { kept, open, waiting };
}

test("pages that were begun before the database opened join those it holds, over any number of reloads", async () => {
  const database = new Map([["list", { list: [{ key: "page", name: "Old", tags: [], begins: "Once" }], open: "page" }], ["page", "Once upon"]]);
  let waiting = new Map();
  for (const [i, text] of ["A", "B", "C"].entries()) {
    const shelf = pages(storedIn(database, waiting).kept);
    assert.equal(shelf.left, i === 0 ? null : waiting.get(shelf.open.key), "what was begun is there at once");
    shelf.load();
    if (i > 0) shelf.add();
    shelf.save(text, text);
    shelf.describe({ tags: [text] });
  }
  assert.deepEqual([...database.keys()], ["list", "page"], "nothing is written over what has not been read");
  const place = storedIn(database, waiting);
  const shelf = pages(place.kept);
  assert.equal(shelf.left, "C");
  const loading = shelf.load();
  place.open();
  assert.equal(await loading, null, "what was begun stays open");
  assert.deepEqual(shelf.list.map((page) => [page.name, page.begins, page.tags.join()]), [["Old", "Once", ""], ["", "A", "A"], ["", "B", "B"], ["", "C", "C"]]);
  assert.deepEqual(shelf.list.map((page) => database.get(page.key)), ["Once upon", "A", "B", "C"]);
  assert.equal(database.get("list").open, shelf.open.key);
  assert.ok(!database.has("early"));
});

test("a reader who has begun nothing gets the page that was open, and an unused page makes room for one that was begun", async () => {
  const list = [{ key: "page", name: "", tags: [], begins: "Once" }, { key: "page 2", name: "", tags: [], begins: "" }];
  const first = storedIn(new Map([["list", { list, open: "page" }], ["page", "Once upon"]]));
  first.open();
  const shelf = pages(first.kept);
  assert.equal(await shelf.load(), "Once upon");
  assert.equal(shelf.open.key, "page");
  const second = storedIn(new Map([["list", { list, open: "page 2" }], ["page", "Once upon"]]));
  const other = pages(second.kept);
  const loading = other.load();
  other.save("New", "New");
  second.open();
  await loading;
  assert.deepEqual(other.list.map((page) => page.begins), ["Once", "New"]);
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
  globalThis.prompt = () => "secret";
  assert.equal(askForKey(), true);
  assert.deepEqual(await getJson("/corella/run?since=0"), { log: [] });
});
