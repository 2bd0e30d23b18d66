/** The rest of what the pages know: people and their status, the modal, the booking, prompts, and who is told of changes. */

import assert from "node:assert/strict";

import { initialState } from "../../http_api/pages/browser/state.js";
import { createStore, reduce } from "../../http_api/pages/browser/store.js";
import { forEverySeed } from "./chance.js";
import { test } from "./harness.js";
import { AT, aCustomerWelcome, aFavorite, aPlan, aRequest, aStatus, after, anOffer, received } from "./samples.js";

/**
 * @import {StatusView} from "../../http_api/pages/browser/wire.js"
 * @import {Message, State} from "../../http_api/pages/browser/state.js"
 */

const ME = /** @type {const} */ ({ id: "c1", role: "customer", name: "John Doe", email: "driver@example.com" });
const CONFIG = { priority_window_s: 600, broadcast_window_s: 900, heartbeat_interval_s: 20, demo: false };
const MIKE = { id: "m1", name: "Mike's Garage" };

// ---- status -------------------------------------------------------------------------------------------------------

/**
 * @param {StatusView} status
 * @param {number} way
 * @returns {Message}
 */
function carrier(status, way) {
  if (way === 0) return received({ type: "status", ...status });
  if (way === 1) return { type: "status_fetched", status };
  if (way === 2) return received({ type: "statuses", statuses: [aStatus({ mechanic_id: "m2" }), status] });
  return { type: "favorites_loaded", favorites: [aFavorite({ status })] };
}

test("statuses in any order, repeated and by any message, end at the newest", () => {
  const availabilities = /** @type {const} */ (["offline", "available", "busy", "off_duty"]);
  const statuses = availabilities.map((availability, index) => aStatus({ version: index + 1, availability }));
  forEverySeed((chance) => {
    const state = after(chance.repeatedInAnyOrder(statuses).map((status) => carrier(status, chance.below(4))));
    assert.equal(state.statuses["m1"]?.version, 4);
    assert.equal(state.statuses["m1"]?.availability, "off_duty");
  });
});

test("a newer version counts, whatever clock it was read by", () => {
  const state = after([
    received({ type: "status", ...aStatus({ version: 1, as_of: "2026-11-22T09:30:05.000Z" }) }),
    received({ type: "status", ...aStatus({ version: 2, as_of: "2026-11-22T09:30:00.000Z" }) }),
  ]);
  assert.equal(state.statuses["m1"]?.version, 2);
});

test("of two readings of one version the later one counts, whichever comes last", () => {
  const early = received({ type: "status", ...aStatus({ as_of: "2026-11-22T09:30:00.000Z", reachable: "socket" }) });
  const late = received({ type: "status", ...aStatus({ as_of: "2026-11-22T09:30:05.000Z", reachable: "push" }) });
  assert.equal(after([early, late]).statuses["m1"]?.reachable, "push");
  assert.equal(after([late, early]).statuses["m1"]?.reachable, "push");
});

test("a message with several statuses is as good as one for each", () => {
  const statuses = [aStatus({ version: 4 }), aStatus({ mechanic_id: "m2", version: 7, availability: "busy" })];
  const before = after([received({ type: "status", ...aStatus({ version: 5 }) })]);
  const state = reduce(before, received({ type: "statuses", statuses }));
  assert.deepEqual([state.statuses["m1"]?.version, state.statuses["m2"]?.availability], [5, "busy"]);
  assert.equal(reduce(state, received({ type: "statuses", statuses: [] })), state);
});

test("statuses are kept by mechanic", () => {
  const state = after([carrier(aStatus({ version: 9 }), 0), carrier(aStatus({ mechanic_id: "m2", version: 1 }), 0)]);
  assert.deepEqual([state.statuses["m1"]?.version, state.statuses["m2"]?.version], [9, 1]);
});

// ---- the modal ----------------------------------------------------------------------------------------------------

const ASKED = after([{ type: "modal_opened", mechanic_id: "m1" }]);

test("the modal knows as soon as either socket or REST has answered, be the answer news or not", () => {
  for (const way of [0, 1]) {
    const known = after([carrier(aStatus(), way)]);
    const state = after([{ type: "modal_opened", mechanic_id: "m1" }, carrier(aStatus(), way)], known);
    assert.equal(state.modal?.phase, "known");
  }
  assert.equal(after([carrier(aStatus({ mechanic_id: "m2" }), 0)], ASKED).modal?.phase, "checking");
});

test("a look-up that failed is told, but not of another mechanic and not after an answer", () => {
  /** @type {Message} */
  const failed = { type: "modal_failed", mechanic_id: "m1", problem: "No network." };
  assert.deepEqual(after([failed], ASKED).modal, { mechanic_id: "m1", phase: "failed", problem: "No network." });
  assert.equal(after([{ ...failed, mechanic_id: "m2" }], ASKED), ASKED);
  const known = after([carrier(aStatus(), 0)], ASKED);
  assert.equal(after([failed], known), known);
  assert.equal(after([carrier(aStatus(), 0)], after([failed], ASKED)).modal?.phase, "known");
});

test("a closed modal is closed, and closing it again changes nothing", () => {
  const closed = after([{ type: "modal_closed" }], ASKED);
  assert.equal(closed.modal, null);
  assert.equal(after([{ type: "modal_closed" }], closed), closed);
  assert.equal(after([{ type: "modal_failed", mechanic_id: "m1", problem: "No network." }], closed), closed);
});

// ---- favourites ---------------------------------------------------------------------------------------------------

test("favourites that could not be loaded are no favourites lost", () => {
  const loaded = after([{ type: "favorites_loaded", favorites: [aFavorite()] }]);
  const failed = after([{ type: "favorites_failed", problem: "No network." }], loaded);
  assert.deepEqual([failed.favorites?.length, failed.favorites_problem], [1, "No network."]);
  assert.equal(after([{ type: "favorites_loaded", favorites: [] }], failed).favorites_problem, null);
});

test("nothing is marked before there is anything to mark", () => {
  assert.equal(after([{ type: "favorite_marked", mechanic_id: "m1", removed: true }]).favorites, null);
});

test("a favourite that is removed stays in its place, to be taken back", () => {
  const favorites = [aFavorite(), aFavorite({ provider_id: "m2" })];
  const state = after([
    { type: "favorites_loaded", favorites },
    { type: "favorite_marked", mechanic_id: "m2", removed: true },
  ]);
  assert.deepEqual(
    state.favorites?.map(({ provider_id, removed }) => [provider_id, removed]),
    [
      ["m1", false],
      ["m2", true],
    ],
  );
  const back = after([{ type: "favorite_marked", mechanic_id: "m2", removed: false }], state);
  assert.equal(back.favorites?.[1]?.removed, false);
});

// ---- booking ------------------------------------------------------------------------------------------------------

const QUICK = aPlan({ id: "quick_chat", price_cents: 999, session_type: "text" });
const FREE = aPlan({ id: "free_diagnostic", price_cents: 0, session_type: "diagnostic", eligible: false });

/** @param {State["booking"]["plan"]} plan */
const withPlan = (plan) =>
  after([{ type: "booking_restored", booking: { routing_type: "broadcast", favorite: null, plan, note: "" } }]);

test("a plan that can be had stays chosen; any other gives way to the one that is proposed", () => {
  /** @type {Message} */
  const loaded = { type: "plans_loaded", plans: [FREE, QUICK, aPlan()] };
  assert.equal(after([loaded], withPlan("quick_chat")).booking.plan, "quick_chat");
  assert.equal(after([loaded], withPlan("free_diagnostic")).booking.plan, "expert_video");
  assert.equal(after([loaded], withPlan("gone")).booking.plan, "expert_video");
  assert.equal(after([loaded], withPlan(null)).booking.plan, "expert_video");
});

test("without the proposed one the first that can be had is chosen, or none", () => {
  assert.equal(after([{ type: "plans_loaded", plans: [FREE, QUICK] }]).booking.plan, "quick_chat");
  assert.equal(after([{ type: "plans_loaded", plans: [FREE] }], withPlan("quick_chat")).booking.plan, null);
});

test("a restored choice is held against the plans, once they are known", () => {
  assert.equal(withPlan("gone").booking.plan, "gone");
  const known = after([{ type: "plans_loaded", plans: [QUICK] }]);
  const booking = /** @type {const} */ ({ routing_type: "priority_broadcast", favorite: MIKE, plan: "gone", note: "" });
  assert.deepEqual(after([{ type: "booking_restored", booking }], known).booking, { ...booking, plan: "quick_chat" });
});

test("a new choice takes away what was wrong with the last one", () => {
  const fresh = { phase: "idle", problem: null };
  const troubled = after([{ type: "checkout_moved", phase: "idle", problem: "No network." }]);
  assert.equal(troubled.checkout.problem, "No network.");
  const planned = after([{ type: "plan_chosen", plan: "quick_chat" }], troubled);
  assert.deepEqual([planned.booking.plan, planned.checkout], ["quick_chat", fresh]);
  const chosen = after([{ type: "booking_chosen", routing_type: "priority_broadcast", favorite: MIKE }], troubled);
  assert.deepEqual([chosen.booking.favorite, chosen.checkout], [MIKE, fresh]);
});

/** @type {Message} */
const MIKE_CHATS = { type: "status_fetched", status: aStatus({ session_types: ["diagnostic", "text"] }) };

test("a plan that the chosen favorite does not take gives way to the nearest that is no dearer", () => {
  const known = after([{ type: "plans_loaded", plans: [{ ...FREE, eligible: true }, QUICK, aPlan()] }, MIKE_CHATS]);
  assert.equal(known.booking.plan, "expert_video");
  const chosen = after([{ type: "booking_chosen", routing_type: "priority_broadcast", favorite: MIKE }], known);
  assert.equal(chosen.booking.plan, "quick_chat");
  // With anybody else, everything can be had again.
  const cleared = after([{ type: "booking_chosen", routing_type: "broadcast", favorite: null }], chosen);
  assert.equal(after([{ type: "plan_chosen", plan: "expert_video" }], cleared).booking.plan, "expert_video");
});

test("nobody is moved to a dearer plan while there is another", () => {
  const state = after([
    { type: "plans_loaded", plans: [{ ...FREE, eligible: true }, QUICK, aPlan()] },
    { type: "booking_chosen", routing_type: "priority_broadcast", favorite: MIKE },
    { type: "plan_chosen", plan: "quick_chat" },
  ]);
  const looks = aStatus({ session_types: ["diagnostic", "video"] });
  assert.equal(after([{ type: "status_fetched", status: looks }], state).booking.plan, "free_diagnostic");
  const calls = aStatus({ session_types: ["video"] });
  assert.equal(after([{ type: "status_fetched", status: calls }], state).booking.plan, "expert_video");
});

test("what costs less in another currency is not the nearest", () => {
  const yen = aPlan({ id: "in_yen", price_cents: 2_000, currency: "jpy", session_type: "text" });
  const chosen = after([
    { type: "plans_loaded", plans: [yen, QUICK, aPlan()] },
    MIKE_CHATS,
    { type: "booking_chosen", routing_type: "priority_broadcast", favorite: MIKE },
  ]);
  assert.equal(chosen.booking.plan, "quick_chat");
  const only = after([{ type: "plans_loaded", plans: [yen, aPlan()] }], chosen);
  assert.equal(only.booking.plan, "in_yen");
});

test("a favorite who switches the chosen plan's kind off while it is being looked at takes it from the choice", () => {
  const looking = after([
    { type: "plans_loaded", plans: [QUICK, aPlan()] },
    { type: "booking_chosen", routing_type: "priority_broadcast", favorite: MIKE },
  ]);
  assert.equal(looking.booking.plan, "expert_video");
  assert.equal(after([MIKE_CHATS], looking).booking.plan, "quick_chat");
  const none = aStatus({ session_types: ["diagnostic"], version: 2 });
  assert.equal(after([{ type: "status_fetched", status: none }], looking).booking.plan, null);
});

test("what other mechanics take is of no concern to the choice", () => {
  const looking = after([
    { type: "plans_loaded", plans: [QUICK, aPlan()] },
    { type: "booking_chosen", routing_type: "priority_broadcast", favorite: { id: "m2", name: "Jane" } },
  ]);
  assert.equal(after([MIKE_CHATS], looking).booking, looking.booking);
});

test("plans that leave the choice as it is do not make a new one of it, to be remembered anew", () => {
  const chosen = withPlan("quick_chat");
  assert.equal(after([{ type: "plans_loaded", plans: [QUICK] }], chosen).booking, chosen.booking);
});

test("whom to book changes without the plan and the note, and the plan without whom", () => {
  const state = after([
    { type: "note_written", note: "Golf 7" },
    { type: "plan_chosen", plan: "quick_chat" },
    { type: "booking_chosen", routing_type: "priority_broadcast", favorite: MIKE },
  ]);
  const { note } = state.booking;
  assert.deepEqual(state.booking, { routing_type: "priority_broadcast", favorite: MIKE, plan: "quick_chat", note });
  assert.equal(note, "Golf 7");
  assert.deepEqual(after([{ type: "plan_chosen", plan: "expert_video" }], state).booking.favorite, MIKE);
});

test("plans that could not be loaded say so until they are", () => {
  const failed = after([{ type: "plans_failed", problem: "No network." }]);
  assert.equal(failed.plans_problem, "No network.");
  assert.equal(after([{ type: "plans_loaded", plans: [QUICK] }], failed).plans_problem, null);
});

// ---- which requests are shown, and what is done about them --------------------------------------------------------

test("a request keeps its card once it was seen open, and gets none if it never was", () => {
  const done = aRequest({ version: 5, status: "completed" });
  assert.equal(after([received({ type: "request_update", request: done })]).followed["r1"], undefined);
  const state = after([
    received({ type: "request_update", request: aRequest() }),
    received({ type: "request_update", request: done }),
  ]);
  assert.equal(state.followed["r1"], true);
  const closed = after([{ type: "request_closed", request_id: "r1" }], state);
  assert.deepEqual([closed.followed, closed.requests], [{}, state.requests]);
});

test("a welcome shows the requests that it names", () => {
  assert.equal(after([received(aCustomerWelcome({ requests: [aRequest()] }))]).followed["r1"], true);
});

test("what has just been booked is shown, even if it is over already", () => {
  const request = aRequest({ status: "unfilled" });
  assert.equal(after([{ type: "request_loaded", request, received_ms: 0, follow: true }]).followed["r1"], true);
  assert.equal(after([{ type: "request_loaded", request, received_ms: 0 }]).followed["r1"], undefined);
});

test("a page of the past brings its requests and where to go on", () => {
  const requests = [aRequest({ status: "completed" }), aRequest({ id: "r2" })];
  const state = after([{ type: "requests_loaded", requests, next_cursor: "r2", received_ms: 0 }]);
  assert.deepEqual(Object.keys(state.requests), ["r1", "r2"]);
  assert.deepEqual([state.followed, state.next_cursor], [{ r2: true }, "r2"]);
});

test("a request that is no longer ours is gone, card and all", () => {
  const state = after([
    received({ type: "request_update", request: aRequest() }),
    { type: "request_lost", request_id: "r1" },
  ]);
  assert.deepEqual([state.requests, state.followed], [{}, {}]);
});

test("an action is under way until it is answered, and only a no is kept", () => {
  const sent = after([{ type: "action_sent", request_id: "r1", action: "cancel" }]);
  assert.equal(sent.acting["r1"], "cancel");
  const refused = after([{ type: "action_answered", request_id: "r1", problem: "Too late." }], sent);
  assert.deepEqual([refused.acting, refused.problems], [{}, { r1: "Too late." }]);
  const again = after([{ type: "action_sent", request_id: "r1", action: "cancel" }], refused);
  assert.deepEqual(again.problems, {});
  assert.deepEqual(after([{ type: "action_answered", request_id: "r1" }], again).problems, {});
});

test("what went wrong with a request is forgotten once it has changed, and not before", () => {
  const known = after([
    received({ type: "request_update", request: aRequest({ status: "accepted" }) }),
    received({ type: "request_update", request: aRequest({ id: "r2" }) }),
    { type: "action_answered", request_id: "r1", problem: "No network." },
    { type: "action_answered", request_id: "r2", problem: "No network, either." },
  ]);
  const told = aRequest({ status: "accepted", timeline: [{ at: AT, event: "reminded" }] });
  assert.deepEqual(after([received({ type: "request_update", request: told })], known).problems, known.problems);
  const started = aRequest({ version: 2, status: "in_progress" });
  const moved = after([received({ type: "request_update", request: started })], known);
  assert.deepEqual(moved.problems, { r2: "No network, either." });
});

test("what did not get through is no trouble any more once there is a connection again", () => {
  const lost = after([
    { type: "connection_changed", state: "live" },
    PROMPT,
    { type: "connection_changed", state: "reconnecting" },
    { type: "action_answered", request_id: "r1", problem: "No network." },
    { type: "prompt_moved", request_id: "r1", phase: "asking", problem: "No network." },
    { type: "checkout_moved", phase: "idle", problem: "No network.", is_unanswered: true },
  ]);
  assert.deepEqual(after([{ type: "connection_changed", state: "offline" }], lost).problems, lost.problems);
  for (const state of /** @type {const} */ (["live", "polling"])) {
    const back = after([{ type: "connection_changed", state }], lost);
    assert.deepEqual(
      [back.problems, back.prompts[0]?.problem, back.checkout],
      [{}, null, { phase: "idle", problem: null }],
    );
  }
});

test("what the server has said to a checkout stays, whatever becomes of the connection", () => {
  const refused = after([{ type: "checkout_moved", phase: "idle", problem: "No longer offered." }]);
  assert.equal(after([{ type: "connection_changed", state: "live" }], refused).checkout.problem, "No longer offered.");
});

// ---- prompts ------------------------------------------------------------------------------------------------------

const PROMPT = received({ type: "favorite_prompt", request_id: "r1", mechanic: MIKE });

test("a prompt that comes again is not asked again, not even after it was answered", () => {
  const asked = after([PROMPT]);
  assert.equal(asked.prompts.length, 1);
  assert.equal(after([PROMPT], asked), asked);
  const gone = after([{ type: "prompt_moved", request_id: "r1", phase: "gone" }], asked);
  assert.deepEqual(gone.prompts, []);
  assert.equal(after([PROMPT], gone), gone);
});

test("nobody is asked about a favourite, or about one mechanic twice", () => {
  const ana = aFavorite({ provider_id: "m2" });
  const favorite = after([{ type: "favorites_loaded", favorites: [ana, aFavorite()] }]);
  assert.equal(after([PROMPT], favorite), favorite);
  assert.equal(after([{ type: "favorites_loaded", favorites: [ana] }, PROMPT]).prompts.length, 1);
  const removed = after([{ type: "favorite_marked", mechanic_id: "m1", removed: true }], favorite);
  assert.equal(after([PROMPT], removed).prompts.length, 1);
  const twice = after([PROMPT, received({ type: "favorite_prompt", request_id: "r2", mechanic: MIKE })]);
  assert.equal(twice.prompts.length, 1);
});

test("a prompt moves by itself, with what went wrong", () => {
  const both = after([
    PROMPT,
    received({ type: "favorite_prompt", request_id: "r2", mechanic: { id: "m2", name: "Ana Lima" } }),
    { type: "prompt_moved", request_id: "r1", phase: "adding" },
  ]);
  assert.deepEqual(
    both.prompts.map(({ phase, problem }) => [phase, problem]),
    [
      ["adding", null],
      ["asking", null],
    ],
  );
  const failed = after([{ type: "prompt_moved", request_id: "r1", phase: "asking", problem: "No network." }], both);
  assert.equal(failed.prompts[0]?.problem, "No network.");
});

// ---- all of it ----------------------------------------------------------------------------------------------------

test("a page begins with nothing known and nothing under way", () => {
  assert.deepEqual(initialState, {
    me: undefined,
    session: null,
    ended: null,
    connection: "closed",
    config: null,
    favorites: null,
    favorites_problem: null,
    statuses: {},
    modal: null,
    available_count: null,
    plans: null,
    plans_problem: null,
    booking: { routing_type: "broadcast", favorite: null, plan: null, note: "" },
    checkout: { phase: "idle", problem: null },
    returned: null,
    requests: {},
    followed: {},
    next_cursor: null,
    acting: {},
    problems: {},
    prompts: [],
    prompted: {},
    on_duty: null,
    duty_wanted: null,
    offers: {},
    endings: {},
    remembered: null,
    screen: "offers",
    alerts: { sound: true, vibration: true, awake: false },
    push: { state: null, busy: false, problem: null, devices: null, own_hash: null },
    back_ms: null,
    off_after_session: false,
    days: null,
    days_problem: null,
    past_offers: null,
    past_cursor: null,
    past_problem: null,
    preferences: null,
    preferences_problem: null,
  });
});

test("whoever signs out leaves nothing but what is public", () => {
  const state = after([
    { type: "signed_in", me: ME },
    { type: "config_loaded", config: CONFIG },
    { type: "connection_changed", state: "live" },
    { type: "availability_counted", available_count: 3 },
    { type: "favorites_loaded", favorites: [aFavorite()] },
    { type: "plan_chosen", plan: "quick_chat" },
    { type: "return_moved", returned: { checkout_id: "k1", phase: "confirming", problem: null } },
    received({ type: "request_update", request: aRequest() }),
    received({ type: "offer", offer: anOffer() }),
    PROMPT,
  ]);
  assert.deepEqual(after([{ type: "signed_out" }], state), { ...initialState, me: null, config: CONFIG });
});

test("simple facts are taken as they come", () => {
  const returned = /** @type {const} */ ({ checkout_id: "k1", phase: "slow", problem: null });
  const state = after([
    { type: "signed_in", me: ME },
    { type: "config_loaded", config: CONFIG },
    { type: "connection_changed", state: "live" },
    { type: "availability_counted", available_count: 3 },
    { type: "checkout_moved", phase: "sending" },
    { type: "return_moved", returned },
  ]);
  const { me, config, connection, available_count, checkout } = state;
  assert.deepEqual(
    { me, config, connection, available_count, checkout, returned: state.returned },
    {
      me: ME,
      config: CONFIG,
      connection: "live",
      available_count: 3,
      checkout: { phase: "sending", problem: null },
      returned,
    },
  );
});

test("what is no news and what is not understood changes nothing", () => {
  const live = after([{ type: "connection_changed", state: "live" }]);
  assert.equal(reduce(live, { type: "connection_changed", state: "live" }), live);
  assert.equal(reduce(live, received({ type: "heartbeat_ack", server_time: AT })), live);
  assert.equal(reduce(live, received({ type: "error", code: "malformed_json", message: "No." })), live);
  assert.equal(reduce(live, /** @type {any} */ ({ type: "of_a_newer_server" })), live);
});

test("subscribers are told once for all messages of a turn, with what they were told before", async () => {
  const store = createStore();
  /** @type {[State, State][]} */
  const told = [];
  store.subscribe((state, before) => told.push([state, before]));
  store.dispatch({ type: "availability_counted", available_count: 1 });
  store.dispatch({ type: "availability_counted", available_count: 2 });
  assert.equal(store.state.available_count, 2, "whoever looks sees it at once");
  assert.equal(told.length, 0);
  await Promise.resolve();
  assert.deepEqual(told, [[store.state, initialState]]);
  const before = store.state;
  store.dispatch({ type: "availability_counted", available_count: 3 });
  await Promise.resolve();
  assert.deepEqual(told[1], [store.state, before]);
});

test("a message that changes nothing is told to nobody", async () => {
  const store = createStore();
  let told = 0;
  store.subscribe(() => (told += 1));
  store.dispatch({ type: "modal_closed" });
  await Promise.resolve();
  assert.equal(told, 0);
});

test("what a subscriber does about a change is told as a change of its own", async () => {
  const store = createStore();
  /** @type {(number | null)[]} */
  const counts = [];
  store.subscribe(({ available_count }) => {
    counts.push(available_count);
    if (available_count === 1) store.dispatch({ type: "availability_counted", available_count: 2 });
  });
  store.dispatch({ type: "availability_counted", available_count: 1 });
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(counts, [1, 2]);
});
