/** After a close: what the table says is done, and how long a client waits before it knocks again; and between two polls. */

import assert from "node:assert/strict";

import { backoffMs, pollInMs, thenAfter } from "../../clients/javascript/backoff.js";
import { CLOSE_CODES } from "../../clients/javascript/wire.js";
import { test } from "./harness.js";

/** @import {Reconnecting} from "../../clients/javascript/backoff.js" */

const ATTEMPTS = Array.from({ length: 40 }, (_, attempt) => attempt);
/** The last number below one. */
const ALMOST_ONE = 1 - Number.EPSILON / 2;

test("the table is followed, and a code that it does not name means no more than a line that is gone", () => {
  for (const [code, then] of Object.entries(CLOSE_CODES)) assert.equal(thenAfter(Number(code)), then);
  for (const code of [undefined, 1000, 1001, 1005, 1006, 4999]) assert.equal(thenAfter(code), "reconnect");
});

test("a page whose frames are refused waits as one that was too much: whatever was wrong with them", () => {
  // RFC 6455 §7.4.1: a broken frame, data of the wrong kind, text that is not UTF-8, a message too big.
  for (const code of [1002, 1003, 1007, 1009]) {
    assert.equal(thenAfter(code), "fix");
    assert.equal(backoffMs(0, "fix", 0), backoffMs(0, "reconnect_slowly", 0));
  }
});

/** @type {[Reconnecting, {first_ms: number, cap_ms: number, share_min: number}][]} */
const PACES = [
  ["reconnect", { first_ms: 500, cap_ms: 20_000, share_min: 0 }],
  ["reconnect_spread", { first_ms: 2_000, cap_ms: 20_000, share_min: 0 }],
  ["reconnect_slowly", { first_ms: 15_000, cap_ms: 120_000, share_min: 0.5 }],
  ["fix", { first_ms: 15_000, cap_ms: 120_000, share_min: 0.5 }],
  ["seldom", { first_ms: 15_000, cap_ms: 120_000, share_min: 0.5 }],
];

for (const [then, { first_ms, cap_ms, share_min }] of PACES) {
  test(`${then}: the bound begins at ${first_ms} ms, doubles and never exceeds ${cap_ms} ms`, () => {
    const longest = ATTEMPTS.map((attempt) => Math.round(backoffMs(attempt, then, ALMOST_ONE)));
    assert.equal(longest[0], first_ms);
    longest.slice(1).forEach((wait_ms, index) => {
      assert.equal(wait_ms, Math.min(cap_ms, 2 * /** @type {number} */ (longest[index])));
    });
    assert.equal(longest.at(-1), cap_ms);
  });

  test(`${then}: the wait falls anywhere between ${share_min} of the bound and the whole`, () => {
    for (const attempt of ATTEMPTS) {
      const bound_ms = backoffMs(attempt, then, 1);
      assert.equal(backoffMs(attempt, then, 0), share_min * bound_ms);
      assert.equal(backoffMs(attempt, then, 0.5), ((1 + share_min) / 2) * bound_ms);
    }
  });
}

test("a page that has been away for days still knows how long to wait", () => {
  assert.equal(backoffMs(100_000, "reconnect", 1), 20_000);
});

test("polls are some seconds apart, half a minute where nobody looks, and drift apart from those of others", () => {
  assert.equal(pollInMs({ failures: 0, hidden: false }, 0), 3_000);
  assert.equal(pollInMs({ failures: 0, hidden: false }, 1), 5_000);
  assert.equal(pollInMs({ failures: 0, hidden: true }, 0), 22_500);
  assert.equal(pollInMs({ failures: 0, hidden: true }, 1), 37_500);
});

test("each poll that fails doubles the wait up to a minute, and what the server asks for is the least", () => {
  const waits = [1, 2, 3, 4, 1_000].map((failures) => pollInMs({ failures, hidden: false }, 0.5));
  assert.deepEqual(waits, [8_000, 16_000, 32_000, 60_000, 60_000]);
  assert.equal(pollInMs({ failures: 1, hidden: false, retry_after_s: 90 }, 0.5), 90_000);
  assert.equal(pollInMs({ failures: 1, hidden: false, retry_after_s: 1 }, 0.5), 8_000);
});
