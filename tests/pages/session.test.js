/** Staying signed in, over real HTTP: when a session is renewed, and what is said of one that has ended. */

import assert from "node:assert/strict";

import { recognise } from "../../http_api/pages/browser/account.js";
import { createLoader } from "../../http_api/pages/browser/loading.js";
import { heedOtherTabs, keepSignedIn, keptSession, resume, sessionOf, whyEnded } from "../../http_api/pages/browser/session.js";
import { createStore } from "../../http_api/pages/browser/store.js";
import { beforeEach, test } from "./harness.js";
import { asked, expect, refusal } from "./server.js";

/** @import {AccountView} from "../../http_api/pages/browser/wire.js" */

const HOUR_MS = 3_600_000;

const looked = Object.assign(new EventTarget(), { visibilityState: "visible" });
/** @type {Map<string, string>} */
const stored = new Map();
/** What the page would do once an hour. @type {(() => void)[]} */
let hourly = [];
/** @type {string[]} */
let said = [];
Object.assign(globalThis, { setInterval: (/** @type {() => void} */ look) => void hourly.push(look) });
Object.defineProperty(globalThis, "document", { value: looked });
const tab = new EventTarget();
Object.assign(globalThis, { window: tab });
Object.defineProperty(globalThis, "localStorage", {
  value: {
    getItem: (/** @type {string} */ key) => stored.get(key) ?? null,
    setItem: (/** @type {string} */ key, /** @type {string} */ text) => void stored.set(key, text),
    removeItem: (/** @type {string} */ key) => void stored.delete(key),
  },
});
console.warn = (...words) => void said.push(words.join(" "));

beforeEach(() => {
  stored.clear();
  hourly = [];
  said = [];
});

/**
 * @param {number} renew_in_ms
 * @param {number} expires_in_ms
 * @returns {AccountView}
 */
const me = (renew_in_ms, expires_in_ms) => ({
  id: "c1",
  role: "customer",
  name: "John Doe",
  email: "driver@example.com",
  session_renew_at: new Date(Date.now() + renew_in_ms).toISOString(),
  session_expires_at: new Date(Date.now() + expires_in_ms).toISOString(),
});
const FRESH = me(84 * HOUR_MS, 168 * HOUR_MS);
const OLD = me(-HOUR_MS, 83 * HOUR_MS);

/** @param {AccountView} account */
async function signedIn(account) {
  const store = createStore();
  keepSignedIn(store);
  store.dispatch({ type: "signed_in", me: account });
  await settled();
  return store;
}

/** Whatever was asked for has been answered. */
async function settled() {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setTimeout(resolve, 1));
}

const calls = () => asked.map(({ call }) => call);

test("a session that is older than half its life is renewed when the page is opened, once", async () => {
  expect("POST /api/auth/renew", { status: 200, body: { account: FRESH, expires_at: FRESH.session_expires_at } });
  expect("GET /api/me", { status: 200, body: FRESH });
  const store = await signedIn(OLD);
  assert.deepEqual(calls(), ["POST /api/auth/renew", "GET /api/me"]);
  assert.deepEqual(store.state.session, sessionOf(FRESH));
  // Who is here has not changed: nothing is loaded anew.
  assert.deepEqual(store.state.me, OLD);
  looked.dispatchEvent(new Event("visibilitychange"));
  hourly.forEach((look) => look());
  await settled();
  assert.equal(calls().length, 2);
});

test("a younger one is left alone, until it has grown older while the page was open", async () => {
  const store = await signedIn(FRESH);
  assert.deepEqual(calls(), []);
  expect("POST /api/auth/renew", { status: 200, body: {} }, { status: 200, body: {} });
  expect("GET /api/me", { status: 200, body: OLD }, { status: 200, body: FRESH });
  store.dispatch({ type: "session_renewed", session: sessionOf(OLD) });
  hourly.forEach((look) => look());
  await settled();
  looked.dispatchEvent(new Event("visibilitychange"));
  await settled();
  assert.deepEqual(calls().filter((call) => call.startsWith("POST")).length, 2);
  assert.deepEqual(store.state.session, sessionOf(FRESH));
});

test("a server that does not say how long a session is good is asked for nothing", async () => {
  const { session_renew_at, session_expires_at, ...account } = OLD;
  const store = await signedIn(account);
  assert.deepEqual([calls(), store.state.session, session_renew_at === session_expires_at], [[], null, false]);
});

test("a renewal that does not succeed leaves everything as it is, for the next time", async () => {
  const store = await signedIn(OLD);
  assert.deepEqual([store.state.me, store.state.session], [OLD, sessionOf(OLD)]);
  assert.match(said.join(), /could not be renewed/);
});

test("why a session is over follows from how long it was good", () => {
  assert.equal(whyEnded({ expires_ms: Date.now() - 5_000 }), "expired");
  // The page's idea of the server's time lags behind by as much as a second.
  assert.equal(whyEnded({ expires_ms: Date.now() + 900 }), "expired");
  assert.equal(whyEnded({ expires_ms: Date.now() + HOUR_MS }), "elsewhere");
  assert.equal(whyEnded(null), null);
});

test("whoever asks after their session was ended elsewhere is told so, and whoever leaves is told nothing", async () => {
  const store = await signedIn(FRESH);
  expect("GET /api/favorites", refusal("unauthenticated", 401));
  await createLoader(store).favorites();
  assert.deepEqual([store.state.me, store.state.ended], [null, "elsewhere"]);
  // A call that was under way at the same time knows less, and changes nothing of that.
  store.dispatch({ type: "signed_out" });
  assert.equal(store.state.ended, "elsewhere");
  store.dispatch({ type: "signed_in", me: FRESH });
  assert.equal(store.state.ended, null);
  store.dispatch({ type: "signed_out" });
  assert.equal(store.state.ended, null);
});

test("who is here is not asked again before the server lets it be", async () => {
  const { setTimeout: later } = globalThis;
  /** @type {(number | undefined)[]} */
  const waits = [];
  Object.assign(globalThis, {
    setTimeout: (/** @type {() => void} */ act, /** @type {number} */ wait_ms) => (waits.push(wait_ms), later(act, 0)),
  });
  const busy = { ...refusal("unavailable", 503), headers: { "retry-after": "7" } };
  expect("GET /api/me", busy, { status: 200, body: FRESH });
  const store = createStore();
  try {
    await recognise(store, () => {});
  } finally {
    Object.assign(globalThis, { setTimeout: later });
  }
  assert.deepEqual([store.state.me?.id, waits], ["c1", [7_000]]);
});

test("the session is remembered for the next visit, and forgotten when somebody signs out", async () => {
  const store = await signedIn(FRESH);
  assert.equal(keptSession.recall()?.expires_ms, sessionOf(FRESH)?.expires_ms);
  store.dispatch({ type: "signed_out" });
  await settled();
  assert.equal(keptSession.recall(), null);
  stored.set("pitlane.session", '"of another version"');
  assert.equal(keptSession.recall(), null);
  stored.set("pitlane.session", "no JSON");
  assert.equal(keptSession.recall(), null);
});

for (const [claim, expires_in_ms, ended] of /** @type {const} */ ([
  ["has expired", -HOUR_MS, "expired"],
  ["was ended elsewhere", HOUR_MS, "elsewhere"],
])) {
  test(`whoever comes back when their session ${claim} is told so, once`, async () => {
    keptSession.keep(sessionOf(me(expires_in_ms - HOUR_MS, expires_in_ms)));
    expect("GET /api/me", refusal("unauthenticated", 401), refusal("unauthenticated", 401));
    for (const told of [ended, null]) {
      const store = createStore();
      await recognise(store, () => {});
      assert.deepEqual([store.state.me, store.state.ended], [null, told]);
    }
  });
}

test("what another tab has renewed is known once it is asked for", async () => {
  const store = await signedIn(me(HOUR_MS, 2 * HOUR_MS));
  expect("GET /api/me", { status: 200, body: FRESH });
  assert.equal(await createLoader(store).stillSignedIn(), true);
  assert.deepEqual(store.state.session, sessionOf(FRESH));
});

for (const [claim, answer, starts] of /** @type {const} */ ([
  ["a socket whose token has ended is opened anew with the session that was renewed", { status: 200, body: FRESH }, 1],
  ["also while nobody can tell", "lost", 1],
  ["but not for somebody who is signed out", refusal("unauthenticated", 401), 0],
])) {
  test(claim, async () => {
    const store = await signedIn(FRESH);
    let started = 0;
    expect("GET /api/me", answer);
    await resume({ start: () => void (started += 1) }, createLoader(store));
    assert.deepEqual([started, store.state.me === null], [starts, starts === 0]);
  });
}

test("whoever finds somebody else signed in is here no more, and their socket is not opened for the other", async () => {
  const store = await signedIn(FRESH);
  let started = 0;
  expect("GET /api/me", { status: 200, body: { ...FRESH, id: "c2" } });
  await resume({ start: () => void (started += 1) }, createLoader(store));
  assert.deepEqual([store.state.me, store.state.ended, started], [null, "elsewhere", 0]);
});

test("a session that is renewed by now for somebody else is not this one", async () => {
  expect("POST /api/auth/renew", { status: 200, body: {} });
  expect("GET /api/me", { status: 200, body: { ...FRESH, id: "c2" } });
  const store = await signedIn(OLD);
  assert.deepEqual([store.state.me, store.state.ended], [null, "elsewhere"]);
});

test("what another tab does to the session is looked at once, whoever is here", async () => {
  const store = await signedIn(FRESH);
  heedOtherTabs(createLoader(store));
  /** @param {string} key */
  const changed = (key) => tab.dispatchEvent(Object.assign(new Event("storage"), { key }));
  changed("of.another.page");
  expect("GET /api/me", { status: 200, body: FRESH }, { status: 200, body: { ...FRESH, id: "c2" } });
  changed("pitlane.session");
  await settled();
  assert.deepEqual([calls(), store.state.me?.id], [["GET /api/me"], "c1"]);
  changed("pitlane.session");
  await settled();
  assert.deepEqual([store.state.me, store.state.ended], [null, "elsewhere"]);
  changed("pitlane.session");
  await settled();
  assert.equal(calls().length, 2, "nobody is here to be somebody else");
});
