/**
 * Paying and coming back, over real HTTP: what is asked for, under which key, and what the page makes of the answers. Waits
 * are over at once, the page's clock goes on by as much, and a draw is always a quarter.
 */

import assert from "node:assert/strict";

import { createCheckout } from "../../http_api/pages/browser/checkout.js";
import { createLoader } from "../../http_api/pages/browser/loading.js";
import { createStore } from "../../http_api/pages/browser/store.js";
import { beforeEach, test } from "./harness.js";
import { AT, aFavorite, aPlan, aRequest, aStatus } from "./samples.js";
import { asked, base, expect, refusal } from "./server.js";

/**
 * @import {CheckoutState, FreeCheckout, StripeCheckout} from "../../http_api/pages/browser/wire.js"
 * @import {Answer} from "./server.js"
 */

Math.random = () => 0.25;

const { setTimeout: later } = globalThis;
/** How long the page meant to wait, each time. @type {number[]} */
let waits = [];
let now_ms = 0;
performance.now = () => now_ms;
Object.assign(globalThis, {
  setTimeout(/** @type {() => void} */ act, /** @type {number} */ wait_ms) {
    waits.push(wait_ms);
    now_ms += wait_ms;
    return later(act, 0);
  },
});

/** The parts of a browser's address bar. */
const bar = { href: base, pathname: "/", assign: (/** @type {string} */ url) => void (bar.href = url) };
Object.defineProperty(globalThis, "location", { value: bar });
Object.defineProperty(globalThis, "history", {
  value: {
    replaceState: (/** @type {unknown} */ _state, /** @type {string} */ _title, /** @type {string} */ path) =>
      void (bar.href = base + path),
  },
});

beforeEach(() => {
  waits = [];
  bar.href = `${base}/`;
});

const ME = /** @type {const} */ ({ id: "c1", role: "customer", name: "John Doe", email: "driver@example.com" });

/** A page whose visitor has chosen a plan. */
function page() {
  const store = createStore();
  /** @type {string[]} */
  const booked = [];
  store.dispatch({ type: "signed_in", me: ME });
  store.dispatch({ type: "plans_loaded", plans: [aPlan(), aPlan({ id: "quick_chat" })] });
  return { store, booked, checkout: createCheckout(store, createLoader(store), (id) => void booked.push(id)) };
}

/** Over before the page hears of it: shown all the same. */
const OVER = aRequest({ status: "unfilled" });
/** @type {FreeCheckout} */
const FREE = { checkout_id: "k1", kind: "free", request: OVER };
/** @type {StripeCheckout} */
const STRIPE = { checkout_id: "k1", kind: "stripe", url: "https://pay.example/k1", expires_at: AT };

/** @param {...Answer} answers */
const toCheckout = (...answers) => expect("POST /api/checkout", ...answers);
const keys = () => asked.filter(({ call }) => call === "POST /api/checkout").map(({ key }) => key);

test("what was chosen is what is asked for", async () => {
  const { store, checkout } = page();
  toCheckout({ status: 201, body: FREE }, { status: 201, body: FREE });
  await checkout.pay();
  const favorite = { id: "m1", name: "Mike's Garage" };
  store.dispatch({ type: "booking_chosen", routing_type: "priority_broadcast", favorite });
  await checkout.pay();
  assert.deepEqual(
    asked.map(({ body }) => body),
    [
      { plan: "expert_video", routing_type: "broadcast", preferred_mechanic_id: null },
      { plan: "expert_video", routing_type: "priority_broadcast", preferred_mechanic_id: "m1" },
    ],
  );
});

test("a note goes with the choice, without the blanks around it, and stays after a refusal", async () => {
  const { store, checkout } = page();
  toCheckout(refusal("stripe_unavailable", 502), { status: 201, body: FREE });
  store.dispatch({ type: "note_written", note: " Golf 7,\nrattles\n" });
  await checkout.pay();
  assert.equal(store.state.booking.note, " Golf 7,\nrattles\n");
  await checkout.pay();
  assert.deepEqual(
    asked.map(({ body }) => body?.note),
    ["Golf 7,\nrattles", "Golf 7,\nrattles"],
  );
});

test("a free session is booked, and its request shown", async () => {
  const { store, booked, checkout } = page();
  toCheckout({ status: 201, body: FREE });
  const paying = checkout.pay();
  assert.equal(store.state.checkout.phase, "sending");
  await paying;
  assert.deepEqual(booked, ["r1"]);
  assert.equal(store.state.requests["r1"]?.status, "unfilled");
  assert.deepEqual([store.state.followed, store.state.checkout], [{ r1: true }, { phase: "idle", problem: null }]);
});

test("to the payment page the page leaves, once", async () => {
  const { store, booked, checkout } = page();
  toCheckout({ status: 201, body: STRIPE });
  await Promise.all([checkout.pay(), checkout.pay()]);
  await checkout.pay();
  assert.equal(asked.length, 1);
  assert.equal(bar.href, STRIPE.url);
  assert.deepEqual([store.state.checkout.phase, booked], ["leaving", []]);
});

test("without a plan nothing is asked", async () => {
  const store = createStore();
  await createCheckout(store, createLoader(store), assert.fail).pay();
  assert.equal(asked.length, 0);
});

test("while nobody knows whether it was done, it is tried again under the same key", async () => {
  const { store, checkout } = page();
  const proxy = { status: 504, body: "<h1>Gateway time-out</h1>", type: "text/html" };
  toCheckout("lost", refusal("stripe_unavailable", 502), proxy, refusal("too_many_attempts", 429), {
    status: 201,
    body: FREE,
  });
  const problems = [];
  for (let tries = 0; tries < 5; tries += 1) {
    await checkout.pay();
    problems.push(store.state.checkout.problem);
  }
  assert.equal(new Set(keys()).size, 1);
  assert.match(keys()[0] ?? "", /./);
  assert.deepEqual(problems, [
    "We cannot reach the server. Check your connection and try again.",
    "The payment service does not answer just now. Nothing was charged; please try again.",
    "The server has a problem just now. Please try again.",
    "It is too_many_attempts.",
    null,
  ]);
});

test("once it was done, the same again is something new", async () => {
  const { checkout } = page();
  toCheckout({ status: 201, body: FREE }, { status: 201, body: FREE });
  await checkout.pay();
  await checkout.pay();
  assert.equal(new Set(keys()).size, 2);
});

test("back from the payment page by the browser's own button, the same again is something new", async () => {
  const { store, checkout } = page();
  toCheckout({ status: 201, body: STRIPE }, { status: 201, body: STRIPE });
  await checkout.pay();
  store.dispatch({ type: "checkout_moved", phase: "idle" });
  await checkout.pay();
  assert.equal(new Set(keys()).size, 2);
});

test("after a definite no, the same again is something new", async () => {
  const { store, checkout } = page();
  toCheckout(refusal("idempotency_key_reused"), { status: 201, body: FREE });
  await checkout.pay();
  assert.equal(store.state.checkout.problem, "Your choice changed on the way. Please try again.");
  await checkout.pay();
  assert.equal(new Set(keys()).size, 2);
});

test("an answer that cannot be read is no answer", async () => {
  const { store, checkout } = page();
  toCheckout({ status: 201, body: "{" }, { status: 201, body: FREE });
  await checkout.pay();
  assert.equal(store.state.checkout.problem, "The server's answer could not be read. Please try again.");
  await checkout.pay();
  assert.equal(new Set(keys()).size, 1);
});

for (const [code, problem] of [
  ["free_session_used", "You have already used your free diagnostic. Please choose another plan."],
  ["unknown_plan", "This plan is no longer offered. Please choose another."],
]) {
  test(`${code}: the plans are asked for anew`, async () => {
    const { store, checkout } = page();
    toCheckout(refusal(/** @type {string} */ (code)));
    expect("GET /api/plans", { status: 200, body: { plans: [aPlan({ id: "quick_chat" })] } });
    await checkout.pay();
    assert.equal(store.state.checkout.problem, problem);
    await until(() => store.state.booking.plan === "quick_chat");
  });
}

test("plan_not_offered: what the favorite takes is asked for anew, and another plan proposed", async () => {
  const { store, checkout } = page();
  const plans = [aPlan({ id: "quick_chat", session_type: "text", price_cents: 999 }), aPlan()];
  store.dispatch({ type: "plans_loaded", plans });
  const favorite = { id: "m1", name: "Mike's Garage" };
  store.dispatch({ type: "booking_chosen", routing_type: "priority_broadcast", favorite });
  store.dispatch({ type: "plan_chosen", plan: "expert_video" });
  toCheckout(refusal("plan_not_offered"));
  const status = aStatus({ session_types: ["text"] });
  expect("GET /api/favorites", { status: 200, body: { favorites: [aFavorite({ status })] } });
  await checkout.pay();
  assert.match(store.state.checkout.problem ?? "", /does not take this kind of session any more/);
  await until(() => store.state.booking.plan === "quick_chat");
});

test("checkout_refused: another plan is proposed, and not the same again", async () => {
  const { store, checkout } = page();
  toCheckout(refusal("checkout_refused", 422), { status: 201, body: FREE });
  await checkout.pay();
  const { problem } = store.state.checkout;
  assert.match(problem ?? "", /Nothing was charged; please choose another plan/);
  assert.doesNotMatch(problem ?? "", /again/);
  // The next click is another checkout: under the old key the server has none.
  await checkout.pay();
  assert.equal(new Set(keys()).size, 2);
});

for (const code of ["mechanic_not_found", "preferred_mechanic_required"]) {
  test(`${code}: whoever cannot be booked is not asked for again`, async () => {
    const { store, checkout } = page();
    const favorite = { id: "m1", name: "Mike's Garage" };
    store.dispatch({ type: "booking_chosen", routing_type: "priority_broadcast", favorite });
    toCheckout(refusal(code, 404));
    await checkout.pay();
    assert.deepEqual([store.state.booking.routing_type, store.state.booking.favorite], ["broadcast", null]);
    assert.match(store.state.checkout.problem ?? "", /any available mechanic instead/);
  });
}

test("whoever is not signed in any more is sent to sign in", async () => {
  const { store, checkout } = page();
  toCheckout(refusal("unauthenticated", 401));
  await checkout.pay();
  assert.equal(store.state.me, null);
  assert.equal(store.state.checkout.problem, null);
});

// ---- coming back --------------------------------------------------------------------------------------------------

/** @param {...(Omit<CheckoutState, "checkout_id"> | Answer)} states */
function become(...states) {
  const answers = states.map((state) =>
    typeof state === "string" || "body" in state ? state : { status: 200, body: { checkout_id: "k1", ...state } },
  );
  expect("GET /api/checkout/k1", ...answers);
}

/** @param {() => boolean} fact */
async function until(fact) {
  for (let tries = 0; !fact(); tries += 1) {
    assert.ok(tries < 2_000, "never came");
    await new Promise((resolve) => later(resolve, 1));
  }
}

test("whoever comes back from paying is followed until the request is there", async () => {
  const { store, booked, checkout } = page();
  bar.href = `${base}/?checkout=k1`;
  become({ status: "open" }, { status: "paid" }, { status: "paid", request_id: "r1" });
  expect("GET /api/requests/r1", { status: 200, body: OVER });
  const done = checkout.followReturn();
  assert.equal(store.state.returned?.phase, "confirming");
  await checkout.followReturn();
  await done;
  assert.deepEqual(booked, ["r1"]);
  assert.deepEqual([store.state.returned, store.state.followed], [null, { r1: true }]);
  assert.equal(bar.href, `${base}/`, "a reload does not ask again");
  assert.equal(asked.length, 4, "the second call found the first one at work");
});

test("an address that names no checkout is nothing to follow", async () => {
  const { store, checkout } = page();
  await checkout.followReturn();
  assert.deepEqual([asked.length, store.state.returned], [0, null]);
});

for (const status of /** @type {const} */ (["expired", "failed"])) {
  test(`a checkout that has ${status} says so`, async () => {
    const { store, booked, checkout } = page();
    bar.href = `${base}/?checkout=k1`;
    become({ status });
    await checkout.followReturn();
    assert.deepEqual([store.state.returned?.phase, booked, bar.href], [status, [], `${base}/`]);
    checkout.dismissReturn();
    assert.equal(store.state.returned, null);
  });
}

test("whoever says they left is believed only if nothing was paid", async () => {
  const left = page();
  bar.href = `${base}/?checkout=k1&cancelled=1`;
  become({ status: "open" });
  const leaving = left.checkout.followReturn();
  assert.deepEqual([left.store.state.returned], [null], "there is nothing to confirm");
  await leaving;
  assert.equal(left.store.state.returned?.phase, "left");

  const paid = page();
  bar.href = `${base}/?checkout=k1&cancelled=1`;
  become({ status: "paid" }, { status: "paid", request_id: "r1" });
  expect("GET /api/requests/r1", { status: 200, body: OVER });
  await paid.checkout.followReturn();
  assert.deepEqual(paid.booked, ["r1"]);
});

test("a checkout that is not ours is not spoken of", async () => {
  const { store, checkout } = page();
  bar.href = `${base}/?checkout=k1`;
  become(refusal("not_found", 404));
  await checkout.followReturn();
  assert.deepEqual([store.state.returned, bar.href], [null, `${base}/`]);
});

test("a server that is away for a moment is asked again", async () => {
  const { store, checkout } = page();
  bar.href = `${base}/?checkout=k1`;
  become("lost", refusal("unavailable", 503), { status: "expired" });
  await checkout.followReturn();
  assert.equal(store.state.returned?.phase, "expired");
});

test("a server that says when to come back is not asked before", async () => {
  const { checkout } = page();
  bar.href = `${base}/?checkout=k1`;
  become({ ...refusal("unavailable", 503), headers: { "retry-after": "5" } }, { status: "expired" });
  await checkout.followReturn();
  assert.deepEqual(waits, [5_000]);
});

test("for two minutes it is asked ever less often, then only when the visitor says so", async () => {
  const { store, checkout } = page();
  bar.href = `${base}/?checkout=k1`;
  become(...Array.from({ length: 40 }, () => /** @type {const} */ ({ status: "open" })));
  await checkout.followReturn();
  assert.deepEqual(store.state.returned, { checkout_id: "k1", phase: "slow", problem: null });
  assert.deepEqual(waits.slice(0, 3).map(Math.round), [350, 560, 896]);
  assert.equal(Math.max(...waits), 7_000);
  const waited_ms = waits.reduce((all, wait_ms) => all + wait_ms);
  assert.ok(waited_ms > 120_000 && waited_ms <= 127_000, String(waited_ms));
  assert.equal(bar.href, `${base}/?checkout=k1`, "a reload asks again");
  become({ status: "expired" });
  await checkout.followReturn();
  assert.equal(store.state.returned?.phase, "expired");
});

test("what keeps the page from knowing is said at the end, too", async () => {
  const { store, checkout } = page();
  bar.href = `${base}/?checkout=k1`;
  become(...Array.from({ length: 40 }, () => refusal("unavailable", 503)));
  await checkout.followReturn();
  assert.deepEqual([store.state.returned?.phase, store.state.returned?.problem], ["slow", "It is unavailable."]);
});

test("what was booked by whoever was here before is neither paid nor shown now", async () => {
  const { store, booked, checkout } = page();
  const before = bar.href;
  expect("POST /api/checkout", { status: 201, body: { checkout_id: "k1", kind: "stripe", url: "https://pay.example" } });
  const paying = checkout.pay();
  store.dispatch({ type: "signed_out" });
  await paying;
  store.dispatch({ type: "signed_in", me: ME });
  bar.href = `${base}/?checkout=k1`;
  become({ status: 200, body: { checkout_id: "k1", status: "paid", request_id: "r1" } });
  const following = checkout.followReturn();
  store.dispatch({ type: "signed_out" });
  await following;
  assert.deepEqual([before, bar.href, booked, store.state.requests], [`${base}/`, `${base}/?checkout=k1`, [], {}]);
  assert.equal(asked.some(({ call }) => call.startsWith("GET /api/requests/")), false);
});

test("nobody is followed who has been signed out", async () => {
  const { store, checkout } = page();
  bar.href = `${base}/?checkout=k1`;
  become(refusal("unauthenticated", 401));
  await checkout.followReturn();
  assert.equal(store.state.me, null);
  assert.equal(asked.length, 1);
});
