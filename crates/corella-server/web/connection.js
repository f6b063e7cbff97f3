// The server: which models it has, and whether it answers.

import * as api from "./api.js";
import { byId, el } from "./dom.js";
import { modelHasCome, sayUntilModel } from "./status.js";

/** `onModel()` is called once the server has told of its models, `onDemos()` when the demonstrations have come. */
export function connection({ onModel, onDemos }) {
  let model = null;
  let peers = [];
  let demos = null;
  let connecting = false;
  /** Whether the reader was asked for a key and gave none. */
  let wantsKey = false;

  const show = (name, dot) => {
    byId("model-name").textContent = name;
    byId("dot").className = "dot " + dot;
  };

  /** Says why there is no model yet. */
  function sayMissing() {
    const enter = el("button", { type: "button", className: "small", onclick: connect }, "Enter it");
    sayUntilModel(wantsKey ? ["This server wants an API key. ", enter] : "The model is not there yet: " + byId("model-name").textContent, true);
  }

  /** Asks for the model until the server has loaded it. */
  async function connect() {
    if (connecting) return;
    connecting = true;
    wantsKey = false;
    for (;;) {
      try {
        [model, ...peers] = await api.models();
        show(`${model.id} · ${model.base === false ? "instruct model" : "base model"}`, "up");
        // All that the reader is told about the model is told now: what comes later must not take away a newer message.
        modelHasCome();
        onModel();
        demos = (await api.getJson("/corella/demos")).demos;
        onDemos();
        byId("run-link").hidden = (await api.getJson("/corella/run")) === null;
        break;
      } catch (error) {
        show(error.status === 503 ? error.message : error.status === 401 ? "the server wants a key" : "not connected", "down");
        if (error.status === 401) {
          if (api.askForKey()) continue;
          wantsKey = true;
          sayMissing();
          break;
        }
        if (error.status === 503 && byId("run-link").hidden) await lookForRun();
        await new Promise((done) => setTimeout(done, 1000));
      }
    }
    connecting = false;
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

  return {
    connect,
    /** A request has failed: where the server did not answer at all it is asked for until it does. */
    failed(error) {
      if (error.status === 0) connect();
    },
    get model() {
      return model;
    },
    get peers() {
      return peers;
    },
    get demos() {
      return demos;
    },
    sayMissing,
  };
}
