// The playground: wires the document, the text box, the server and the panels together.

import * as api from "./api.js";
import { card } from "./card.js";
import { byId, el } from "./dom.js";
import { editor } from "./editor.js";
import { history } from "./history.js";
import { pages } from "./pages.js";
import { drawDemos } from "./panel_demos.js";
import { drawNext } from "./panel_next.js";
import { sourcePanel } from "./panel_source.js";
import { drawTokens } from "./panel_tokens.js";
import { drawTree, landing } from "./panel_tree.js";
import { sampling } from "./sampling.js";
import * as state from "./state.js";
import { place, settings } from "./storage.js";
import { setUpTheme } from "./theme.js";
import { drawUniverses } from "./universes.js";

/** The choice of all models, side by side. */
const ALL = "*";
const PANELS = ["demos", "next", "tree", "tokens", "source", "settings"];

const view = settings.read("view", { colour: "none", panel: "demos", model: "" });
const shelf = pages(place((message) => say(message, true)));
const params = sampling({
  onChange: () => { fillControls(); if (view.panel === "next") drawPanel(); },
  text: () => state.textOf(past.document),
  onText: (text) => running === null && past.commit(state.editText(past.document, text)),
});
const past = history(state.emptyDocument(), changed);
const box = editor({
  onEdit: (text) => past.commit(state.editText(past.document, text), "typing"),
  onMove: (x, y) => alternatives.hover(x, y),
  onTap: (x, y) => alternatives.tap(x, y),
  onLeave: () => alternatives.leave(),
});
const alternatives = card({ placeAt: box.placeAtPoint, onTake: takeAlternative, onClose: () => box.mark(null) });
const source = sourcePanel(byId("panel-source"), {
  onSpans: (found) => { spans = found; box.draw(past.document, view.colour, spans); },
  text: () => state.textOf(past.document),
  lastPromptAndAnswer,
  trace: async (text) => {
    const found = await api.postJson("/corella/trace", { text });
    return found.spans ? found : null;
  },
});

let model = null;
let peers = [];
let demos = null;
let spans = [];
let running = null;
let distribution = { text: null, top: null, error: null };
let tokens = { text: null, list: null, error: null };
let rested = null;
let lookUp = null;

// ---- drawing -------------------------------------------------------------------------------------------------------

function changed(doc) {
  shelf.save(doc, state.textOf(doc).trim().slice(0, 60));
  // What the reader does is there at once, so that the next key never meets an older text.
  if (running === null) draw();
  else drawInFrame();
}

let drawing = false;
/** At most one drawing per frame, however fast tokens come. */
function drawInFrame() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const doc = past.document;
  box.draw(doc, view.colour, spans);
  byId("undo").disabled = !past.canUndo || running !== null;
  byId("redo").disabled = !past.canRedo || running !== null;
  const path = state.pathTo(doc);
  const forks = path.filter((n) => state.childrenOf(doc, n.id).filter((c) => c.by === "model").length > 1);
  const fork = forks.length ? forks[forks.length - 1].id : null;
  drawUniverses(byId("universes"), doc, fork, new Set(path.map((n) => n.id)), treeActions);
  if (running === null) afterText();
  if (view.panel === "tree" || view.panel === "next") drawPanel();
}

function drawPanel() {
  const panel = byId("panel-" + view.panel);
  const doc = past.document;
  switch (view.panel) {
    case "demos": return drawDemos(panel, demos, model, { run: runDemo, complete: api.complete });
    case "next": return drawNext(panel, distribution.top, params, { onTake: appendToken, onRefresh: () => lookAhead(true), error: distribution.error, behind: textToCursor() });
    case "tree": return drawTree(panel, doc, shelf, treeActions);
    case "tokens": return drawTokens(panel, doc, tokens.list, model?.context, tokens.error);
    case "source": return source.draw();
    default: return params.draw(panel);
  }
}

function showPanel(name) {
  view.panel = name;
  settings.write("view", view);
  for (const other of PANELS) {
    const on = other === name;
    byId("panel-" + other).hidden = !on;
    byId("tab-" + other).setAttribute("aria-selected", String(on));
    byId("tab-" + other).tabIndex = on ? 0 : -1;
  }
  drawPanel();
  if (name === "next" && running === null) lookAhead(false);
  if (name === "tokens") afterText();
}

/** `message`: a sentence, or what to put in its place. */
function say(message, error = false) {
  const status = byId("status");
  status.replaceChildren(...[message].flat());
  status.classList.toggle("error", error);
}

let untilModel = "";
/** Says what holds only as long as there is no model. */
function sayUntilModel(message, error = false) {
  say(message, error);
  untilModel = byId("status").textContent;
}

function fillControls() {
  for (const [id, key] of [["max-tokens", "maxTokens"], ["samples", "samples"]]) {
    if (document.activeElement !== byId(id)) byId(id).value = params.values[key];
  }
}

function showContext(count) {
  const context = model?.context ?? 0;
  byId("meter-text").textContent = context ? `${count.toLocaleString()} / ${context.toLocaleString()} tokens` : "";
  byId("meter-fill").style.width = context ? Math.min(100, (100 * count) / context) + "%" : "0";
  byId("meter").classList.toggle("full", context > 0 && count >= context * 0.9);
  byId("meter").setAttribute("aria-valuenow", String(count));
  byId("meter").setAttribute("aria-valuemax", String(context));
}

// ---- what is looked up about the text -------------------------------------------------------------------------------

let pause = null;
/** Counts the tokens once the text has rested. */
function afterText() {
  const text = state.textOf(past.document);
  if (!model) return;
  if (rested !== text) {
    rested = text;
    source.textChanged();
  }
  clearTimeout(pause);
  if (tokens.text === text) return;
  pause = setTimeout(async () => {
    const found = await api.tokenize(text).then((list) => ({ text, list, error: null }), (error) => ({ text, list: null, error: error.message }));
    // The reader may have gone on while the server answered.
    if (text !== state.textOf(past.document)) return;
    tokens = found;
    if (tokens.list) {
      showContext(tokens.list.length);
      warnAboutSpace(text);
    }
    if (view.panel === "tokens") drawPanel();
    if (view.panel === "next") lookAhead(false);
  }, 250);
}

/** The text in front of the cursor: all of it where the cursor is at the end. */
const textToCursor = () => state.textOf(past.document).slice(0, box.cursor());

/** A space that the reader typed at the end usually becomes a token that the model has seldom seen there. */
function warnAboutSpace(text) {
  if (running !== null || params.values.heal || !/[^\s] $/.test(text)) return;
  if (past.document.nodes[past.document.leaf].by === "model") return;
  const heal = () => {
    params.set({ heal: true });
    if (view.panel === "settings") drawPanel();
    say("Healing is on: the last token is drawn again, so that the word can carry its space. ‘Sampling’ turns it off.");
  };
  say(["The text ends with a space: most words carry their space in front, so the model may go on oddly. Remove it, or ",
    el("button", { type: "button", className: "small", onclick: heal }, "heal the end")]);
}

async function lookAhead(force) {
  const text = textToCursor();
  if (!model || running !== null || (!force && distribution.text === text)) return;
  lookUp?.abort();
  lookUp = new AbortController();
  distribution = { text, top: distribution.top, error: null };
  try {
    let top = null;
    await api.complete(text, { max_tokens: 1, temperature: 0, n_probs: 40, ignore_eos: true }, (_, found) => { top ??= found[0].top; }, lookUp.signal);
    distribution = { text, top, error: null };
  } catch (error) {
    if (error.name === "AbortError") return;
    distribution = { text: null, top: null, error: error.message };
  }
  if (view.panel === "next") drawPanel();
}

// ---- generating -------------------------------------------------------------------------------------------------------

/** Continues at the cursor; what stood behind it stays as a branch. */
function generateHere() {
  if (running !== null) return;
  const text = textToCursor();
  if (text !== state.textOf(past.document)) past.commit(state.editText(past.document, text));
  generate();
}

/** Continues the text of the page. Several samples become branches side by side; the first is on the page. */
async function generate() {
  if (running !== null) return;
  if (!model) return sayUntilModel("The model is not there yet: " + byId("model-name").textContent, true);
  const doc = past.document;
  const prompt = state.textOf(doc);
  const asked = asks();
  const ids = [];
  running = new AbortController();
  setRunning(true);
  past.commit(doc);
  const started = performance.now();
  let first = null;
  let count = 0;
  const sink = (model, index, found) => {
    first ??= performance.now();
    count += found.length;
    if (ids.length === 0) past.amend(withSamples(past.document, asked, ids));
    past.amend(state.appendTokens(past.document, ids[model][index], found));
    box.followEnd();
  };
  const one = async (ask, model) => {
    const { finish, seed, speed } = await api.complete(prompt, ask.request, (index, found) => sink(model, index, found), running.signal);
    const facts = (id, i) => past.document.nodes[id] && past.amend(state.changeNode(past.document, id, { finish: finish[i] ?? null, seed, sample: i }));
    ids[model]?.forEach(facts);
    return { finish, seed, speed };
  };
  const results = await Promise.allSettled(asked.map(one));
  // A sample of which nothing came is no branch.
  const empty = ids.flat().filter((id) => past.document.nodes[id]?.text === "");
  if (empty.length) past.amend(empty.reduce(state.prune, past.document));
  // Whoever reads how it ended sees the whole text.
  running = null;
  setRunning(false);
  draw();
  const failure = results.find((r) => r.status === "rejected")?.reason;
  if (failure?.name === "AbortError") say(`Stopped after ${count} tokens; the text so far stays.`);
  else if (failure) say(failure.message + (failure.retryAfter ? ` Try again in ${failure.retryAfter} s.` : ""), true);
  else {
    const seconds = (performance.now() - (first ?? started)) / 1000;
    // Several may arrive in one piece, so that the page's own clock shows too much.
    const rate = results.length === 1 && results[0].value.speed ? results[0].value.speed : count / seconds;
    const speed = count > 1 && seconds > 0 ? ` · ${rate.toFixed(0)} tokens/s · first after ${Math.round((first ?? started) - started)} ms` : "";
    const reasons = [...new Set(results.flatMap((r) => r.value.finish))].map(reason).join(", ");
    const seed = results.length === 1 && results[0].value.seed !== null ? ` · seed ${results[0].value.seed}` : "";
    say(`${count} token${count === 1 ? "" : "s"}${speed} · ended: ${reasons || "nothing to add"}${seed}`);
  }
  if (view.panel === "next") lookAhead(false);
  if (view.colour === "trace") source.ask();
}

/** What to send: one request for each model that is chosen. */
function asks() {
  const own = { model: model.id, request: params.request() };
  const others = peers.map((peer) => ({ model: peer.id, request: params.requestFor(peer) }));
  if (view.model === ALL) return [own, ...others];
  return [others.find((ask) => ask.model === view.model) ?? own];
}

/** Empty nodes for all samples at once, so that they stand in their order whichever is heard of first; `ids` gets theirs. */
function withSamples(doc, asked, ids) {
  const parent = doc.leaf;
  for (const ask of asked) {
    const own = [];
    for (let i = 0; i < ask.request.n; i++) {
      doc = state.addNode(doc, parent, { by: "model", tokens: [], sampling: ask.request, model: ask.model });
      own.push(doc.leaf);
    }
    ids.push(own);
  }
  return { ...doc, leaf: ids[0][0] };
}

const reason = (finish) => ({ length: "the number of tokens asked for", stop: "a stop string or the end of a document" })[finish] ?? finish;

function setRunning(on) {
  byId("generate").hidden = on;
  byId("here").disabled = on;
  byId("stop").hidden = !on;
  byId("text").readOnly = on;
  box.setStreaming(on);
  if (on) {
    alternatives.close();
    say("…");
  }
}

function takeAlternative(place, token) {
  if (running !== null) return;
  past.commit(state.takeAlternative(past.document, place.node, place.index, token));
  generate();
}

function appendToken(token) {
  if (running !== null) return;
  const doc = state.editText(past.document, textToCursor());
  past.commit(state.addNode(doc, doc.leaf, { by: "model", text: token.text, tokens: [{ id: token.id, text: token.text, logprob: token.logprob, entropy: null, top: distribution.top }] }));
  box.toEnd();
  lookAhead(true);
}

/** A demo begins on a branch of its own beside everything else. */
function runDemo(prompt, changes, reference) {
  if (running !== null) return say("Stop the running text first.", true);
  const { max_tokens, samples, temperature, colour, ...rest } = changes ?? {};
  params.set({ topK: 0, topP: 1, minP: 0, repetition: 1, presence: 0, frequency: 0, stop: "", ...rest,
    ...(max_tokens ? { maxTokens: max_tokens } : {}), samples: samples ?? 1, temperature: temperature ?? 1 });
  if (reference !== undefined) source.setReference(reference);
  past.commit(state.editText(past.document, prompt));
  setColour(colour ?? "none");
  generate();
}

function lastPromptAndAnswer() {
  const path = state.pathTo(past.document);
  let at = path.length;
  while (at > 0 && path[at - 1].by === "model") at--;
  const join = (nodes) => nodes.map((n) => n.text).join("");
  return { prompt: join(path.slice(0, at)), answer: join(path.slice(at)) };
}

function setColour(name) {
  view.colour = name;
  byId("colour").value = name;
  settings.write("view", view);
  draw();
}

// ---- the tree ------------------------------------------------------------------------------------------------------

const treeActions = {
  go: (id) => running === null && past.commit({ ...past.document, leaf: landing(past.document, id) }),
  bookmark: (id) => past.commit(state.changeNode(past.document, id, { bookmark: !past.document.nodes[id].bookmark })),
  prune: (id) => running === null && past.commit(state.prune(past.document, id)),
  newPage() {
    if (running !== null) return;
    shelf.add();
    past.reset(state.emptyDocument());
    box.focus();
  },
  async turnTo(key) {
    const doc = await shelf.read(key);
    // Much can have happened meanwhile.
    if (running !== null || !shelf.list.some((page) => page.key === key)) return;
    shelf.turnTo(key);
    past.reset(doc ?? state.emptyDocument());
  },
  describe(fields) {
    shelf.describe(fields);
    drawPanel();
  },
  removePage(key) {
    shelf.remove(key);
    drawPanel();
  },
  exportTree() {
    const link = document.createElement("a");
    const { name, tags } = shelf.open;
    link.href = URL.createObjectURL(new Blob([state.exportDocument(past.document, { name, tags, model: model?.id })], { type: "application/json" }));
    link.download = (name.replace(/[^\p{L}\p{N} _-]/gu, "").trim() || "corella-tree") + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  },
  async importTree(file) {
    try {
      const { doc, name, tags } = state.importDocument(await file.text());
      past.commit(doc);
      if (name || tags.length) shelf.describe({ name: name || shelf.open.name, tags: [...new Set([...shelf.open.tags, ...tags])] });
      say("Imported. Undo brings the page before it back.");
    } catch (error) {
      say(error.message, true);
    }
  },
};

// ---- keys and buttons --------------------------------------------------------------------------------------------------

function onKey(event) {
  const control = event.ctrlKey || event.metaKey;
  const inField = event.target.matches?.("input, select, textarea:not(#text)");
  if (control && event.key === "Enter") event.shiftKey ? generateHere() : generate();
  else if (event.key === "Escape") {
    if (alternatives.isOpen) {
      alternatives.close();
      box.focus();
    } else if (running) running.abort();
    else return;
  } else if (control && event.key.toLowerCase() === "z" && !inField) {
    if (running === null) event.shiftKey ? past.redo() : past.undo();
  } else if (control && event.key.toLowerCase() === "y" && !inField) {
    if (running === null) past.redo();
  } else if (event.altKey && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    if (running === null) past.commit(state.sibling(past.document, event.key === "ArrowLeft" ? -1 : 1));
  } else if (event.altKey && event.key === "ArrowUp") {
    const node = past.document.nodes[past.document.leaf];
    if (running === null && node.parent !== null) past.commit({ ...past.document, leaf: node.parent });
  } else if (event.altKey && event.key.toLowerCase() === "b") treeActions.bookmark(past.document.leaf);
  else if (event.altKey && event.key === ".") {
    const place = box.placeAtCursor();
    if (place) {
      box.mark(place);
      alternatives.open(place);
    }
  } else if (event.altKey && /^[1-6]$/.test(event.key)) {
    showPanel(PANELS[Number(event.key) - 1]);
    byId("tab-" + view.panel).focus();
  } else if (event.key === "F1") byId("keys").showModal();
  else return;
  event.preventDefault();
}

let moved = null;
/** The distribution follows the cursor once it has rested. */
function onCursor() {
  if (view.panel !== "next" || document.activeElement !== byId("text")) return;
  clearTimeout(moved);
  moved = setTimeout(() => lookAhead(false), 200);
}

function wire() {
  document.addEventListener("keydown", onKey);
  document.addEventListener("selectionchange", onCursor);
  byId("generate").addEventListener("click", generate);
  byId("here").addEventListener("click", generateHere);
  byId("stop").addEventListener("click", () => running?.abort());
  byId("undo").addEventListener("click", () => past.undo());
  byId("redo").addEventListener("click", () => past.redo());
  byId("help").addEventListener("click", () => byId("keys").showModal());
  for (const [id, key, most] of [["max-tokens", "maxTokens", 100000], ["samples", "samples", 8]]) {
    byId(id).addEventListener("change", (event) => {
      params.set({ [key]: Math.min(most, Math.max(1, Math.round(Number(event.target.value)) || 1)) });
      event.target.value = params.values[key];
    });
  }
  byId("models").addEventListener("change", (event) => {
    view.model = event.target.value;
    settings.write("view", view);
  });
  byId("colour").value = view.colour;
  byId("colour").addEventListener("change", (event) => {
    setColour(event.target.value);
    if (view.colour === "trace") source.ask();
  });
  for (const name of PANELS) byId("tab-" + name).addEventListener("click", () => showPanel(name));
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.altKey) return;
    showPanel(PANELS[(PANELS.indexOf(view.panel) + step + PANELS.length) % PANELS.length]);
    byId("tab-" + view.panel).focus();
  });
}

/** Asks for the model until the server has loaded it. */
async function connect() {
  for (;;) {
    try {
      [model, ...peers] = await api.models();
      offerModels();
      byId("model-name").textContent = `${model.id} · ${model.base === false ? "instruct model" : "base model"}`;
      byId("dot").className = "dot up";
      // All that the reader is told about the model is told now: what comes later must not take away a newer message.
      if (byId("status").textContent === untilModel) say("");
      showContext(tokens.list?.length ?? 0);
      draw();
      demos = (await api.getJson("/corella/demos")).demos;
      if (view.panel === "demos") drawPanel();
      byId("run-link").hidden = (await api.getJson("/corella/run")) === null;
      return;
    } catch (error) {
      byId("dot").className = "dot down";
      byId("model-name").textContent = error.status === 503 ? error.message : "not connected";
      if (error.status === 401) {
        if (!api.askForKey()) return;
        continue;
      }
      if (error.status === 503 && byId("run-link").hidden) await lookForRun();
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

/** The choice between the models, where there are several. */
function offerModels() {
  const names = [model.id, ...peers.map((peer) => peer.id)];
  byId("models").parentElement.hidden = peers.length === 0;
  if (view.model !== ALL && !names.includes(view.model)) view.model = model.id;
  byId("models").replaceChildren(...names.map((name) => el("option", { value: name }, name)), el("option", { value: ALL }, "all, side by side"));
  byId("models").value = view.model;
}

/** While the model is being trained there is a run to watch. */
async function lookForRun() {
  try {
    byId("run-link").hidden = (await api.getJson("/corella/run")) === null;
  } catch {
    return;
  }
  if (!byId("run-link").hidden) sayUntilModel(["The model is still being made. ", el("a", { href: "run.html" }, "Watch it live"), " — this page goes on by itself."]);
}

setUpTheme(byId("theme"));
wire();
fillControls();
showPanel(PANELS.includes(view.panel) ? view.panel : "demos");
// What was begun before, here or on the page before a reload, stays open when the database tells of the other pages.
if (shelf.left) past.amend(shelf.left);
shelf.load().then((doc) => {
  if (doc) past.amend(doc);
  if (view.panel === "tree") drawPanel();
});
connect();
