/** Notifications in a browser that a test plays: what is said where there is no worker, and that nothing waits for ever. */

import assert from "node:assert/strict";

import { deviceName } from "../../http_api/pages/browser/device-name.js";
import * as push from "../../http_api/pages/browser/push.js";
import { afterAll, beforeEach, test } from "./harness.js";
import { asked, expect } from "./server.js";
import { pass, timeBeginsAnew, timers, until } from "./time.js";

const WORKER_TIMEOUT_MS = 10_000;
const ENDPOINT = "https://push.example/1";
const KEY = { status: 200, body: { public_key: "AQID" } };
const SUBSCRIBED = { status: 201, body: {} };

// ---- the browser --------------------------------------------------------------------------------------------------

/** @type {any} */
let own = null;

class Worker extends EventTarget {
  state = "installing";

  /** @param {string} state */
  becomes(state) {
    this.state = state;
    this.dispatchEvent(new Event("statechange"));
  }
}

const subscription = {
  endpoint: ENDPOINT,
  options: {},
  toJSON: () => ({ endpoint: ENDPOINT, keys: { p256dh: "p", auth: "a" } }),
};
const aRegistration = () => ({
  active: /** @type {Worker | null} */ (null),
  installing: /** @type {Worker | null} */ (new Worker()),
  waiting: null,
  pushManager: {
    getSubscription: async () => own,
    subscribe: async () => (own = subscription),
  },
});
let registration = aRegistration();
/** What `register()` answers. @type {() => Promise<unknown>} */
let register;
let registered = 0;

Object.defineProperty(navigator, "serviceWorker", {
  configurable: true,
  value: {
    register: () => ((registered += 1), register()),
    ready: new Promise(() => {}),
    getRegistration: async () => undefined,
  },
});
const browser = {
  window: { PushManager: {}, Notification: {} },
  Notification: { permission: "granted", requestPermission: async () => "granted" },
  matchMedia: () => ({ matches: false }),
  isSecureContext: true,
};
for (const [name, value] of Object.entries(browser)) Object.defineProperty(globalThis, name, { value, configurable: true });
const { warn } = console;
console.warn = () => {};
afterAll(() => void (console.warn = warn));

// ---- the page -----------------------------------------------------------------------------------------------------
// It is loaded once: each test but the last leaves it without a worker.

beforeEach(() => {
  timeBeginsAnew();
  [own, registered] = [null, 0];
  registration = aRegistration();
  register = async () => registration;
});

test("a browser that never says whether it takes the worker is one without", async () => {
  register = () => new Promise(() => {});
  const state = push.pushState();
  pass(WORKER_TIMEOUT_MS);
  assert.equal(await state, "unsupported");
});

test("a worker that cannot be installed, or never is, is not waited for, and another is tried after it", async () => {
  for (const gives_up of [() => registration.installing?.becomes("redundant"), () => pass(WORKER_TIMEOUT_MS)]) {
    timeBeginsAnew();
    registration = aRegistration();
    const turning = push.turnOn();
    await until("the wait", () => timers.size === 1);
    gives_up();
    await assert.rejects(turning, Error);
  }
  assert.equal(registered, 2);
});

test("without a worker there is nothing to turn on, until the browser takes one after all", async () => {
  register = async () => {
    throw new TypeError("Service workers are off here.");
  };
  await push.startWorker();
  assert.deepEqual([await push.pushState(), await push.turnOn(), await push.ownHash()], ["unsupported", "unsupported", null]);
  assert.equal(asked.length, 0);

  register = async () => registration;
  assert.equal(await push.pushState(), "off", "no reload is needed");
  expect("GET /api/push/key", KEY);
  expect("POST /api/push/subscriptions", SUBSCRIBED);
  const turning = push.turnOn();
  await until("the wait for the worker", () => timers.size === 1);
  assert.equal(asked.length, 0);
  registration.active = registration.installing;
  registration.installing?.becomes("activating");
  assert.equal(await turning, "on");
  const [, subscribed] = asked;
  assert.deepEqual([subscribed?.body.label, subscribed?.body.endpoint], [deviceName(), ENDPOINT]);
  assert.deepEqual([await push.pushState(), timers.size], ["on", 0]);
});
