// Pages that are slower than a machine makes them, so that what comes right by luck goes wrong. Each function runs in the
// page, in front of its own scripts.

/** Each frame is up to 0.6 s late and takes up to 60 ms more. */
function slowFrames() {
  const frame = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => setTimeout(() => frame((time) => {
    const end = performance.now() + Math.random() * 60;
    while (performance.now() < end);
    draw(time);
  }), Math.random() * 600);
}

/** Each answer of the server is up to 1.5 s late. */
function slowFetch() {
  const fetch = window.fetch.bind(window);
  window.fetch = async (...asked) => {
    await new Promise((done) => setTimeout(done, Math.random() * 1500));
    return fetch(...asked);
  };
}

/** The database takes 3 s to open. */
function slowDatabase() {
  const open = IDBFactory.prototype.open;
  IDBFactory.prototype.open = function (...asked) {
    const request = open.apply(this, asked);
    Object.defineProperty(request, "onsuccess", { configurable: true, set: (tell) => request.addEventListener("success", (event) => setTimeout(tell, 3000, event)) });
    return request;
  };
}

/** As long as `localStorage.hold` is set, the database does not open until `window.letOpen()`. */
export function holdDatabase() {
  const open = IDBFactory.prototype.open;
  const free = localStorage.hold ? new Promise((done) => (window.letOpen = done)) : Promise.resolve();
  IDBFactory.prototype.open = function (...asked) {
    const request = open.apply(this, asked);
    Object.defineProperty(request, "onsuccess", { configurable: true, set: (tell) => request.addEventListener("success", (event) => free.then(() => tell(event))) });
    return request;
  };
}

/** A processor of a quarter of the speed, for as long as the page lives. */
async function slowProcessor(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("Emulation.setCPUThrottlingRate", { rate: 4 });
}

const KINDS = {
  frames: (page) => page.addInitScript(slowFrames),
  fetch: (page) => page.addInitScript(slowFetch),
  database: (page) => page.addInitScript(slowDatabase),
  processor: slowProcessor,
};

/** Makes a page slow in one of the ways; `kind` empty leaves it alone. */
export async function strain(page, kind) {
  if (!kind) return;
  if (!KINDS[kind]) throw new Error(`STRESS=${kind}: there are ${Object.keys(KINDS).join(", ")}`);
  await KINDS[kind](page);
}
