// The playground: wires the document, the text box, the server and the panels together.

import * as api from "./api.js";
import { card } from "./card.js";
import { claim } from "./claims.js";
import { connection } from "./connection.js";
import { byId, el } from "./dom.js";
import { editor } from "./editor.js";
import { generation } from "./generation.js";
import { history } from "./history.js";
import { asOnMac, commandOf, onMac } from "./keys.js";
import { pages } from "./pages.js";
import { drawDemos, stopDemos } from "./panel_demos.js";
import { drawNext } from "./panel_next.js";
import { sourcePanel } from "./panel_source.js";
import { drawTokens } from "./panel_tokens.js";
import { drawTree } from "./panel_tree.js";
import { sampling } from "./sampling.js";
import * as state from "./state.js";
import { say, saysError } from "./status.js";
import { place, settings, tabsPage } from "./storage.js";
import { setUpTheme } from "./theme.js";
import { COPY, treeActions } from "./tree_actions.js";
import { withPlainLines } from "./tree_file.js";
import { drawUniverses } from "./universes.js";

/** The choice of all models, side by side. */
const ALL = "*";
const PANELS = ["demos", "next", "tree", "tokens", "source", "settings"];

const view = settings.read("view", { colour: "none", panel: "demos", model: "" });
const shelf = pages(place((message) => say(message, true)), { claim, tab: tabsPage, onList: () => view.panel === "tree" && drawPanel() });
const params = sampling({
  onChange: () => { fillControls(); if (view.panel === "next") drawPanel(); },
  text: () => state.textOf(past.document),
  onText: (text) => writing.isFree() && past.commit(state.editText(past.document, text)),
});
const past = history(state.emptyDocument(), changed);
const box = editor({
  onEdit: (text) => past.commit(state.editText(past.from("typing"), text), "typing"),
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
    return api.postJson("/corella/trace", { text });
  },
});

const server = connection({ onModel: modelCame, onDemos: () => view.panel === "demos" && drawPanel() });
const writing = generation({ past, server, params, choice: () => view.model, all: ALL, onRunning: setRunning, onEnd: afterWriting });
const branches = treeActions({ past, shelf, isFree: writing.isFree, redraw: drawPanel, focus: box.focus, modelName: () => server.model?.id });

let spans = [];
let distribution = { text: null, top: null, error: null };
let tokens = { text: null, list: null, scores: null, error: null };
let rested = null;
let lookUp = null;

// ---- drawing -------------------------------------------------------------------------------------------------------

function changed(doc) {
  shelf.save(doc, state.textOf(doc).trim().slice(0, 60));
  // What the reader does is there at once, so that the next key never meets an older text.
  if (writing.isRunning) drawInFrame();
  else draw();
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

/** `isWritten`: whether the model has written what is new. */
function draw(isWritten = writing.isRunning) {
  const doc = past.document;
  // Text that streams in is followed where its end was in sight before.
  const follow = isWritten && box.showsEnd();
  box.draw(doc, view.colour, spans);
  if (follow) box.showEnd();
  byId("undo").disabled = !past.canUndo || writing.isRunning;
  byId("redo").disabled = !past.canRedo || writing.isRunning;
  byId("again").disabled = writing.isRunning || doc.nodes[doc.leaf].by !== "model";
  const path = state.pathTo(doc);
  const fork = path.findLast((n) => state.childrenOf(doc, n.id).filter((c) => c.by === "model").length > 1)?.id ?? null;
  drawUniverses(byId("universes"), doc, fork, new Set(path.map((n) => n.id)), branches, writing.isRunning);
  if (writing.isRunning) showContext();
  else afterText();
  if (view.panel === "tree" || view.panel === "next") drawPanel();
}

function drawPanel() {
  const panel = byId("panel-" + view.panel);
  const doc = past.document;
  switch (view.panel) {
    case "demos": return drawDemos(panel, server.demos, server.model, { run: runDemo, complete: api.complete, text: () => state.textOf(past.document) });
    case "next": return drawNext(panel, distribution.top, params, { onTake: appendToken, onRefresh: () => lookAhead(true), error: distribution.error, behind: textToCursor() });
    case "tree": return drawTree(panel, doc, shelf, branches);
    case "tokens": return drawTokens(panel, doc, { tokens: tokens.list, scores: tokens.scores, context: server.model?.context, error: tokens.error, onScore: scoreText });
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
  if (name === "next") lookAhead(false);
  if (name === "tokens") afterText();
}

function fillControls() {
  for (const [id, key] of [["max-tokens", "maxTokens"], ["samples", "samples"]]) {
    if (document.activeElement !== byId(id)) byId(id).value = params.values[key];
  }
}

/** How much of the context the page takes; of another server's model that is not known. */
function showContext() {
  const isPeer = server.peers.some((peer) => peer.id === view.model);
  const context = isPeer ? 0 : server.model?.context ?? 0;
  const { prompt, count: written } = writing.behind;
  const count = (tokens.list?.length ?? 0) + (writing.isRunning && prompt === tokens.text ? written : 0);
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
  if (!server.model) return;
  if (rested !== text) {
    rested = text;
    source.textChanged();
  }
  clearTimeout(pause);
  if (tokens.text === text && tokens.byName === state.hasSpecial(past.document)) return;
  pause = setTimeout(() => count(text), 250);
}

/** Asks for the tokens of a text that stands on the page. */
async function count(text) {
  // The same text can hold a special token's name that was typed, or the token.
  const byName = state.hasSpecial(past.document);
  const found = await api.tokenize(text, byName).then((list) => ({ text, byName, list, scores: null, error: null }), (error) => {
    server.failed(error);
    return { text, byName, list: null, scores: null, error: error.message };
  });
  // The reader may have gone on while the server answered, or the model.
  if (text !== (writing.isRunning ? writing.behind.prompt : state.textOf(past.document))) return;
  tokens = found;
  if (tokens.list) {
    showContext();
    warnAboutSpace(text);
  }
  if (view.panel === "tokens") drawPanel();
  if (view.panel === "next") lookAhead(false);
}

/** Asks what the model makes of each token of the page. */
async function scoreText() {
  const { text } = tokens;
  const found = await api.score(text, state.hasSpecial(past.document)).then((scores) => ({ scores, error: null }), (error) => {
    server.failed(error);
    return { scores: null, error: error.message };
  });
  if (tokens.text !== text) return;
  tokens = { ...tokens, ...found };
  if (view.panel === "tokens") drawPanel();
}

/** The text in front of the cursor, all of it where the cursor is at the end; never half a character. */
const textToCursor = () => state.textOf(past.document).slice(0, box.cursor()).replace(/[\ud800-\udbff]$/, "");

/** A space that the reader typed at the end usually becomes a token that the model has seldom seen there. */
function warnAboutSpace(text) {
  if (writing.isRunning || saysError() || params.values.heal || !/[^\s] $/.test(text)) return;
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
  const byName = state.hasSpecial(past.document, text.length);
  if (!server.model || writing.isRunning || (!force && distribution.text === text && distribution.byName === byName)) return;
  lookUp?.abort();
  lookUp = new AbortController();
  distribution = { text, byName, top: distribution.top, error: null };
  try {
    let top = null;
    await api.complete(text, { max_tokens: 1, temperature: 0, n_probs: 40, ignore_eos: true, ...api.byName(byName) }, (_, found) => { top ??= found[0].top; }, lookUp.signal);
    distribution = { text, byName, top, error: null };
  } catch (error) {
    if (error.name === "AbortError") return;
    server.failed(error);
    distribution = { text: null, top: null, error: error.message };
  }
  if (view.panel === "next") drawPanel();
}

// ---- generating -------------------------------------------------------------------------------------------------------

/** Continues at the cursor; what stood behind it stays as a branch. */
function generateHere() {
  if (!writing.isFree()) return;
  const text = textToCursor();
  if (text !== state.textOf(past.document)) past.commit(state.editText(past.document, text));
  writing.generate();
}

/** The button that began the text, while it has the focus no more. */
let begunBy = null;

function setRunning(on) {
  const starters = ["generate", "here", "again"].map(byId);
  const wasOnStop = document.activeElement === byId("stop");
  if (on) begunBy = starters.find((button) => button === document.activeElement) ?? null;
  byId("generate").hidden = on;
  byId("here").disabled = on;
  byId("stop").hidden = !on;
  byId("text").readOnly = on;
  box.setStreaming(on);
  if (on) {
    clearTimeout(pause);
    if (tokens.text !== writing.behind.prompt) count(writing.behind.prompt);
    alternatives.close();
    say("…");
    if (begunBy) byId("stop").focus();
  }
  draw(true);
  // Whoever works with the keys stays where they were.
  if (!on && wasOnStop) (begunBy ?? byId("generate")).focus();
}

function afterWriting() {
  if (view.panel === "next") lookAhead(false);
  if (view.colour === "trace") source.ask();
}

function takeAlternative(place, token) {
  if (!writing.isFree()) return;
  past.commit(state.takeAlternative(past.document, place.node, place.index, token));
  writing.generate();
}

function appendToken(token) {
  if (!writing.isFree()) return;
  const doc = state.editText(past.document, textToCursor());
  past.commit(state.addNode(doc, doc.leaf, { by: "model", text: token.text, tokens: [{ id: token.id, text: token.text, logprob: token.logprob, entropy: null, top: distribution.top }] }));
  box.toEnd();
  lookAhead(true);
}

/** A demo begins on a branch of its own beside everything else. Its settings hold for it alone. */
function runDemo(prompt, changes, reference) {
  if (!writing.isFree()) return;
  const { max_tokens, samples, temperature, colour, ...rest } = changes ?? {};
  const own = { topK: 0, topP: 1, minP: 0, repetition: 1, presence: 0, frequency: 0, stop: "", ...rest,
    ...(max_tokens ? { maxTokens: max_tokens } : {}), samples: samples ?? 1, temperature: temperature ?? 1 };
  if (reference !== undefined) source.setReference(reference);
  past.commit(state.editText(past.document, prompt));
  setColour(colour ?? "none");
  writing.generate(past.document, own);
}

function lastPromptAndAnswer() {
  const path = state.pathTo(past.document);
  let at = path.length;
  while (at > 0 && path[at - 1].by === "model") at--;
  const join = (nodes) => nodes.map((n) => n.text).join("");
  return { prompt: join(path.slice(0, at)), answer: join(path.slice(at)), tokens: path.slice(at).flatMap((n) => n.tokens) };
}

function setColour(name) {
  view.colour = name;
  byId("colour").value = name;
  settings.write("view", view);
  draw();
}

// ---- keys and buttons --------------------------------------------------------------------------------------------------

const COMMANDS = {
  continue: () => writing.generate(),
  here: generateHere,
  again: () => writing.isFree() && writing.again(),
  stop() {
    if (alternatives.isOpen) {
      alternatives.close();
      box.focus();
    } else return writing.stop() || stopDemos();
  },
  undo: () => writing.isRunning || past.undo(),
  redo: () => writing.isRunning || past.redo(),
  previous: () => branches.sibling(-1),
  next: () => branches.sibling(1),
  up: () => branches.up(),
  bookmark: () => branches.bookmark(past.document.leaf),
  alternatives() {
    const place = box.placeAtCursor();
    if (!place) return;
    box.mark(place);
    alternatives.open(place);
  },
  help: () => byId("keys").showModal(),
};

function onKey(event) {
  // A dialog that is open has its own keys.
  if (byId("keys").open) return;
  const command = commandOf(event, onMac());
  const inField = event.target.matches?.("input, select, textarea:not(#text)");
  if (command === null || ((command === "undo" || command === "redo") && inField)) return;
  if (command.startsWith("panel ")) {
    showPanel(PANELS[Number(command.slice(6)) - 1]);
    byId("tab-" + view.panel).focus();
  } else if (COMMANDS[command]() === false && command === "stop") return;
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
  for (const [id, command] of [["generate", "continue"], ["here", "here"], ["again", "again"], ["undo", "undo"], ["redo", "redo"], ["help", "help"]]) {
    byId(id).addEventListener("click", () => COMMANDS[command]());
  }
  byId("stop").addEventListener("click", () => writing.stop());
  if (onMac()) {
    for (const element of document.querySelectorAll("kbd, .bar [title], .controls [title]")) {
      if (element.localName === "kbd") element.textContent = asOnMac(element.textContent);
      else element.title = asOnMac(element.title);
    }
  }
  for (const [id, key, most] of [["max-tokens", "maxTokens", 100000], ["samples", "samples", 8]]) {
    const read = (text) => Math.min(most, Math.max(1, Math.round(Number(text)) || 1));
    byId(id).addEventListener("input", (event) => event.target.value !== "" && params.set({ [key]: read(event.target.value) }));
    byId(id).addEventListener("change", (event) => (event.target.value = params.values[key]));
  }
  byId("models").addEventListener("change", (event) => {
    view.model = event.target.value;
    settings.write("view", view);
    showContext();
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

function modelCame() {
  offerModels();
  // What another model made of the text is not known of this one.
  tokens = { text: null, list: null, scores: null, error: null };
  showContext();
  draw();
}

/** The choice between the models, where there are several. */
function offerModels() {
  const names = [server.model, ...server.peers].map((model) => model.id);
  byId("models").parentElement.hidden = server.peers.length === 0;
  if (view.model !== ALL && !names.includes(view.model)) view.model = server.model.id;
  byId("models").replaceChildren(...names.map((name) => el("option", { value: name }, name)), el("option", { value: ALL }, "all, side by side"));
  byId("models").value = view.model;
}

setUpTheme(byId("theme"));
wire();
fillControls();
showPanel(PANELS.includes(view.panel) ? view.panel : "demos");
// What was begun before, here or on the page before a reload, stays open when the database tells of the other pages.
if (shelf.left) past.amend(withPlainLines(shelf.left));
shelf.load().then((doc) => {
  if (doc) past.reset(withPlainLines(doc));
  if (shelf.isCopy) say(COPY);
  if (view.panel === "tree") drawPanel();
});
server.connect();
