/** Time without trusting the visitor's wall clock, and one timer for everything that counts down. */

import assert from "node:assert/strict";

import { ServerClock, betterReading, carriedOn, clockReading } from "../../clients/javascript/clock.js";
import { msLeft, onTick, serverClock, serverNow } from "../../http_api/pages/browser/clock.js";
import { test } from "./harness.js";
import { AT, AT_MS } from "./samples.js";

/** Far more than anything here takes, far less than what the clocks differ by. */
const TOLERANCE_MS = 5_000;

/**
 * @param {number} said_ms
 * @param {number} expected_ms
 */
const near = (said_ms, expected_ms) => assert.ok(Math.abs(said_ms - expected_ms) < TOLERANCE_MS, String(said_ms));

test("the server's time is read from both of its forms, and from nothing else", () => {
  const reading = { server_ms: AT_MS, heard_at_ms: 7 };
  assert.deepEqual(clockReading(AT, 7), reading);
  assert.deepEqual(clockReading("Sun, 22 Nov 2026 09:30:00 GMT", 7), reading);
  for (const nothing of ["soon", "", null, undefined]) assert.equal(clockReading(nothing, 7), null);
});

test("our own clock counts until the server has been heard, and what cannot be read changes nothing", () => {
  const clock = new ServerClock();
  near(clock.now(), Date.now());
  clock.hear("soon");
  near(clock.now(), Date.now());
  clock.hear(AT);
  near(clock.now(), AT_MS);
  clock.hear(null);
  near(clock.now(), AT_MS);
});

test("the server's time goes on by itself from where it was heard", () => {
  assert.equal(carriedOn({ server_ms: AT_MS, heard_at_ms: 300 }, 500), AT_MS + 200);
  near(serverNow(), Date.now());
  serverClock.hear(AT);
  serverClock.hear("2026-11-22T11:30:00.000Z");
  near(serverNow(), AT_MS + 7_200_000);
});

test("a message that was long on its way, or rounded, does not turn the time back; a clock that was set back does", () => {
  const sharp = { server_ms: AT_MS, heard_at_ms: 1_000 };
  const late = { server_ms: AT_MS + 100, heard_at_ms: 1_900 };
  assert.equal(betterReading(sharp, late), sharp);
  const sharper = { server_ms: AT_MS + 1_000, heard_at_ms: 1_900 };
  assert.equal(betterReading(sharp, sharper), sharper);
  const set_back = { server_ms: AT_MS - 60_000, heard_at_ms: 1_900 };
  assert.equal(betterReading(sharp, set_back), set_back);
  assert.deepEqual([betterReading(null, late), betterReading(sharp, null)], [late, sharp]);
});

test("what is left never falls below nothing", () => {
  assert.equal(msLeft(1_500, 1_000), 500);
  assert.equal(msLeft(1_500, 2_000), 0);
});

test("everything that listens ticks by one timer, which ends with the last listener", async () => {
  const { setInterval, clearInterval } = globalThis;
  let timers = 0;
  globalThis.setInterval = /** @type {typeof setInterval} */ (
    (/** @type {() => void} */ tick) => {
      timers += 1;
      return setInterval(tick, 1);
    }
  );
  globalThis.clearInterval = (timer) => {
    timers -= 1;
    clearInterval(timer);
  };
  try {
    const lives = [new AbortController(), new AbortController()];
    const ticks = [0, 0];
    lives.forEach(({ signal }, index) => onTick(signal, () => (ticks[index] = (ticks[index] ?? 0) + 1)));
    assert.equal(timers, 1);
    while (ticks.includes(0)) await new Promise((resolve) => setTimeout(resolve, 1));

    lives[0]?.abort();
    assert.equal(timers, 1);
    const [first = 0, second = 0] = ticks;
    while ((ticks[1] ?? 0) < second + 3) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.equal(ticks[0], first, "who has left the page hears nothing more");

    lives[1]?.abort();
    assert.equal(timers, 0);
    onTick(AbortSignal.abort(), () => assert.fail("never called"));
    assert.equal(timers, 0, "who has left already starts none");

    const again = new AbortController();
    onTick(again.signal, () => {});
    assert.equal(timers, 1, "the next listener starts it anew");
    again.abort();
  } finally {
    Object.assign(globalThis, { setInterval, clearInterval });
  }
});
