// The playground in a real browser, against a server that runs a real model:
//   CORELLA_URL=http://127.0.0.1:8080 PLAYWRIGHT=DIR/node_modules/playwright-core SHOTS=DIR node --test page.test.mjs
// Without CORELLA_URL every test says that it is skipped. scripts/playground_test.sh sets everything up.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createRequire } from "node:module";

const url = process.env.CORELLA_URL;
const skip = url ? false : "no CORELLA_URL";
const shots = process.env.SHOTS;
const require = createRequire(import.meta.url);
let browser;
const errors = [];

before(async () => {
  if (skip) return;
  const { chromium } = require(process.env.PLAYWRIGHT ?? "playwright-core");
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
});
after(async () => browser?.close());

async function open({ width = 1280, height = 850, dark = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light" });
  const page = await context.newPage();
  page.on("console", (m) => m.type() === "error" && errors.push(m.text()));
  page.on("pageerror", (e) => errors.push(String(e)));
  await page.goto(url);
  await page.waitForSelector("#dot.up");
  return page;
}

const text = (page) => page.inputValue("#text");
async function generate(page, tokens = 12) {
  await page.fill("#max-tokens", String(tokens));
  await page.dispatchEvent("#max-tokens", "change");
  await page.focus("#text");
  await page.keyboard.press("Control+Enter");
  await page.waitForFunction(() => /tokens?/.test(document.querySelector("#status").textContent) && !document.querySelector("#generate").hidden);
}

test("typed text is continued, token by token, and survives a reload", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "Once upon a time there was a");
  await generate(page);
  const written = await text(page);
  assert.ok(written.startsWith("Once upon a time there was a") && written.length > 35, written);
  assert.ok((await page.locator("#backdrop .token").count()) >= 5);
  await page.waitForTimeout(400);
  await page.reload();
  await page.waitForSelector("#dot.up");
  await page.waitForFunction((expected) => document.querySelector("#text").value === expected, written);
  await page.context().close();
});

test("a token shows its alternatives, and another one starts a branch", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "Once upon a time");
  await generate(page);
  const before = await text(page);
  const box = await page.locator("#backdrop .token").nth(2).boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.waitForSelector("#card:not([hidden])");
  const other = page.locator("#card button:not(.chosen)").first();
  await other.click();
  await page.waitForFunction((old) => document.querySelector("#text").value !== old && !document.querySelector("#generate").hidden, before);
  await page.click("#tab-tree");
  assert.ok((await page.locator("#panel-tree [role=treeitem]").count()) >= 3);
  await page.keyboard.press("Alt+ArrowLeft");
  await page.waitForFunction((old) => document.querySelector("#text").value === old, before);
  await page.context().close();
});

test("undo takes generated text back and redo brings it again", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "The town of");
  await generate(page);
  const written = await text(page);
  await page.keyboard.press("Control+z");
  await page.waitForFunction(() => document.querySelector("#text").value === "The town of");
  await page.keyboard.press("Control+Shift+Z");
  await page.waitForFunction((expected) => document.querySelector("#text").value === expected, written);
  await page.context().close();
});

test("editing inside generated text keeps what was there as a branch", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "Once upon a time");
  await generate(page, 8);
  const written = await text(page);
  await page.fill("#text", written.slice(0, -3) + "XY");
  await page.click("#tab-tree");
  const labels = (await page.locator("#panel-tree .go").allTextContents()).join("|");
  assert.ok(labels.includes("XY"), labels);
  assert.ok((await page.locator("#panel-tree [role=treeitem]").count()) >= 3, labels);
  await page.context().close();
});

test("samples stand side by side with the places where they part", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "Once upon a time there was a");
  await page.fill("#samples", "3");
  await page.dispatchEvent("#samples", "change");
  await generate(page, 20);
  await page.waitForFunction(() => document.querySelectorAll(".universe").length === 3);
  assert.ok((await page.locator(".universe .parts").count()) > 0);
  if (shots) await page.screenshot({ path: shots + "/universes.png" });
  await page.context().close();
});

test("the next token's distribution follows the sampling settings", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "Once upon a time there was");
  await page.click("#tab-next");
  await page.waitForSelector("#panel-next .bar-row");
  const slider = page.locator("#panel-next input[type=range]").nth(1);
  await slider.fill("3");
  await page.waitForFunction(() => document.querySelectorAll("#panel-next .bar-row:not(.cut)").length === 3);
  if (shots) await page.screenshot({ path: shots + "/next.png" });
  await page.locator("#panel-next .bar-row").first().click();
  await page.waitForFunction(() => document.querySelector("#text").value.length > "Once upon a time there was".length);
  await page.context().close();
});

test("tokens, sampling and source panels show the text", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "The quick fox");
  await generate(page, 6);
  await page.click("#tab-tokens");
  await page.waitForSelector("#panel-tokens td.piece");
  if (shots) await page.screenshot({ path: shots + "/tokens.png" });
  await page.click("#tab-settings");
  await page.getByRole("button", { name: "Likeliest" }).click();
  assert.equal(await page.locator("#panel-settings .slider input[type=number]").first().inputValue(), "0");
  await page.click("#tab-source");
  await page.locator("#panel-source textarea").fill("Somebody saw The quick fox jump over a wall in the evening");
  await page.waitForFunction(() => /of the page stands in the reference/.test(document.querySelector("#panel-source").textContent));
  await page.context().close();
});

test("every demonstration of the tour runs", { skip }, async () => {
  const page = await open();
  const demos = page.locator("#panel-demos .demo");
  const count = await demos.count();
  assert.equal(count, 6);
  for (let i = 0; i < count; i++) {
    const button = demos.nth(i).locator(".row button.small").filter({ hasNotText: "Add an example" }).first();
    await button.click();
    await page.waitForFunction(() => document.querySelector("#generate").hidden === false && /token/.test(document.querySelector("#status").textContent), null, { timeout: 60000 });
    assert.ok(!(await page.locator("#status.error").count()), await page.textContent("#status"));
    if (shots) await page.screenshot({ path: `${shots}/demo-${i + 1}.png` });
  }
  await page.context().close();
});

test("the run page follows the run", { skip }, async () => {
  const page = await open();
  await page.goto(url + "/run.html");
  await page.waitForSelector("#loss polyline");
  if (shots) await page.screenshot({ path: shots + "/run.png" });
  await page.context().close();
});

test("the page fits three widths in both themes, and its first paint is quick", { skip }, async () => {
  for (const dark of [false, true]) {
    for (const width of [390, 820, 1440]) {
      const page = await open({ width, height: 900, dark });
      await page.fill("#text", "Once upon a time there was a");
      await generate(page, 40);
      await page.selectOption("#colour", "probability");
      await page.waitForTimeout(200);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${width}: ${overflow} pixels too wide`);
      if (shots) await page.screenshot({ path: `${shots}/page-${width}-${dark ? "dark" : "light"}.png`, fullPage: width < 900 });
      const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0);
      console.log(`first paint at ${width}: ${Math.round(paint)} ms`);
      await page.context().close();
    }
  }
});

test("no errors on the console", { skip }, () => assert.deepEqual(errors, []));
