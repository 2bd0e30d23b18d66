/**
 * One socket that stays alive, against a real WebSocket server. The page's own time passes only when a test says so, and
 * a draw is always the middle: nothing here depends on how fast the machine is.
 */

import assert from "node:assert/strict";

import { LiveSocket } from "../../http_api/pages/browser/socket.js";
import { afterAll, afterEach, beforeEach, test } from "./harness.js";
import { aCustomerWelcome, aRequest } from "./samples.js";

/** @import {ConnectionState} from "../../http_api/pages/browser/socket.js" */

const BEAT_MS = 10_000;
const WELCOME_TIMEOUT_MS = 10_000;
const PROBE_TIMEOUT_MS = 4_000;
const STABLE_AFTER_MS = 10_000;

// ---- time and chance ----------------------------------------------------------------------------------------------

const { setTimeout: later } = globalThis;
let now_ms = 0;
let last_timer = 0;
/** @type {Map<number, {at_ms: number, act: () => void}>} */
const timers = new Map();
/** How long the page meant to wait, each time. @type {number[]} */
let waits = [];

Object.assign(globalThis, {
  setTimeout(/** @type {() => void} */ act, /** @type {number} */ wait_ms) {
    waits.push(wait_ms);
    timers.set((last_timer += 1), { at_ms: now_ms + wait_ms, act });
    return last_timer;
  },
  clearTimeout: (/** @type {number} */ timer) => timers.delete(timer),
});
Math.random = () => 0.5;

/** @param {number} ms */
function pass(ms) {
  const until_ms = now_ms + ms;
  for (;;) {
    const [next] = [...timers].sort(([, a], [, b]) => a.at_ms - b.at_ms);
    if (!next || next[1].at_ms > until_ms) break;
    now_ms = next[1].at_ms;
    timers.delete(next[0]);
    next[1].act();
  }
  now_ms = until_ms;
}

// ---- the server ---------------------------------------------------------------------------------------------------

/** One connection as the server sees it. @typedef {{path: string, heard: string[], line: WebSocket, closed: number | null}} Visit */

/** @type {Visit[]} */
let visits = [];
let manners = { opens: true, welcomes: true, answers: true };

const { Deno } = /** @type {any} */ (globalThis);
const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (/** @type {Request} */ request) => {
  /** @type {Visit} */
  const visit = { path: new URL(request.url).pathname, heard: [], line: /** @type {any} */ (null), closed: null };
  visits.push(visit);
  if (!manners.opens) return new Response(null, { status: 401 });
  const { socket, response } = Deno.upgradeWebSocket(request);
  visit.line = socket;
  socket.onopen = () => manners.welcomes && socket.send(JSON.stringify(WELCOME));
  socket.onmessage = (/** @type {MessageEvent} */ { data }) => {
    visit.heard.push(data);
    if (manners.answers && data === HEARTBEAT) socket.send('{"type":"heartbeat_ack","server_time":""}');
  };
  socket.onclose = (/** @type {CloseEvent} */ { code }) => (visit.closed = code);
  return response;
});
afterAll(() => server.shutdown());

const WELCOME = aCustomerWelcome({ heartbeat_interval_s: BEAT_MS / 1_000 });
const HEARTBEAT = '{"type":"heartbeat"}';
const NEWER = '{"type":"of_a_newer_server"}';

/** The newest connection. */
const line = () => /** @type {WebSocket} */ (visits.at(-1)?.line);
const beats = () => visits.at(-1)?.heard.filter((text) => text === HEARTBEAT).length;

// ---- the page -----------------------------------------------------------------------------------------------------

const tab = { window: new EventTarget(), document: Object.assign(new EventTarget(), { visibilityState: "visible" }) };
let is_online = true;
Object.assign(globalThis, tab);
Object.defineProperty(globalThis, "location", { value: { href: `http://127.0.0.1:${server.addr.port}/` } });
Object.defineProperty(navigator, "onLine", { get: () => is_online });

/** @type {ConnectionState[]} */
let states = [];
/** @type {any[]} */
let messages = [];
let signed_out = 0;
let refused = 0;
/** @type {LiveSocket<"/ws/customer">} */
let socket;

beforeEach(() => {
  timers.clear();
  [waits, visits, states, messages] = [[], [], [], []];
  [signed_out, refused, is_online] = [0, 0, true];
  manners = { opens: true, welcomes: true, answers: true };
  socket = new LiveSocket("/ws/customer", {
    message: (message) => messages.push(message),
    state: (state) => states.push(state),
    signedOut: () => (signed_out += 1),
    refused: () => (refused += 1),
  });
});
afterEach(() => socket.stop());

/** @param {number} ms  of real time */
const sleep = (ms) => new Promise((resolve) => later(resolve, ms));

/**
 * Wait, in real time, for what the network brings.
 * @param {string} what
 * @param {() => unknown} fact
 */
async function until(what, fact) {
  for (let tries = 0; !fact(); tries += 1) {
    assert.ok(tries < 10_000, `never came: ${what}`);
    await sleep(1);
  }
}

/** @param {ConnectionState} state */
const isNow = (state) => until(state, () => states.at(-1) === state);

async function live() {
  socket.start();
  await isNow("live");
}

/**
 * The line is lost; return how long the page is going to wait.
 * @param {number} [code]
 */
async function lostBy(code) {
  line().close(code);
  await isNow("reconnecting");
  return waits.at(-1);
}

/** The wait is over, and the server is there. */
async function back() {
  pass(waits.at(-1) ?? 0);
  await isNow("live");
}

// ---- the dialogue -------------------------------------------------------------------------------------------------

test("the line is up once the server has said welcome, and not before", async () => {
  manners.welcomes = false;
  socket.start();
  await until("a connection", () => line()?.readyState === WebSocket.OPEN);
  assert.equal(visits[0]?.path, "/ws/customer");
  assert.deepEqual([states, socket.send({ type: "watch", mechanic_ids: [] })], [["connecting"], false]);
  line().send(JSON.stringify(WELCOME));
  await isNow("live");
  assert.equal(socket.send({ type: "watch", mechanic_ids: ["m1"] }), true);
  await until("the message", () => visits[0]?.heard.includes('{"type":"watch","mechanic_ids":["m1"]}'));
});

test("messages are told with when they came; acknowledgements and what is no JSON are not", async () => {
  await live();
  const before_ms = performance.now();
  const update = JSON.stringify({ type: "request_update", request: aRequest() });
  for (const text of ["{", '{"type":"heartbeat_ack","server_time":""}', update]) line().send(text);
  await until("the update", () => messages.length === 2);
  assert.deepEqual(
    messages.map(({ type }) => type),
    ["welcome", "request_update"],
  );
  assert.ok(messages[1].received_ms >= before_ms && messages[1].received_ms <= performance.now());
});

test("starting twice is starting once", async () => {
  await live();
  socket.start();
  await sleep(20);
  assert.equal(visits.length, 1);
});

test("the first beat falls into the interval, and each next one an interval later", async () => {
  await live();
  pass(BEAT_MS / 2 - 1);
  await sleep(5);
  assert.equal(beats(), 0);
  pass(1);
  for (const count of [1, 2, 3]) {
    await until("an answer", () => states.filter((state) => state === "live").length === 1 + count);
    assert.equal(beats(), count);
    pass(BEAT_MS);
  }
  assert.equal(visits.length, 1, "answered beats keep the line");
});

test("without a pace of the server's the page has its own", async () => {
  manners.welcomes = false;
  socket.start();
  await until("a connection", () => line()?.readyState === WebSocket.OPEN);
  line().send('{"type":"welcome"}');
  await isNow("live");
  assert.equal(waits.at(-1), 10_000, "half of twenty seconds");
});

test("a beat that nobody answered until the next one means that the line is dead", async () => {
  manners.answers = false;
  await live();
  pass(BEAT_MS / 2);
  await until("a beat", () => beats() === 1);
  assert.equal(states.at(-1), "live");
  pass(BEAT_MS);
  assert.equal(states.at(-1), "reconnecting");
  await until("the goodbye", () => visits[0]?.closed !== null);
  assert.equal(beats(), 1);
});

test("anything that is heard is a sign of life", async () => {
  manners.answers = false;
  await live();
  pass(BEAT_MS / 2);
  line().send(NEWER);
  await until("the message", () => messages.length === 2);
  pass(BEAT_MS);
  await until("the next beat", () => beats() === 2);
  assert.equal(states.at(-1), "live");
});

test("a server that opens and then says nothing is given up, and not before its time", async () => {
  manners.welcomes = false;
  socket.start();
  await until("a connection", () => line()?.readyState === WebSocket.OPEN);
  tab.window.dispatchEvent(new Event("online"));
  assert.deepEqual(waits, [WELCOME_TIMEOUT_MS], "whoever is connecting already need not hurry");
  pass(WELCOME_TIMEOUT_MS - 1);
  assert.equal(states.at(-1), "connecting");
  pass(1);
  assert.equal(states.at(-1), "reconnecting");
});

test("after a close the page waits as the table says", async () => {
  await live();
  // The middle of 500 · 2⁰, of 2,000 · 2¹, and of the upper half of 15,000 · 2².
  for (const [code, wait_ms] of /** @type {const} */ ([
    [1011, 250],
    [1012, 2_000],
    [1008, 45_000],
  ])) {
    assert.equal(await lostBy(code), wait_ms);
    await back();
  }
});

test("no wait is cut short", async () => {
  await live();
  await lostBy(1011);
  pass(249);
  await sleep(20);
  assert.equal(visits.length, 1);
  pass(1);
  await isNow("live");
  assert.equal(visits.length, 2);
});

test("an expired token ends it: whoever has to sign in is not kept waiting", async () => {
  await live();
  line().close(4401);
  await until("signed out", () => signed_out === 1);
  assert.deepEqual(states, ["connecting", "live", "closed"]);
  assert.equal(timers.size, 0);
});

test("each failure doubles the wait, and now and then it is asked whether anybody is signed in at all", async () => {
  manners.opens = false;
  socket.start();
  const seen = [];
  for (let count = 1; count <= 6; count += 1) {
    await until("a failure", () => visits.length === count && states.length === count + 1);
    seen.push([waits.at(-1), refused]);
    pass(waits.at(-1) ?? 0);
  }
  assert.deepEqual(seen, [
    [250, 0],
    [500, 1],
    [1_000, 1],
    [2_000, 1],
    [4_000, 1],
    [8_000, 2],
  ]);
});

test("whoever was welcome does not doubt that they are signed in", async () => {
  await live();
  for (let count = 0; count < 3; count += 1) {
    await lostBy(1011);
    await back();
  }
  assert.equal(refused, 0);
});

test("only a line that has held for a while has earned a fresh start", async () => {
  await live();
  assert.equal(await lostBy(1011), 250);
  await back();
  pass(STABLE_AFTER_MS - 1);
  assert.equal(await lostBy(1011), 500);
  await back();
  pass(STABLE_AFTER_MS);
  assert.equal(await lostBy(1011), 250);
});

test("whoever comes back, or back online, does not sit out a long wait", async () => {
  await live();
  for (const [target, name] of /** @type {[EventTarget, string][]} */ ([
    [tab.window, "online"],
    [tab.window, "pageshow"],
    [tab.document, "visibilitychange"],
  ])) {
    await lostBy(1008);
    target.dispatchEvent(new Event(name));
    assert.equal(waits.at(-1), 250, name);
    await back();
  }
});

test("who hurries and fails waits longer again, but not as long as before", async () => {
  await live();
  for (const wait_ms of [250, 500, 1_000]) {
    assert.equal(await lostBy(1011), wait_ms);
    await back();
  }
  assert.equal(await lostBy(1011), 2_000);
  manners.opens = false;
  const count = states.length;
  tab.window.dispatchEvent(new Event("online"));
  pass(250);
  await until("a failure", () => states.length === count + 1);
  assert.equal(waits.at(-1), 500);
});

test("a tab that is being hidden is no reason to hurry", async () => {
  await live();
  await lostBy(1008);
  tab.document.visibilityState = "hidden";
  tab.document.dispatchEvent(new Event("visibilitychange"));
  tab.document.visibilityState = "visible";
  assert.equal(waits.at(-1), 11_250);
});

test("a line that may be dead is asked at once, and given up if it does not answer soon", async () => {
  await live();
  tab.window.dispatchEvent(new Event("online"));
  await until("the answer", () => states.length === 3);
  assert.equal(beats(), 1, "before its time");
  pass(PROBE_TIMEOUT_MS);
  assert.equal(states.at(-1), "live", "it has answered");

  manners.answers = false;
  tab.window.dispatchEvent(new Event("offline"));
  assert.equal(states.at(-1), "live", "the hint may be wrong");
  pass(PROBE_TIMEOUT_MS);
  assert.equal(states.at(-1), "reconnecting");
});

test("without a network the page says so, where it has heard nothing better", async () => {
  manners.welcomes = false;
  socket.start();
  tab.window.dispatchEvent(new Event("offline"));
  assert.equal(states.at(-1), "offline");
  await until("a connection", () => line()?.readyState === WebSocket.OPEN);
  is_online = false;
  states = [];
  line().close(1011);
  await isNow("offline");
});

test("whoever stops says goodbye, is told nothing more, and may start again", async () => {
  await live();
  const [first] = visits;
  socket.stop();
  line().send(NEWER);
  assert.equal(socket.send({ type: "watch", mechanic_ids: [] }), false);
  await until("the goodbye", () => first?.closed === 1000);
  tab.window.dispatchEvent(new Event("online"));
  assert.deepEqual([states, messages.length, timers.size], [["connecting", "live", "closed"], 1, 0]);
  socket.stop();
  assert.equal(states.length, 3, "stopping twice is stopping once");
  await live();
  assert.equal(visits.length, 2);
});

test("whoever stops while waiting does not come back, whatever happens to the tab", async () => {
  await live();
  await lostBy(1011);
  socket.stop();
  for (const name of ["online", "pageshow", "offline"]) tab.window.dispatchEvent(new Event(name));
  tab.document.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual([states.at(-1), timers.size], ["closed", 0]);
});

test("whoever stops because the handshake keeps failing is not brought back", async () => {
  manners.opens = false;
  const impatient = new LiveSocket("/ws/customer", {
    message: () => {},
    state: (state) => states.push(state),
    signedOut: () => {},
    refused: () => impatient.stop(),
  });
  impatient.start();
  await until("the first failure", () => states.at(-1) === "reconnecting");
  pass(250);
  await until("the second failure", () => states.at(-1) === "closed");
  assert.equal(timers.size, 0);
});
