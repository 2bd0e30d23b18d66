/** Calls over real HTTP: what they ask for, what becomes of each kind of failure, and what is loaded into the store. */

import assert from "node:assert/strict";

import { Rest } from "../../clients/javascript/rest.js";
import * as api from "../../http_api/pages/browser/api.js";
import { serverNow } from "../../http_api/pages/browser/clock.js";
import { createLoader } from "../../http_api/pages/browser/loading.js";
import { createStore } from "../../http_api/pages/browser/store.js";
import { afterEach, beforeEach, test } from "./harness.js";
import { aFavorite, aPlan, aRequest, aStatus } from "./samples.js";
import { asked, expect, refusal } from "./server.js";

const { ApiError, messageOf } = api;
const ODD = "a/b c";
const { timeout } = AbortSignal;
const { warn, error: logError } = console;
/** @type {unknown[][]} */
let said = [];

beforeEach(() => {
  said = [];
  console.warn = (...what) => said.push(what);
  console.error = (...what) => said.push(what);
});
afterEach(() => {
  AbortSignal.timeout = timeout;
  Object.assign(console, { warn, error: logError });
});

/**
 * @param {Promise<unknown>} call
 * @returns {Promise<InstanceType<typeof ApiError>>}
 */
async function failure(call) {
  try {
    await call;
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error("it has succeeded");
}

// ---- what is asked for --------------------------------------------------------------------------------------------

const credentials = { email: "driver@example.com", password: "correct horse" };
const account = { ...credentials, name: "John Doe" };

/** @type {[() => Promise<unknown>, string, unknown][]} */
const CALLS = [
  [api.getConfig, "GET /api/config", null],
  [api.getMe, "GET /api/me", null],
  [() => api.login(credentials), "POST /api/auth/login", credentials],
  [() => api.register(account), "POST /api/auth/register", account],
  [api.logout, "POST /api/auth/logout", null],
  [api.getFavorites, "GET /api/favorites", null],
  [() => api.addFavorite(ODD), "PUT /api/favorites/a%2Fb%20c", null],
  [() => api.removeFavorite(ODD), "DELETE /api/favorites/a%2Fb%20c", null],
  [() => api.getStatus(ODD, AbortSignal.timeout(9_000)), "GET /api/mechanics/a%2Fb%20c/status", null],
  [() => api.getAvailability(null), "GET /api/mechanics/availability", null],
  [() => api.getAvailability(ODD), "GET /api/mechanics/availability?plan=a%2Fb%20c", null],
  [api.getPlans, "GET /api/plans", null],
  [() => api.getCheckout(ODD), "GET /api/checkout/a%2Fb%20c", null],
  [() => api.getRequests(null), "GET /api/requests?limit=10", null],
  [() => api.getRequests(ODD), "GET /api/requests?limit=10&cursor=a%2Fb%20c", null],
  [() => api.getRequest(ODD), "GET /api/requests/a%2Fb%20c", null],
  [() => api.actOnRequest(ODD, "skip-wait"), "POST /api/requests/a%2Fb%20c/skip-wait", null],
];

for (const [ask, call, body] of CALLS) {
  test(`${call}: is what is asked for, and its answer is what comes back`, async () => {
    const answer = { what: "was asked for" };
    expect(call, { status: 200, body: answer });
    assert.deepEqual(await ask(), answer);
    const type = body === null ? undefined : "application/json";
    assert.deepEqual(asked, [{ call, key: undefined, type, account: undefined, body }]);
  });
}

test("an answer that is to have no body is null", async () => {
  expect("POST /api/auth/logout", { status: 204 });
  assert.equal(await api.logout(), null);
});

test("a call says whose it is, but not the one that asks who is signed in", async () => {
  try {
    api.callFor("c1");
    for (const call of ["GET /api/plans", "GET /api/me", "POST /api/offers/o1/decline"]) expect(call, { status: 200, body: {} });
    await api.getPlans();
    api.declineInPassing("o1", null);
    await api.getMe();
    while (asked.length < 3) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.deepEqual(
      asked.map(({ call, account }) => [call, account]).sort(),
      [["GET /api/me", undefined], ["GET /api/plans", "c1"], ["POST /api/offers/o1/decline", "c1"]],
    );
  } finally {
    api.callFor(null);
  }
});

test("every answer says what time it is on the server", async () => {
  expect("GET /api/config", { status: 200, body: {}, headers: { date: "Sun, 22 Nov 2026 09:30:00 GMT" } });
  await api.getConfig();
  assert.ok(Math.abs(serverNow() - Date.parse("2026-11-22T09:30:00Z")) < 5_000);
});

// ---- what becomes of a failure ------------------------------------------------------------------------------------

test("a refusal says in the server's words what was wrong with what", async () => {
  const errors = [{ field: "email", message: "Is required." }];
  const body = {
    type: "/problems/validation_failed",
    title: "",
    status: 422,
    code: "validation_failed",
    detail: "No.",
    errors,
  };
  expect("GET /api/me", { status: 422, body });
  const { name, code, message, status, errors: named, retry_after_s, mayRetry } = await failure(api.getMe());
  assert.deepEqual(
    { name, code, message, status, named, retry_after_s, mayRetry },
    {
      name: "PitlaneError",
      code: "validation_failed",
      message: "No.",
      status: 422,
      named: errors,
      retry_after_s: null,
      mayRetry: false,
    },
  );
});

test("a refusal without details has none", async () => {
  expect("GET /api/me", refusal("wrong_role", 403));
  assert.deepEqual((await failure(api.getMe())).errors, []);
});

test("a refusal that says when to come back is heard", async () => {
  expect("GET /api/me", { ...refusal("too_many_attempts", 429), headers: { "retry-after": "17" } });
  const { retry_after_s, mayRetry } = await failure(api.getMe());
  assert.deepEqual([retry_after_s, mayRetry], [17, true]);
});

test("what a proxy answers is not taken for the server's word, JSON or not", async () => {
  const page = { body: "<h1>Bad gateway</h1>", type: "text/html" };
  const torn = { body: "{", type: "application/problem+json" };
  const json = { body: { code: "ours?", detail: "No.", errors: "many" }, type: "application/json" };
  for (const [status, sentence, mayRetry] of /** @type {const} */ ([
    [500, "The server has a problem just now. Please try again.", true],
    ...[401, 403, 404].map((status) => /** @type {const} */ ([
      status,
      `Something on the way to the server refused this (${status}). Please try again.`,
      true,
    ])),
  ])) {
    for (const answer of [page, json, torn, {}]) {
      expect("GET /api/me", { status, ...answer });
      const error = await failure(api.getMe());
      assert.deepEqual([error.code, error.message, error.mayRetry], [`http_${status}`, sentence, mayRetry]);
      assert.deepEqual([error.status, error.errors, error.is_ours, error.isSignedOut], [status, [], false, false]);
    }
  }
});

test("an answer that did not arrive, or cannot be read, leaves everything open", async () => {
  expect("GET /api/me", "lost", { status: 200, body: "{" });
  const lost = await failure(api.getMe());
  assert.deepEqual([lost.code, lost.status, lost.mayRetry, lost.errors], ["network", 0, true, []]);
  const torn = await failure(api.getMe());
  assert.deepEqual([torn.code, torn.status, torn.mayRetry], ["unreadable", 0, true]);
});

test("where there is to be a body, nothing is no answer, and nor is what is no object", async () => {
  const bodies = ["", " ", "null", "7", '"text"', "true"];
  expect("GET /api/me", ...bodies.map((body) => ({ status: 200, body, type: "application/json" })), { status: 201 });
  for (const body of [...bodies, undefined]) {
    const { code, status, mayRetry, is_ours } = await failure(api.getMe());
    assert.deepEqual([code, status, mayRetry, is_ours], ["unreadable", 0, true, false], JSON.stringify(body));
  }
});

test("whoever waits too long gives up", async () => {
  /** @type {number[]} */
  const patience = [];
  AbortSignal.timeout = (ms) => {
    patience.push(ms);
    return timeout.call(AbortSignal, 20);
  };
  expect("GET /api/me", "held");
  const { code, message, mayRetry } = await failure(api.getMe());
  assert.deepEqual(
    [code, message, mayRetry],
    ["timeout", "The server is taking too long to answer. Please try again.", true],
  );
  expect("POST /api/checkout", "held");
  await failure(api.makeCheckout({ plan: "expert_video", routing_type: "broadcast" }, "key"));
  assert.deepEqual(patience, [10_000, 25_000], "a checkout waits for Stripe, too");
});

test("a call that the page itself has given up is no failure to be shown", async () => {
  expect("GET /api/mechanics/m1/status", "held");
  const asking = new AbortController();
  const call = api.getStatus("m1", asking.signal);
  asking.abort();
  await assert.rejects(call, (error) => !(error instanceof ApiError) && asking.signal.aborted);
});

test("a call that may be given up has no more patience than the others", async () => {
  AbortSignal.timeout = () => timeout.call(AbortSignal, 20);
  expect("GET /api/mechanics/m1/status", "held");
  assert.equal((await failure(api.getStatus("m1", new AbortController().signal))).code, "timeout");
});

test("whoever is asked for the token and never answers is not waited for any longer", async () => {
  AbortSignal.timeout = () => timeout.call(AbortSignal, 20);
  const rest = new Rest({ base: "http://127.0.0.1", token: () => new Promise(() => {}) });
  assert.equal((await failure(rest.call("GET", "/api/me"))).code, "timeout");
});

test("a fault of our own leaves its trace in the console, and a sentence on the page", () => {
  const fault = new TypeError("oops");
  assert.equal(messageOf(fault), "Something went wrong on this page. Please reload it.");
  assert.deepEqual(said, [[fault]]);
  assert.equal(messageOf(new ApiError("network", "We cannot reach the server.")), "We cannot reach the server.");
  assert.equal(said.length, 1);
});

// ---- what is loaded into the store --------------------------------------------------------------------------------

function page() {
  const store = createStore();
  store.dispatch({ type: "signed_in", me: { id: "c1", role: "customer", name: "John Doe", email: "d@example.com" } });
  return { store, load: createLoader(store) };
}

test("what is loaded is where it belongs", async () => {
  const { store, load } = page();
  expect("GET /api/favorites", { status: 200, body: { favorites: [aFavorite()] } });
  expect("GET /api/plans", { status: 200, body: { plans: [aPlan()] } });
  expect("GET /api/requests?limit=10", { status: 200, body: { requests: [aRequest()], next_cursor: "r1" } });
  expect("GET /api/requests?limit=10&cursor=r1", {
    status: 200,
    body: { requests: [aRequest({ id: "r0" })], next_cursor: null },
  });
  expect("GET /api/requests/r2", { status: 200, body: aRequest({ id: "r2" }) });
  expect("GET /api/mechanics/availability", { status: 200, body: { available_count: 3 } });
  await Promise.all([load.favorites(), load.plans(), load.requests(), load.request("r2"), load.availableCount()]);
  assert.equal(store.state.next_cursor, "r1");
  await load.requests(store.state.next_cursor);
  const { favorites, plans, requests, next_cursor, available_count, statuses } = store.state;
  assert.deepEqual(statuses["m1"], aStatus());
  assert.deepEqual(
    [favorites?.length, plans?.length, Object.keys(requests).sort(), next_cursor, available_count],
    [1, 1, ["r0", "r1", "r2"], null, 3],
  );
  assert.deepEqual(said, []);
});

test("those available are counted for the request that is broadcast, else for the chosen plan", async () => {
  const { store, load } = page();
  expect("GET /api/mechanics/availability?plan=quick_chat", { status: 200, body: { available_count: 3 } });
  store.dispatch({ type: "plan_chosen", plan: "quick_chat" });
  await load.availableCount();
  assert.equal(store.state.available_count, 3);
  const request = aRequest({ status: "broadcasting", plan: "expert_video" });
  expect("GET /api/mechanics/availability?plan=expert_video", { status: 200, body: { available_count: 1 } });
  store.dispatch({ type: "request_loaded", request, received_ms: 0 });
  await load.availableCount();
  assert.equal(store.state.available_count, 1);
});

test("what cannot be loaded is said where it is missing, and otherwise only in the console", async () => {
  const { store, load } = page();
  await Promise.all([load.favorites(), load.plans(), load.requests(), load.request("r2"), load.availableCount()]);
  assert.equal(store.state.favorites_problem, "Nobody expects GET /api/favorites.");
  assert.equal(store.state.plans_problem, "Nobody expects GET /api/plans.");
  assert.deepEqual(said.sort(), [
    ["A request could not be loaded:", "Nobody expects GET /api/requests/r2."],
    ["Past requests could not be loaded:", "Nobody expects GET /api/requests?limit=10."],
    ["The number of available mechanics could not be loaded:", "Nobody expects GET /api/mechanics/availability."],
  ]);
});

test("plans that are known already are better than a sentence", async () => {
  const { store, load } = page();
  expect("GET /api/plans", { status: 200, body: { plans: [aPlan()] } });
  await load.plans();
  await load.plans();
  assert.deepEqual([store.state.plans?.length, store.state.plans_problem], [1, null]);
});

test("a request that is not ours any more is gone", async () => {
  const { store, load } = page();
  store.dispatch({ type: "request_loaded", request: aRequest(), received_ms: 0 });
  expect("GET /api/requests/r1", refusal("not_found", 404));
  await load.request("r1");
  assert.deepEqual([store.state.requests, said], [{}, []]);
});

test("whoever asks without being signed in any more is signed out, whatever they ask", async () => {
  for (const [ask, call] of /** @type {[keyof ReturnType<typeof createLoader>, string][]} */ ([
    ["favorites", "GET /api/favorites"],
    ["requests", "GET /api/requests?limit=10"],
    ["availableCount", "GET /api/mechanics/availability"],
    ["stillSignedIn", "GET /api/me"],
  ])) {
    const { store, load } = page();
    expect(call, refusal("unauthenticated", 401));
    await /** @type {() => Promise<void>} */ (load[ask])();
    assert.deepEqual([store.state.me, store.state.favorites_problem, said], [null, null, []], ask);
  }
});

test("nothing that was asked for one account is told to the next, nor that it was refused", async () => {
  const other = /** @type {const} */ ({ id: "c2", role: "customer", name: "Jane Doe", email: "j@example.com" });
  const requests = { requests: [aRequest()], next_cursor: "r1" };
  for (const me of [null, other]) {
    const { store, load } = page();
    expect("GET /api/requests?limit=10", { status: 200, body: requests }, refusal("unauthenticated", 401));
    expect("GET /api/favorites", { status: 200, body: { favorites: [aFavorite()] } }, refusal("unavailable", 503));
    expect("GET /api/plans", { status: 200, body: { plans: [aPlan()] } }, refusal("unavailable", 503));
    expect("GET /api/me", { status: 200, body: {} }, refusal("unauthenticated", 401));
    const answers = [1, 2].flatMap(() => [load.requests(), load.favorites(), load.plans(), load.stillSignedIn()]);
    store.dispatch({ type: "signed_out" });
    if (me) store.dispatch({ type: "signed_in", me });
    const before = store.state;
    const [, , , is_signed_in] = await Promise.all(answers);
    assert.equal(store.state, before);
    assert.deepEqual([is_signed_in, said], [false, []], "their socket is nobody's to open any more");
  }
});

test("a proxy's page signs out nobody, and takes no request away", async () => {
  const portal = { body: "<h1>Sign in to the guest network</h1>", type: "text/html" };
  const { store, load } = page();
  store.dispatch({ type: "request_loaded", request: aRequest(), received_ms: 0 });
  expect("GET /api/me", { status: 401, ...portal });
  expect("GET /api/favorites", { status: 401, ...portal });
  expect("GET /api/requests/r1", { status: 404, ...portal });
  assert.equal(await load.stillSignedIn(), true);
  await Promise.all([load.favorites(), load.request("r1")]);
  assert.deepEqual([store.state.me?.id, Object.keys(store.state.requests)], ["c1", ["r1"]]);
});

test("a server that does not answer has signed out nobody", async () => {
  const { store, load } = page();
  await load.stillSignedIn();
  assert.equal(store.state.me?.id, "c1");
});
