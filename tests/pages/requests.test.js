/** Requests as the pages keep them: whatever comes how late and how often, the newest version stays. */

import assert from "node:assert/strict";

import { isCancellable, isOpen, newestFirst } from "../../http_api/pages/browser/requests.js";
import { forEverySeed } from "./chance.js";
import { test } from "./harness.js";
import { AT, aCustomerWelcome, aMechanicWelcome, aRequest, after, received } from "./samples.js";

/**
 * @import {RequestStatus, RequestView} from "../../http_api/pages/browser/wire.js"
 * @import {Message} from "../../http_api/pages/browser/store.js"
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

test("another offer has a deadline of its own, and no offer has none", () => {
  const state = after([received({ type: "request_update", request: offered("o1", 5_000) }, 1_000)]);
  const widened = after([received({ type: "request_update", request: offered("o2", 9_000) }, 2_000)], state);
  assert.equal(widened.requests["r1"]?.deadline_ms, 11_000);
  const taken = after([received({ type: "request_update", request: aRequest({ version: 2 }) })], widened);
  assert.equal(taken.requests["r1"]?.deadline_ms, null);
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
