/** Requests as the pages keep them: whatever comes how late and how often, the newest version stays. */

import assert from "node:assert/strict";

import {
  isCancellable,
  isOpen,
  isReportable,
  isReported,
  isThere,
  limitLengthMs,
  newestFirst,
  openWith,
} from "../../http_api/pages/browser/requests.js";
import { forEverySeed } from "./chance.js";
import { test } from "./harness.js";
import { AT, AT_MS, aCustomerWelcome, aMechanicWelcome, aRequest, aStatus, after, received } from "./samples.js";

/**
 * @import {RequestStatus, RequestView} from "../../http_api/pages/browser/wire.js"
 * @import {Message} from "../../http_api/pages/browser/state.js"
 * @import {Chance} from "./chance.js"
 */

/** @type {RequestStatus[]} */
const LIFE = ["priority_offered", "broadcasting", "accepted", "in_progress", "completed"];
const VERSIONS = LIFE.map((status, index) => aRequest({ version: index + 1, status }));
const NEWEST = VERSIONS.length;

/**
 * One of the messages that may bring this version of a request.
 * @param {RequestView} request
 * @param {Chance} chance
 * @returns {Message}
 */
function carrier(request, chance) {
  const received_ms = chance.below(10_000);
  return chance.oneOf([
    received({ type: "request_update", request }, received_ms),
    received({ type: "offer_accepted", offer_id: "o1", request }, received_ms),
    { type: "request_loaded", request, received_ms, follow: chance.below(2) === 1 },
    { type: "requests_loaded", requests: [request], next_cursor: null, received_ms },
    received(aCustomerWelcome({ requests: [request] }), received_ms),
    received(aMechanicWelcome({ request }), received_ms),
  ]);
}

test("versions in any order, repeated and by any message, end at the newest", () => {
  forEverySeed((chance) => {
    const messages = chance.repeatedInAnyOrder(VERSIONS).map((request) => carrier(request, chance));
    const { version, status } = /** @type {RequestView} */ (after(messages).requests["r1"]);
    assert.deepEqual({ version, status }, { version: NEWEST, status: "completed" });
  });
});

test("what is known never gets older on the way, either", () => {
  forEverySeed((chance) => {
    let state = after([]);
    for (const request of chance.repeatedInAnyOrder(VERSIONS)) {
      const before = state.requests["r1"]?.version ?? 0;
      state = after([carrier(request, chance)], state);
      assert.equal(state.requests["r1"]?.version, Math.max(before, request.version));
    }
  });
});

test("one request's messages leave the others alone", () => {
  const other = aRequest({ id: "r2", version: 7 });
  const state = after([
    received({ type: "request_update", request: other }),
    received({ type: "request_update", request: aRequest({ version: 9 }) }),
  ]);
  assert.equal(state.requests["r2"]?.version, 7);
  assert.equal(state.requests["r1"]?.version, 9);
});

test("the same version is taken in again: its story may have grown", () => {
  const told = aRequest({ timeline: [{ at: AT, event: "delivered" }] });
  const state = after([
    received({ type: "request_update", request: aRequest() }),
    received({ type: "request_update", request: told }),
  ]);
  assert.equal(state.requests["r1"]?.timeline.length, 1);
});

test("an older version changes nothing at all, not even which cards are shown", () => {
  const state = after([received({ type: "request_update", request: aRequest({ version: 5, status: "completed" }) })]);
  assert.equal(after([received({ type: "request_update", request: aRequest({ version: 4 }) })], state), state);
});

test("an open request that a welcome no longer names is in doubt, until it has been asked about", () => {
  const known = after([received(aCustomerWelcome({ requests: [aRequest(), aRequest({ id: "r2" })] }))]);
  const doubted = after([received(aCustomerWelcome({ requests: [aRequest({ id: "r2" })] }))], known);
  assert.deepEqual([doubted.requests["r1"]?.unsure, doubted.requests["r2"]?.unsure], [true, false]);
  const answer = aRequest({ version: 2, status: "cancelled" });
  const asked = after([{ type: "request_loaded", request: answer, received_ms: 0 }], doubted);
  assert.equal(asked.requests["r1"]?.unsure, false);
});

test("a mechanic's session that the welcome no longer names is in doubt as well", () => {
  const accepted = aRequest({ status: "accepted" });
  const state = after([received(aMechanicWelcome({ request: accepted })), received(aMechanicWelcome())]);
  assert.equal(state.requests["r1"]?.unsure, true);
});

test("a welcome that was read before what is known raises no doubt", () => {
  const state = after([
    received({ type: "request_update", request: aRequest({ version: 3, status: "broadcasting" }) }),
    received(aCustomerWelcome({ requests: [aRequest({ version: 2 })] })),
  ]);
  assert.deepEqual([state.requests["r1"]?.version, state.requests["r1"]?.unsure], [3, false]);
});

test("a settled request is left alone by a welcome that does not name it", () => {
  const settled = aRequest({ status: "completed" });
  const state = after([received({ type: "request_update", request: settled }), received(aCustomerWelcome())]);
  assert.equal(state.requests["r1"]?.unsure, false);
});

test("changes after a snapshot are taken, an older one among them is not", () => {
  const state = after([
    received(aCustomerWelcome({ requests: [aRequest({ version: 3, status: "broadcasting" })] })),
    received({ type: "request_update", request: aRequest({ version: 4, status: "accepted" }) }),
    received({ type: "request_update", request: aRequest({ version: 2 }) }),
  ]);
  assert.equal(state.requests["r1"]?.status, "accepted");
});

/**
 * @param {string} id
 * @param {number} expires_in_ms
 */
const offered = (id, expires_in_ms) => aRequest({ offer: { id, kind: "priority", expires_at: AT, expires_in_ms } });

test("a deadline counts from when it was received", () => {
  const state = after([received({ type: "request_update", request: offered("o1", 5_000) }, 1_000)]);
  assert.equal(state.requests["r1"]?.deadline_ms, 6_000);
});

test("of one deadline heard twice the earlier reading is kept", () => {
  const early = received({ type: "request_update", request: offered("o1", 5_000) }, 1_000);
  const late = received({ type: "request_update", request: offered("o1", 4_800) }, 1_500);
  assert.equal(after([early, late]).requests["r1"]?.deadline_ms, 6_000);
  assert.equal(after([late, early]).requests["r1"]?.deadline_ms, 6_000);
});

test("a deadline that has changed counts as it was said last", () => {
  const state = after([received({ type: "request_update", request: offered("o1", 5_000) }, 1_000)]);
  const longer = aRequest({
    version: 2,
    offer: { id: "o1", kind: "priority", expires_at: "2026-11-22T09:31:00.000Z", expires_in_ms: 64_000 },
  });
  assert.equal(after([received({ type: "request_update", request: longer }, 2_000)], state).requests["r1"]?.deadline_ms, 66_000);
});

test("another offer has a deadline of its own, and no offer has none", () => {
  const state = after([received({ type: "request_update", request: offered("o1", 5_000) }, 1_000)]);
  const widened = after([received({ type: "request_update", request: offered("o2", 9_000) }, 2_000)], state);
  assert.equal(widened.requests["r1"]?.deadline_ms, 11_000);
  const taken = after([received({ type: "request_update", request: aRequest({ version: 2 }) })], widened);
  assert.equal(taken.requests["r1"]?.deadline_ms, null);
});

/** @param {Partial<RequestView>} is @param {number} received_ms */
const heard = (is, received_ms) => received({ type: "request_update", request: aRequest(is) }, received_ms);

test("the limit to start counts from when it was received, and of two readings the earlier one stays", () => {
  const early = heard({ status: "accepted", start: { expires_at: AT, expires_in_ms: 5_000 } }, 1_000);
  const late = heard({ status: "accepted", start: { expires_at: AT, expires_in_ms: 4_800 } }, 1_500);
  assert.equal(after([early, late]).requests["r1"]?.limit_ms, 6_000);
  assert.equal(after([late, early]).requests["r1"]?.limit_ms, 6_000);
});

test("once a session has started its own end is the limit, and whoever accepts next has a new one", () => {
  const start = { expires_at: AT, expires_in_ms: 5_000 };
  const accepted = after([heard({ status: "accepted", start }, 1_000)]);
  const ends = { expires_at: "2026-11-22T10:15:00.000Z", expires_in_ms: 2_700_000 };
  const started = after([heard({ version: 2, status: "in_progress", ends }, 2_000)], accepted);
  assert.equal(started.requests["r1"]?.limit_ms, 2_702_000);
  const longer = { expires_at: "2026-11-22T09:31:00.000Z", expires_in_ms: 64_000 };
  const again = after([heard({ version: 3, status: "accepted", start: longer }, 2_000)], accepted);
  assert.equal(again.requests["r1"]?.limit_ms, 66_000);
});

test("what is neither accepted nor in progress has no limit", () => {
  const accepted = after([heard({ status: "accepted", start: { expires_at: AT, expires_in_ms: 5_000 } }, 1_000)]);
  const given_back = after([heard({ version: 2, status: "broadcasting" }, 2_000)], accepted);
  assert.equal(given_back.requests["r1"]?.limit_ms, null);
});

test("the whole time to start counts from the accept, that of a session from its start", () => {
  const start = { expires_at: "2026-11-22T09:35:00.000Z", expires_in_ms: 200_000 };
  assert.equal(limitLengthMs(aRequest({ status: "accepted", accepted_at: AT, start })), 300_000);
  const ends = { expires_at: "2026-11-22T10:15:00.000Z", expires_in_ms: 1 };
  const timeline = [{ at: AT, event: "started" }];
  assert.equal(limitLengthMs(aRequest({ status: "in_progress", accepted_at: "2026-11-22T09:25:00.000Z", ends, timeline })), 2_700_000);
  assert.equal(limitLengthMs(aRequest({ status: "in_progress", ends })), null);
  assert.equal(limitLengthMs(aRequest()), null);
});

test("whether the mechanic is there is what the socket says, and until then what the request does", () => {
  const request = aRequest({ status: "accepted", assigned_mechanic: { id: "m1", name: "Ana" }, assigned_is_online: true });
  assert.equal(isThere({ statuses: {} }, request), true);
  assert.equal(isThere({ statuses: { m1: aStatus({ is_online: false }) } }, request), false);
  assert.equal(isThere({ statuses: { m2: aStatus({ is_online: false }) } }, request), true);
  assert.equal(isThere({ statuses: {} }, { ...request, assigned_is_online: null }), null);
  assert.equal(isThere({ statuses: { m1: aStatus() } }, { ...request, status: "completed" }), null);
});

test("a session can be reported once, within seven days of its end", () => {
  const completed = aRequest({ status: "completed", completed_at: AT });
  const week_ms = 7 * 86_400_000;
  assert.equal(isReportable(completed, AT_MS), true);
  assert.equal(isReportable(completed, AT_MS + week_ms - 1), true);
  assert.equal(isReportable(completed, AT_MS + week_ms), false);
  assert.equal(isReportable(aRequest({ status: "in_progress" }), AT_MS), false);
  const reported = { ...completed, timeline: [{ at: AT, event: "reported" }] };
  assert.deepEqual([isReported(completed), isReported(reported), isReportable(reported, AT_MS)], [false, true, false]);
});

test("only what has not begun can be cancelled, and only what is not settled is open", () => {
  /** @type {RequestStatus[]} */
  const all = [...LIFE, "unfilled", "cancelled"];
  assert.deepEqual(
    all.filter((status) => isOpen({ status })),
    ["priority_offered", "broadcasting", "accepted", "in_progress"],
  );
  assert.deepEqual(
    all.filter((status) => isCancellable({ status })),
    ["priority_offered", "broadcasting", "accepted"],
  );
});

test("what is open with a mechanic was made for them, or is theirs now; what is over or in doubt is not", () => {
  const [mike, ana] = [{ id: "m1", name: "Mike's Garage" }, { id: "m2", name: "Ana Lima" }];
  const { requests } = after([
    received(
      aCustomerWelcome({
        requests: [
          aRequest({ id: "r1", status: "broadcasting" }),
          aRequest({ id: "r2", status: "accepted", assigned_mechanic: ana }),
          aRequest({ id: "r3", status: "in_progress", preferred_mechanic: null, assigned_mechanic: ana }),
          // Who had it once, and lost it, has no part in it.
          aRequest({ id: "r4", status: "broadcasting", preferred_mechanic: null, assigned_mechanic: mike }),
        ],
      }),
    ),
  ]);
  assert.equal(openWith("m1", requests)?.id, "r2");
  assert.equal(openWith("m2", requests)?.id, "r3");
  assert.equal(openWith("m3", requests), null);
  const without = { ...requests, r2: { ...requests["r2"], status: "completed" }, r1: { ...requests["r1"], unsure: true } };
  assert.equal(openWith("m1", /** @type {typeof requests} */ (without)), null);
});

test("the newest come first, whatever order they were loaded in", () => {
  const items = [{ id: "b" }, { id: "c" }, { id: "a" }];
  assert.deepEqual(
    newestFirst(items).map(({ id }) => id),
    ["c", "b", "a"],
  );
  assert.deepEqual(
    items.map(({ id }) => id),
    ["b", "c", "a"],
    "the list itself stays as it is",
  );
});
