// The sampling settings: what is sent with every request, presets, and the panel that sets them.

import { el } from "./dom.js";
import { settings } from "./storage.js";

const DEFAULTS = {
  maxTokens: 128, samples: 1, temperature: 1, topK: 0, topP: 1, minP: 0, repetition: 1, presence: 0, frequency: 0,
  seed: "", stop: "", stopOn: true, ignoreEos: false, heal: false,
};

/** Named settings; each replaces the shaping of the distribution and nothing else. */
export const PRESETS = [
  { name: "The model itself", text: "temperature 1, no filter", values: { temperature: 1, topK: 0, topP: 1, minP: 0, repetition: 1 } },
  { name: "Careful", text: "temperature 0.7, top-p 0.9", values: { temperature: 0.7, topK: 0, topP: 0.9, minP: 0, repetition: 1 } },
  { name: "Adventurous", text: "temperature 1.3, min-p 0.08", values: { temperature: 1.3, topK: 0, topP: 1, minP: 0.08, repetition: 1 } },
  { name: "Likeliest", text: "temperature 0: always the top token", values: { temperature: 0, topK: 0, topP: 1, minP: 0, repetition: 1 } },
];

const SLIDERS = [
  ["temperature", "Temperature", 0, 2, 0.05, "flattens (above 1) or sharpens the distribution; 0 takes the likeliest token"],
  ["topK", "Top-k", 0, 200, 1, "only the k likeliest tokens; 0 for all"],
  ["topP", "Top-p", 0.05, 1, 0.01, "only the likeliest tokens that together reach p; 1 for all"],
  ["minP", "Min-p", 0, 0.5, 0.01, "only tokens at least this likely, relative to the likeliest"],
  ["repetition", "Repetition", 1, 2, 0.05, "divides the scores of tokens that were used; 1 for none"],
  ["presence", "Presence", -2, 2, 0.1, "taken off tokens that were used at all"],
  ["frequency", "Frequency", -2, 2, 0.1, "taken off for each use"],
];

/**
 * The settings of this browser. `onChange()` after every change; `text()` and `onText(text)` read and write the page, for
 * presets that hold a prompt too.
 */
export function sampling({ onChange, text, onText }) {
  let kept = settings.read("sampling", DEFAULTS);
  const own = settings.read("presets", { list: [] }).list;

  function set(changes) {
    kept = { ...kept, ...changes };
    settings.write("sampling", kept);
    onChange();
  }

  /** The body of a request, beside the prompt; `other` are settings for this one that are not kept. */
  function request(other = {}) {
    const values = { ...kept, ...other };
    const stops = values.stopOn ? values.stop.split("\n").filter((s) => s !== "").map((s) => s.replaceAll("\\n", "\n")) : [];
    const body = {
      max_tokens: values.maxTokens, n: values.samples, temperature: values.temperature, top_p: values.topP, n_probs: 12,
    };
    // Earlier versions have kept fractions.
    if (Math.round(values.topK) > 0) body.top_k = Math.round(values.topK);
    if (values.minP > 0) body.min_p = values.minP;
    if (values.repetition !== 1) body.repetition_penalty = values.repetition;
    if (values.presence !== 0) body.presence_penalty = values.presence;
    if (values.frequency !== 0) body.frequency_penalty = values.frequency;
    if (values.seed !== "") body.seed = Number(values.seed);
    if (stops.length) body.stop = stops;
    if (values.ignoreEos) body.ignore_eos = true;
    if (values.heal) body.token_healing = true;
    return body;
  }

  /** The same for another server's model: what OpenAI's interface has, and nothing else. */
  function requestFor(peer, other) {
    const { max_tokens, n, temperature, top_p, presence_penalty, frequency_penalty, seed, stop } = request(other);
    return { model: peer.id, max_tokens, n, temperature, top_p, presence_penalty, frequency_penalty, seed, stop, ...(peer.chat ? {} : { logprobs: 5 }) };
  }

  function take(preset, panel) {
    set(preset.values);
    if (preset.prompt) onText(preset.prompt);
    draw(panel);
  }

  function draw(panel) {
    const preset = (p, remove) => el("span", { className: "row" },
      el("button", { type: "button", className: "small", title: p.text, onclick: () => take(p, panel) }, p.name), remove);
    const presets = el("div", { className: "row" }, ...PRESETS.map((p) => preset(p)), ...own.map((p, i) => preset(p, el("button", {
      type: "button", className: "quiet small", "aria-label": "Remove preset " + p.name,
      onclick: () => { own.splice(i, 1); settings.write("presets", { list: own }); draw(panel); },
    }, "×"))));
    const name = el("input", { type: "text", placeholder: "name", "aria-label": "Name of the preset", size: 12, maxLength: 30 });
    const withText = el("input", { type: "checkbox" });
    const save = el("button", {
      type: "button", className: "small",
      onclick: () => {
        if (name.value.trim() === "") return name.focus();
        const prompt = withText.checked ? text() : "";
        own.push({ name: name.value.trim(), text: prompt ? "your own, with its text" : "your own", prompt,
          values: Object.fromEntries([...SLIDERS.map(([key]) => key), "stop", "stopOn", "maxTokens"].map((key) => [key, kept[key]])) });
        settings.write("presets", { list: own });
        draw(panel);
      },
    }, "Save as preset");
    const wrongSeed = el("p", { className: "status error", hidden: true }, `A seed is a whole number from 0 to ${Number.MAX_SAFE_INTEGER}.`);
    const seed = (event) => {
      const text = event.target.value.trim();
      const right = text === "" || (/^\d+$/.test(text) && Number.isSafeInteger(Number(text)));
      if (right) set({ seed: text });
      // What cannot be sent is said while it stands there, and does not stay.
      else if (event.type === "change") event.target.value = kept.seed;
      wrongSeed.hidden = right;
    };
    panel.replaceChildren(
      el("h2", {}, "Sampling"), el("p", { className: "hint" }, "How a token is drawn from the distribution. The panel ‘Next token’ shows what each control does to it."),
      presets, el("div", { className: "row", style: "margin:.5rem 0" }, name, save, el("label", { className: "row" }, withText, "with the text")),
      ...SLIDERS.map((slider) => sliderRow(slider)),
      el("h3", {}, "Seed"),
      el("div", { className: "row" }, el("input", {
        type: "text", inputMode: "numeric", value: kept.seed, placeholder: "a new one each time", "aria-label": "Seed", style: "width:12rem", oninput: seed, onchange: seed,
      })), wrongSeed,
      el("h3", {}, "Stop"),
      el("label", { className: "row line" }, el("input", { type: "checkbox", checked: kept.stopOn, onchange: (e) => set({ stopOn: e.target.checked }) }), "stop at these strings (one a line, \\n for a line break)"),
      el("textarea", { className: "area", "aria-label": "Stop strings", rows: 3, value: kept.stop, oninput: (e) => set({ stop: e.target.value }) }),
      el("label", { className: "row line" }, el("input", { type: "checkbox", checked: kept.ignoreEos, onchange: (e) => set({ ignoreEos: e.target.checked }) }), "go on past the end of a document"),
      el("label", { className: "row line" }, el("input", { type: "checkbox", checked: kept.heal, onchange: (e) => set({ heal: e.target.checked }) }), "heal the end of the text: where it stops inside a token, or with a space, its last token is drawn again"),
    );
  }

  function sliderRow([key, label, min, max, step, title]) {
    const round = step === 1 ? Math.round : (value) => value;
    const within = (text) => (text.trim() === "" ? NaN : Math.min(max, Math.max(min, round(Number(text)))));
    const change = (text, field) => {
      const value = within(text);
      if (!Number.isFinite(value)) return;
      for (const other of [number, range]) if (other !== field) other.value = value;
      set({ [key]: value });
    };
    const number = el("input", { type: "number", min, max, step, value: kept[key], "aria-label": label + ", number",
      oninput: (e) => change(e.target.value, number), onchange: () => (number.value = kept[key]) });
    const range = el("input", { type: "range", min, max, step, value: kept[key], "aria-label": label, oninput: (e) => change(e.target.value, range) });
    return el("div", { className: "slider", title }, el("span", {}, label), range, number);
  }

  return { get values() { return kept; }, set, request, requestFor, draw };
}
