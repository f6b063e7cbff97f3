// The guided tour: the lecture's demonstrations, each one click on the loaded model. The server names the prompts: those of
// the tiny internet for a model that learned it, the lecture's for any other.

import { el } from "./dom.js";

/**
 * `demos`: [{ id, title, text, kind, prompt, reference, pairs, question, measured, settings }], the shape of /corella/demos.
 * `act.run(prompt, settings, reference)` puts the prompt on a fresh branch and continues it; `act.complete` only asks.
 */
export function drawDemos(panel, demos, model, act) {
  // Drawn once: what a reader typed into a demo, and what it answered, stays.
  if (demos && drawn === demos) return;
  drawn = demos;
  const intro = model?.base === false
    ? "This looks like an instruct model. The tour is about base models: they continue any text; nobody taught them to answer."
    : "A base model is a simulator of text: give it a beginning and it dreams how the page goes on, token by token.";
  panel.replaceChildren(el("h2", {}, "What a base model does"), el("p", { className: "hint" }, intro),
    ...(demos ?? []).map((demo, i) => (KINDS[demo.kind] ?? plain)(demo, i + 1, act)));
}

let drawn = null;
const KINDS = { fewshot, assistant, recap };

function frame(demo, number, ...content) {
  return el("section", { className: "demo", "data-demo": demo.id, "aria-label": demo.title },
    el("h3", {}, `${number}. ${demo.title}`), el("p", {}, demo.text),
    demo.measured ? el("p", { className: "measured" }, demo.measured) : null, ...content);
}

const button = (label, onclick, className = "small") => el("button", { type: "button", className, onclick }, label);

function plain(demo, number, act) {
  const runs = demo.prompts ?? [{ label: "Try it", prompt: demo.prompt, settings: demo.settings, reference: demo.reference }];
  const shown = [...new Set(runs.map((r) => r.prompt))];
  return frame(demo, number, ...shown.map((prompt) => el("pre", {}, prompt)),
    el("div", { className: "row" }, ...runs.map((r) => button(r.label, () => act.run(r.prompt, { ...demo.settings, ...r.settings }, r.reference)))));
}

/** Pairs of words that make a translator; every cell can be changed. */
function fewshot(demo, number, act) {
  const pairs = demo.pairs.map((pair) => [...pair]);
  const grid = el("div", { className: "pairs" });
  const question = el("input", { type: "text", value: demo.question, "aria-label": "Word to translate" });
  const prompt = () => pairs.filter(([a, b]) => a && b).map(([a, b]) => `${a}: ${b}\n`).join("") + question.value + ":";
  const draw = () => grid.replaceChildren(...pairs.flatMap((pair, i) => [
    el("input", { type: "text", value: pair[0], "aria-label": `Example ${i + 1}, from`, oninput: (e) => (pair[0] = e.target.value) }),
    el("input", { type: "text", value: pair[1], "aria-label": `Example ${i + 1}, to`, oninput: (e) => (pair[1] = e.target.value) }),
    el("button", { type: "button", className: "quiet small", "aria-label": `Remove example ${i + 1}`, onclick: () => { pairs.splice(i, 1); draw(); } }, "×"),
  ]), question, el("span", {}, "→ ?"), el("span", {}));
  draw();
  return frame(demo, number, grid, el("div", { className: "row" },
    button("Add an example", () => { pairs.push(["", ""]); draw(); }),
    button("Continue", () => act.run(prompt(), demo.settings)),
    button("Without examples", () => act.run(question.value + ":", demo.settings))));
}

/** A transcript that makes an assistant of a base model; the stop string is a switch, the prompt is in full view. */
function assistant(demo, number, act) {
  const question = el("input", { type: "text", value: demo.question, "aria-label": "Question", className: "question" });
  const stop = el("input", { type: "checkbox", checked: true });
  const page = el("pre", {});
  const parts = transcriptOf(demo);
  /** The ways to ask: what the button says, the title beside the others, the prompt, whether the stop string ends it. */
  const ways = [
    ["Ask inside the transcript", "Inside the transcript", parts.whole, () => stop.checked],
    ["Ask with the description alone", "With the description alone", (question) => parts.behind(parts.description, question), () => stop.checked],
    ["Ask bare", "Bare", (question) => question, () => false],
  ];
  const show = () => (page.textContent = parts.whole(question.value));
  question.addEventListener("input", show);
  show();
  const settings = (on) => ({ ...demo.settings, stop: demo.stop, stopOn: on });
  const next = () => {
    const before = act.text();
    const isTranscript = parts.description !== "" && before.startsWith(parts.description) && before.includes(parts.stop);
    act.run(isTranscript ? parts.behind(before.trimEnd(), question.value) : parts.whole(question.value), settings(stop.checked));
  };
  const all = el("div", { className: "universes", hidden: true });
  return frame(demo, number, el("div", { className: "row" }, question),
    el("details", {}, el("summary", {}, "The whole prompt"), page),
    el("label", { className: "row line" }, stop, `stop at “${demo.stop}” — switched off, it dreams the next question`),
    el("div", { className: "row" },
      ...ways.map(([label, , prompt, ends]) => button(label, () => act.run(prompt(question.value), settings(ends())))),
      button("All, side by side", () => sideBySide(all, ways.map(([, title, prompt, ends]) => [title, prompt(question.value), ends()]), demo, act)),
      button("Ask next, behind the answer on the page", next)),
    all);
}

/**
 * What the transcript of a demonstration is made of: `description` is what stands in front of its first turn, `whole(question)`
 * the transcript with a question, `behind(text, question)` a text with another turn behind it.
 */
export function transcriptOf(demo) {
  const stop = demo.stop.replaceAll("\\n", "\n");
  const turn = demo.prompt.slice(demo.prompt.lastIndexOf(stop));
  return {
    stop,
    description: demo.prompt.slice(0, Math.max(0, demo.prompt.indexOf(stop))),
    // A question may hold what a pattern would replace.
    whole: (question) => demo.prompt.replace("{}", () => question),
    behind: (text, question) => text + turn.replace("{}", () => question),
  };
}

/** What has been seen, with the way back to each demonstration. */
function recap(demo, number) {
  const go = (id) => {
    const section = document.querySelector(`[data-demo="${id}"]`);
    section?.scrollIntoView({ block: "nearest" });
    section?.querySelector("button, input")?.focus();
  };
  return frame(demo, number, el("ol", {}, ...demo.points.map((p) => el("li", {}, p.text, " ", button("See it", () => go(p.demo)), p.also ? button("and this", () => go(p.also)) : ""))));
}

let running = null;

/** Ends what a demonstration writes beside the page; false if nothing does. */
export function stopDemos() {
  running?.abort();
  const was = running !== null;
  running = null;
  return was;
}

/** Streams several prompts into boxes beside each other; a human turn that the model made up itself is marked. */
async function sideBySide(box, asked, demo, act) {
  const stop = demo.stop.replaceAll("\\n", "\n");
  stopDemos();
  const own = (running = new AbortController());
  box.hidden = false;
  const boxes = asked.map(([title]) => {
    const text = el("p", {});
    return { text, element: el("article", { className: "universe" }, el("header", {}, el("span", {}, title)), text) };
  });
  box.replaceChildren(...boxes.map((b) => b.element));
  await Promise.all(asked.map(async ([, prompt, stopOn], i) => {
    let written = "";
    const options = { max_tokens: demo.settings.max_tokens, temperature: demo.settings.temperature, n_probs: 1, ...(stopOn ? { stop: [stop] } : {}) };
    try {
      await act.complete(prompt, options, (_, tokens) => {
        written += tokens.map((t) => t.text).join("");
        const turn = written.indexOf(stop);
        const asAsked = turn < 0 ? written : written.slice(0, turn);
        boxes[i].text.replaceChildren(asAsked, turn < 0 ? "" : el("span", { className: "parts", title: "made up by the model" }, written.slice(turn)));
      }, own.signal);
      if (written === "") boxes[i].text.textContent = "(nothing)";
    } catch (error) {
      if (error.name !== "AbortError") boxes[i].text.textContent = error.message;
      else if (written === "") boxes[i].text.textContent = "(stopped)";
    }
  }));
  if (running === own) running = null;
}
