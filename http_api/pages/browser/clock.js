/**
 * Time without trusting the visitor's wall clock: the server's time as last heard, carried on by `performance.now()`,
 * and one shared tick for everything that counts down.
 */

/** @type {{server_ms: number, heard_at_ms: number} | null} */
let heard = null;

/**
 * Remember what the server's clock said; anything unreadable is ignored.
 * @param {string | null | undefined} time  RFC 3339, or an HTTP `Date` header (whole seconds)
 */
export function hearServerTime(time) {
  const server_ms = Date.parse(time ?? "");
  if (Number.isFinite(server_ms)) heard = { server_ms, heard_at_ms: performance.now() };
}

/** The server's time in ms since the epoch; our own clock's until the server has been heard. */
export function serverNow() {
  return heard ? heard.server_ms + (performance.now() - heard.heard_at_ms) : Date.now();
}

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
 */
export function msLeft(deadline_ms) {
  return Math.max(0, deadline_ms - performance.now());
}
