// The playground in a real browser: what a reader writes is not lost, what the page says is so, and keys and settings do what
// they are for. Set up as page.test.mjs.
import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { done, errors, generate, llama, noErrors, open, settle, shows, skip, test, text, url } from "./harness.mjs";

/** What the database holds: the text of each document, and the words of each page. */
const stored = (page) => page.evaluate(async () => {
  const result = (request) => new Promise((done) => (request.onsuccess = () => done(request.result)));
  const store = (await result(indexedDB.open("corella"))).transaction("pages").objectStore("pages");
  const all = await result(store.getAll());
  return all.filter((value) => value?.nodes).map((doc) => Object.values(doc.nodes).map((node) => node.text).join("|"));
});
const holds = async (page, ...texts) => {
  for (;;) {
    const all = await stored(page);
    if (texts.every((text) => all.some((doc) => doc.includes(text)))) return;
    await page.waitForTimeout(50);
  }
};
const pieces = (page) => page.locator("#panel-tree [role=treeitem]").count();

test("two tabs on one page keep what each of them writes", { skip }, async () => {
  const first = await open();
  await first.fill("#text", "Shared start.");
  await holds(first, "Shared start.");
  const second = await open({ beside: first });
  await shows(second, "Shared start.");
  await second.waitForFunction(() => /open in another tab/.test(document.querySelector("#status").textContent));
  await first.fill("#text", "Shared start. What the first wrote");
  await second.fill("#text", "Shared start. What the second wrote");
  await first.click("#tab-tree");
  await first.getByRole("button", { name: "New page" }).click();
  await first.fill("#text", "A page of the first");
  await holds(second, "A page of the first");
  await second.focus("#text");
  await second.keyboard.press("End");
  await second.keyboard.type("!");
  await holds(second, "What the first wrote", "What the second wrote!", "A page of the first");
  await second.reload();
  await shows(second, "Shared start. What the second wrote!");
  await second.click("#tab-tree");
  await second.locator(".pages .go", { hasText: "A page of the first" }).waitFor();
  assert.equal(await second.locator(".pages .go").count(), 2);
  await first.reload();
  await shows(first, "A page of the first");
});

test("an import leaves the open page alone, and a page that was thrown away comes back", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "My only copy");
  await generate(page, 8);
  const written = await text(page);
  await page.click("#tab-tree");
  const tree = { format: "corella-tree-1", leaf: 1, nodes: [{ id: 0, parent: null, by: "you", text: "one\r\ntwo" }, { id: 1, parent: 0, by: "model", text: "\r\nthree" }] };
  await page.setInputFiles("#panel-tree input[type=file]", { name: "x.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(tree)) });
  await shows(page, "one\ntwo\nthree");
  await page.locator(".pages .go", { hasText: "My only copy" }).click();
  await shows(page, written);
  await page.getByRole("button", { name: "Throw away one two" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".pages .go").length === 0);
  await page.getByRole("button", { name: "Bring it back" }).click();
  await page.locator(".pages .go", { hasText: "one two" }).click();
  await shows(page, "one\ntwo\nthree");
  await page.focus("#text");
  await page.keyboard.press("Control+End");
  await page.keyboard.type("!");
  assert.equal(await page.locator("#backdrop .token").count(), 1, "what the model wrote stays its own");
});

/** A way to the server that can be cut and mended. After `stall()` an answer ends within its tokens, behind the first 32 or so. */
async function bridge() {
  const { hostname, port } = new URL(url);
  const sockets = new Set();
  let stalls = false;
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy());
      one.on("close", () => (sockets.delete(one), other.destroy()));
    }
    let tokens = 0;
    far.on("data", (chunk) => {
      tokens += stalls ? `${chunk}`.split("completion_probabilities").length - 1 : 0;
      // The first ones may be parts of a character, of which the page shows nothing.
      if (tokens >= 32) setImmediate(() => far.unpipe(near));
    });
  });
  // A test that fails leaves it open: the others must come to an end all the same.
  server.unref();
  const listen = (at) => new Promise((done) => server.listen(at, "127.0.0.1", done));
  await listen(0);
  const own = server.address().port;
  const cut = () => new Promise((done) => {
    stalls = false;
    server.close(done);
    for (const socket of sockets) socket.destroy();
  });
  return { at: `http://127.0.0.1:${own}`, stall: () => (stalls = true), cut, mend: () => listen(own) };
}

test("a server that goes away is said to be gone, and found again", { skip }, async () => {
  const { at, stall, cut, mend } = await bridge();
  const page = await open({ at });
  await page.fill("#text", "Once upon a time there was a");
  await settle(page, 220, 8);
  stall();
  await page.focus("#text");
  await page.keyboard.press("Control+Enter");
  await page.waitForFunction(() => document.querySelectorAll("#backdrop .token").length > 0);
  await cut();
  await page.waitForSelector("#dot.down");
  await page.waitForFunction(() => /broke off; the text so far stays/.test(document.querySelector("#status.error")?.textContent ?? ""));
  assert.equal(await page.textContent("#model-name"), "not connected");
  assert.ok((await page.locator("#backdrop .token").count()) > 0);
  await mend();
  await page.waitForSelector("#dot.up");
  await generate(page, 4);
  await cut();
});

test("what the status says of an end is so", { skip }, async () => {
  const page = await open();
  const context = await page.evaluate(async () => (await (await fetch("/v1/models")).json()).data[0].context);
  // A text that fills the context but for some tokens.
  await page.fill("#text", await page.evaluate(async (context) => {
    const count = async (content) => {
      const answer = await fetch("/tokenize", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ content, add_special: true }) });
      return (await answer.json()).tokens.length;
    };
    const [few, more] = [await count("Once" + " there".repeat(10)), await count("Once" + " there".repeat(20))];
    return "Once" + " there".repeat(10 + Math.floor((10 * (context - 4 - few)) / (more - few)));
  }, context));
  await generate(page, 128);
  assert.match(await page.textContent("#status"), /ended: the context is full/);
  await page.fill("#text", "Once");
  await settle(page, 99);
  // The number counts as it is typed.
  await page.fill("#max-tokens", "5");
  await page.keyboard.press("Control+Enter");
  await done(page);
  assert.match(await page.textContent("#status"), /^5 tokens .* ended: the number of tokens asked for/);
  const long = "girl ".repeat(context);
  await page.fill("#text", long);
  await page.focus("#text");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector("#status.error");
  const said = await page.textContent("#status");
  await page.click("#tab-tokens");
  await page.waitForFunction(() => /^\d{3,} of|^\d+ of/.test(document.querySelector("#panel-tokens .hint")?.textContent ?? "") && document.querySelector("#meter").classList.contains("full"));
  assert.equal(await page.textContent("#status"), said, "a space at the end is no reason to take an error away");
  while (errors.length === 0) await page.waitForTimeout(20);
  assert.match(errors.pop(), /^400 /);
});

test("tokens have the probabilities with which they were drawn, and all of them once they are scored", { skip }, async () => {
  for (const at of [url, llama].filter(Boolean)) {
    const page = await open({ at });
    await page.fill("#text", "Once upon a time there was");
    await generate(page, 20);
    await page.click("#tab-tokens");
    const rows = () => page.locator("#panel-tokens tbody tr").evaluateAll((all) => all.map((row) => row.children[3].textContent !== ""));
    await page.waitForFunction(() => document.querySelectorAll("#panel-tokens tbody tr").length > 22);
    const drawn = (await rows()).filter(Boolean).length;
    assert.ok(drawn >= 15, `${drawn} of ${at}`);
    await page.getByRole("button", { name: "Score the text" }).click();
    await page.waitForFunction(() => document.querySelector("#panel-tokens tbody tr:nth-child(2)").children[3].textContent !== "");
    assert.deepEqual((await rows()).filter((known) => !known).length, 1, "only the first has nothing in front");
  }
});

test("keys that delete leave one cut, a corrected prompt keeps what the model wrote, a piece can be written again", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "Onse upon a time");
  await generate(page, 16);
  const tokens = () => page.locator("#backdrop .token").count();
  const all = await tokens();
  const written = await text(page);
  await page.click("#tab-tree");
  assert.equal(await pieces(page), 2);
  await page.fill("#text", written.replace("Onse", "Once"));
  assert.equal(await tokens(), all);
  await page.keyboard.press("Control+z");
  await shows(page, written);
  await page.focus("#text");
  await page.keyboard.press("Control+End");
  for (let i = 0; i < 12; i++) await page.keyboard.press("Backspace");
  await shows(page, written.slice(0, -12));
  assert.equal(await pieces(page), 3);
  await page.keyboard.press("Control+z");
  await shows(page, written);
  await page.evaluate(() => (localStorage.sampling = JSON.stringify({ ...JSON.parse(localStorage.sampling), seed: "" })));
  await page.reload();
  await shows(page, written);
  await page.waitForSelector("#dot.up");
  await page.focus("#text");
  await page.keyboard.press("Alt+Enter");
  await done(page);
  await page.waitForFunction(() => document.querySelectorAll("#universes .universe").length === 2);
  await page.keyboard.press("Control+z");
  await shows(page, written);
  await page.keyboard.press("Control+z");
  await page.click("#again");
  await page.waitForFunction(() => document.querySelectorAll("#universes .universe").length >= 2 && !document.querySelector("#generate").hidden);
});

test("what undo has taken away stays as a branch", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "The town of");
  await generate(page, 8);
  await page.keyboard.press("Control+z");
  await shows(page, "The town of");
  await generate(page, 8);
  await page.waitForFunction(() => document.querySelectorAll("#universes .universe").length === 2);
});

test("a demonstration leaves the reader's settings alone, and a question may hold any sign", { skip }, async () => {
  const page = await open();
  await page.click("#tab-settings");
  const temperature = page.getByLabel("Temperature, number");
  await temperature.fill("0.7");
  await page.getByLabel("Stop strings").fill("###");
  await temperature.fill("");
  await temperature.blur();
  assert.equal(await temperature.inputValue(), "0.7", "an empty field is no zero");
  const seed = page.getByLabel("Seed");
  for (const wrong of ["-1", "1.5", "9007199254740993"]) {
    await seed.fill(wrong);
    assert.ok(await page.getByText("A seed is a whole number").isVisible(), wrong);
    await seed.blur();
    assert.equal(await seed.inputValue(), "7");
  }
  const before = await page.evaluate(() => localStorage.sampling);
  await page.click("#tab-demos");
  const assistant = page.locator('[data-demo="assistant"]');
  await assistant.locator("input[type=text]").fill("Why does $& cost $$5 and $'?");
  await assistant.getByRole("button", { name: "Ask inside the transcript" }).click();
  await done(page);
  assert.ok((await text(page)).includes("Human: Why does $& cost $$5 and $'?\n"), await text(page));
  assert.equal(await page.evaluate(() => localStorage.sampling), before);
  const answered = await text(page);
  await assistant.locator("input[type=text]").fill("And then?");
  await assistant.getByRole("button", { name: "Ask next" }).click();
  await page.waitForFunction((before) => document.querySelector("#text").value.startsWith(before.trimEnd() + "\nHuman: And then?\nAssistant:"), answered);
  await done(page);
});

test("a setting of whole numbers takes no other, and one that was kept does no harm", { skip }, async () => {
  const page = await open({ script: () => (localStorage.sampling = JSON.stringify({ ...JSON.parse(localStorage.sampling ?? "{}"), seed: "7", ignoreEos: true, topK: 3.4 })) });
  const asked = [];
  page.on("request", (request) => request.url().endsWith("/v1/completions") && asked.push(request.postDataJSON().top_k));
  await page.fill("#text", "Once upon a time");
  await generate(page, 4);
  await page.click("#tab-settings");
  const field = page.getByLabel("Top-k, number");
  await field.fill("2.6");
  await field.blur();
  assert.equal(await field.inputValue(), "3");
  await field.fill("6.6");
  await generate(page, 4);
  assert.deepEqual(asked, [3, 7]);
});

test("special tokens that the model has drawn go back by their names, and what was typed as text", { skip }, async () => {
  const page = await open();
  const asked = [];
  page.on("request", (request) => /completions|tokenize/.test(request.url()) && asked.push(request.postDataJSON()));
  const byName = async (what) => {
    const counted = () => asked.find(({ content }) => content === "The end<|endoftext|>");
    while (!counted()) await page.waitForTimeout(20);
    assert.equal(counted().parse_special === true, what, "tokenize");
    await page.click("#tab-tokens");
    await page.waitForFunction(() => document.querySelector("#meter-text").textContent.startsWith(document.querySelectorAll("#panel-tokens tbody tr").length + " /"));
    asked.splice(0);
    const ids = await page.locator("#panel-tokens tbody tr").count();
    await page.getByRole("button", { name: "Score the text" }).click();
    await page.waitForFunction(() => /What the model makes/.test(document.querySelector("#panel-tokens .row .hint").textContent));
    await page.click("#tab-next");
    await page.waitForSelector("#panel-next .bar-row");
    await generate(page, 2);
    const all = asked.splice(0).filter((body) => "prompt" in body);
    assert.ok(all.length >= 3 && all.every((body) => (body.parse_special === true) === what), JSON.stringify(all));
    return ids;
  };
  await page.fill("#text", "The end<|endoftext|>");
  const typed = await byName(false);
  await page.click("#tab-tree");
  await page.getByRole("button", { name: "New page" }).click();
  const drawn = ["The", " end", "<|endoftext|>"].map((text) => ({ id: null, text, logprob: null, entropy: null, top: [] }));
  const tree = { format: "corella-tree-1", leaf: 1, nodes: [{ id: 0, parent: null, by: "you", text: "" }, { id: 1, parent: 0, by: "model", text: "The end<|endoftext|>", tokens: drawn }] };
  await page.setInputFiles("#panel-tree input[type=file]", { name: "x.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(tree)) });
  await shows(page, "The end<|endoftext|>");
  assert.ok((await byName(true)) < typed, "one token instead of the pieces of its name");
});

test("typing does not write the page at each key", { skip }, async () => {
  const page = await open({ script: () => {
    window.puts = 0;
    const { put } = IDBObjectStore.prototype;
    IDBObjectStore.prototype.put = function (...given) {
      window.puts += Boolean(given[0]?.nodes);
      return put.apply(this, given);
    };
  } });
  await page.focus("#text");
  await page.evaluate(async () => {
    const box = document.querySelector("#text");
    for (let i = 0; i < 40; i++) {
      box.value += "ab ";
      box.dispatchEvent(new Event("input"));
      await new Promise((done) => setTimeout(done, 20));
    }
  });
  await holds(page, "ab ".repeat(40));
  assert.ok((await page.evaluate(() => window.puts)) < 10);
});

test("an error of the page before does not stand under a new one", { skip }, async () => {
  const page = await open();
  await page.click("#tab-tree");
  await page.setInputFiles("#panel-tree input[type=file]", { name: "x.json", mimeType: "application/json", buffer: Buffer.from("no tree") });
  await page.waitForSelector("#status.error");
  await page.getByRole("button", { name: "New page" }).click();
  assert.equal(await page.textContent("#status"), "");
  assert.equal(await page.locator("#status.error").count(), 0);
});

test("while text is written what cannot be done is said, and Esc ends one thing at a time", { skip }, async () => {
  const page = await open();
  // An answer that does not begin leaves time to press.
  let asked = 0;
  await page.route("**/v1/completions", () => asked++);
  await page.fill("#text", "Once upon a time");
  await page.click("#tab-tree");
  await page.focus("#generate");
  await page.keyboard.press("Space");
  await page.waitForFunction(() => document.activeElement.id === "stop");
  for (const button of [page.getByRole("button", { name: "New page" }), page.locator("#panel-tree .go").first()]) {
    await page.evaluate(() => (document.querySelector("#status").textContent = ""));
    await button.click();
    assert.equal(await page.textContent("#status"), "Stop the running text first.");
  }
  await page.focus("#stop");
  await page.keyboard.press("F1");
  await page.keyboard.press("Escape");
  assert.ok(!(await page.isVisible("#keys")) && (await page.isVisible("#stop")), "the dialog alone is closed");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.activeElement.id === "generate");
  await page.click("#tab-demos");
  const all = page.getByRole("button", { name: "All, side by side" });
  asked = 0;
  await all.click();
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => [...document.querySelectorAll("#panel-demos .demo .universe p")].every((p) => p.textContent === "(stopped)"));
  await all.click();
  await all.click();
  await page.unroute("**/v1/completions");
});

test("the card closes behind whoever goes on, and begins at its top", { skip }, async () => {
  const page = await open();
  await page.fill("#text", "Once upon a time");
  await generate(page, 24);
  await page.keyboard.press("Alt+.");
  await page.waitForSelector("#card:not([hidden])");
  await page.evaluate(() => (document.querySelector("#card").scrollTop = 200));
  const count = await page.locator("#card button:enabled").count();
  for (let i = 0; i < count; i++) await page.keyboard.press("Tab");
  await page.keyboard.press("Shift+Tab");
  await page.evaluate(() => document.querySelector("#undo").focus());
  await page.waitForSelector("#card", { state: "hidden" });
  await page.focus("#text");
  await page.evaluate(() => document.querySelector("#text").setSelectionRange(19, 19));
  await page.keyboard.press("Alt+.");
  await page.waitForSelector("#card:not([hidden])");
  assert.equal(await page.evaluate(() => document.querySelector("#card").scrollTop), 0);
});

test("what is written stays in sight, the status keeps its room, small windows and right-to-left scripts have theirs", { skip }, async () => {
  const page = await open({ width: 1024, height: 600 });
  await page.focus("#text");
  await page.keyboard.insertText("Once\n".repeat(12));
  await generate(page, 150, 3);
  await page.waitForFunction(() => document.querySelectorAll(".universe").length === 3);
  await page.evaluate(() => (document.querySelector("#status").textContent = "A long sentence. ".repeat(30)));
  const [status, universes] = await page.evaluate(() => ["#status", "#universes"].map((id) => document.querySelector(id).getBoundingClientRect()));
  assert.ok(status.bottom <= universes.top, `${status.bottom} ${universes.top}`);
  assert.equal(await page.evaluate(() => document.querySelector("#status").scrollHeight > document.querySelector("#status").clientHeight), false);
  await page.click("#tab-tree");
  await page.getByRole("button", { name: "New page" }).click();
  await page.focus("#text");
  await page.keyboard.insertText("Once\n".repeat(12));
  await generate(page, 150);
  const end = await page.evaluate(() => document.querySelector("#page").getBoundingClientRect().bottom - innerHeight);
  assert.ok(end < 1, `${end} pixels below the window`);
  await page.setViewportSize({ width: 320, height: 256 });
  assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector(".controls")).position), "static");
  await page.fill("#text", "שלום עולם");
  for (const id of ["#text", "#backdrop"]) assert.equal(await page.evaluate((id) => getComputedStyle(document.querySelector(id)).direction, id), "rtl");
});

noErrors();
