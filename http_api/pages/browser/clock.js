/**
 * Time without trusting the visitor's wall clock: the server's, one for the whole page, and one shared tick for everything
 * that counts down.
 */

import { ServerClock } from "../../../clients/javascript/pitlane.js";

/** Hears what sockets and REST say. */
export const serverClock = new ServerClock();

/** The server's time in ms since the epoch; our own clock's until the server has been heard. */
export const serverNow = () => serverClock.now();

/** @type {Set<() => void>} */
const listeners = new Set();
/** @type {ReturnType<typeof setInterval> | undefined} */
let timer;

/**
 * Call `tick` about four times a second until `signal` aborts. The timer runs only while somebody listens.
 * @param {AbortSignal} signal
 * @param {() => void} tick
 */
export function onTick(signal, tick) {
  if (signal.aborted) return;
  listeners.add(tick);
  timer ??= setInterval(() => listeners.forEach((listener) => listener()), 250);
  signal.addEventListener("abort", () => {
    listeners.delete(tick);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  });
}

/**
 * Milliseconds until `deadline_ms` (on the `performance.now()` scale), never below zero.
 * @param {number} deadline_ms
 * @param {number} [now_ms]
 */
export function msLeft(deadline_ms, now_ms = performance.now()) {
  return Math.max(0, deadline_ms - now_ms);
}
