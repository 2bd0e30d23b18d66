/** The time of whatever is under test: it passes only when a test says so, and a draw is always the middle. */

import assert from "node:assert/strict";

const { setTimeout: later } = globalThis;
let now_ms = 0;
let last_timer = 0;

/** @type {Map<number, {at_ms: number, act: () => void}>} */
export const timers = new Map();
/** How long somebody meant to wait, each time. @type {number[]} */
export const waits = [];

Object.assign(globalThis, {
  setTimeout(/** @type {() => void} */ act, /** @type {number} */ wait_ms) {
    waits.push(wait_ms);
    timers.set((last_timer += 1), { at_ms: now_ms + wait_ms, act });
    return last_timer;
  },
  clearTimeout: (/** @type {number} */ timer) => timers.delete(timer),
});
Math.random = () => 0.5;

/** Forget what has been waited for. */
export function timeBeginsAnew() {
  timers.clear();
  waits.length = 0;
}

/** @param {number} ms */
export function pass(ms) {
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

/** @param {number} ms  of real time */
export const sleep = (ms) => new Promise((resolve) => later(resolve, ms));

/**
 * Wait, in real time, for what the network brings.
 * @param {string} what
 * @param {() => unknown} fact
 */
export async function until(what, fact) {
  for (let tries = 0; !fact(); tries += 1) {
    assert.ok(tries < 10_000, `never came: ${what}`);
    await sleep(1);
  }
}
