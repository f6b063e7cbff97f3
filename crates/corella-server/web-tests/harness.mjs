// What the browser tests share: servers, a browser for each file of tests, and how a page is opened, written on and watched.
import assert from "node:assert/strict";
import { after, before, test as nodeTest } from "node:test";
import { createRequire } from "node:module";
import { strain } from "./stress.mjs";

export const url = process.env.CORELLA_URL;
export const live = process.env.CORELLA_LIVE_URL;
export const llama = process.env.CORELLA_LLAMA_URL;
export const skip = url ? false : "no CORELLA_URL";
export const shots = process.env.SHOTS;
export const require = createRequire(import.meta.url);
// Nothing waits for a fixed time, and everything may take long: the machine may be building beside.
const TIME = 240_000;
// Unless everything does: then the browser or a server hangs, and the rest of the tests would only wait too.
const PATIENCE = 3;
let timeouts = 0;
export const installed = (name) => (process.env.PLAYWRIGHT ? process.env.PLAYWRIGHT + "/" : "") + name;
let browser;
export const errors = [];

before(async () => {
  if (skip) return;
  const { chromium } = require(installed("playwright-core"));
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", timeout: TIME,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
});
after(async () => browser?.close());

/** A test whose pages are closed behind it. If it fails it says how they looked. */
export const test = (name, { skip }, body) => nodeTest(name, { skip }, async () => {
  assert.ok(timeouts < PATIENCE, `given up: ${timeouts} tests before this one ran out of time`);
  try {
    await body();
  } catch (error) {
    if (error.name === "TimeoutError") timeouts++;
    for (const page of browser.contexts().flatMap((context) => context.pages())) console.log(`${name}: ${await look(page)}`);
    throw error;
  } finally {
    await Promise.all(browser.contexts().map((context) => context.close()));
  }
});

/** What a page shows, in one line. A page that hangs cannot tell. */
const look = (page) => Promise.race([
  page.evaluate(() => JSON.stringify({ url: location.href, focus: document.activeElement.id, text: document.querySelector("#text")?.value,
    ...Object.fromEntries(["model-name", "status", "meter-text", "card"].map((id) => [id, document.getElementById(id)?.textContent])),
    running: document.querySelector("#generate")?.hidden, cardIsOpen: document.querySelector("#card")?.hidden === false })).catch(String),
  new Promise((done) => setTimeout(() => done("no answer"), 5000).unref()),
]);

/** A fresh browser on the page, with `script` run in front of the page's own. The seed is fixed and documents do not end, so that a test sees the same text each time. */
export async function open({ width = 1280, height = 850, dark = false, touch = false, at = url, ready = true, script = () => {}, beside = null } = {}) {
  const context = beside?.context() ?? await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", hasTouch: touch });
  context.setDefaultTimeout(TIME);
  if (!beside) await context.addInitScript(() => localStorage.sampling ??= JSON.stringify({ seed: "7", ignoreEos: true, maxTokens: 24 }));
  const page = await context.newPage();
  await strain(page, process.env.STRESS);
  await page.addInitScript(script);
  // The browser notes each refused request too; the answer itself says more.
  page.on("console", (m) => m.type() === "error" && !/Failed to load resource/.test(m.text()) && errors.push(m.text()));
  page.on("response", async (r) => r.status() >= 400 && r.status() !== 503 && errors.push(`${r.status()} ${r.url()} ${r.request().postData()}: ${await r.text()}`));
  page.on("pageerror", (e) => errors.push(String(e)));
  await page.goto(at);
  if (ready) await page.waitForSelector("#dot.up");
  return page;
}

/** What stands on the page. */
export const text = (page) => page.inputValue("#text");
/** Waits for the end of what is being written. */
export const done = (page) => page.waitForFunction(() => /token/.test(document.querySelector("#status").textContent) && !document.querySelector("#generate").hidden);

/** Sets how many tokens and samples are asked for. */
export async function settle(page, tokens, samples = 1) {
  for (const [id, value] of [["#max-tokens", tokens], ["#samples", samples]]) {
    await page.fill(id, String(value));
    await page.dispatchEvent(id, "change");
  }
}

/** Continues the text and waits for its end. */
export async function generate(page, tokens = 12, samples = 1) {
  await settle(page, tokens, samples);
  await page.focus("#text");
  await page.keyboard.press("Control+Enter");
  await done(page);
}

/** Waits until the page holds a text. */
export const shows = (page, expected) => page.waitForFunction((expected) => document.querySelector("#text").value === expected, expected);

/** A last test: nothing went wrong beside what the tests looked at. */
export const noErrors = () => test("no errors on the console", { skip }, () => assert.deepEqual(errors, []));
