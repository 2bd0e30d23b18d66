/**
 * Time without trusting the visitor's wall clock: the server's time as last heard, carried on by `performance.now()`,
 * and one shared tick for everything that counts down.
 */

/**
 * What the server's clock said, and when that was on the `performance.now()` scale.
 * @typedef {{server_ms: number, heard_at_ms: number}} ClockReading
 */

/**
 * @param {string | null | undefined} time  RFC 3339, or an HTTP `Date` header (whole seconds)
 * @param {number} heard_at_ms
 * @returns {ClockReading | null}  null: unreadable
 */
export function clockReading(time, heard_at_ms) {
  const server_ms = Date.parse(time ?? "");
  return Number.isFinite(server_ms) ? { server_ms, heard_at_ms } : null;
}

/**
 * What the server's clock says by now.
 * @param {ClockReading} reading
 * @param {number} now_ms  on the `performance.now()` scale
 */
export const carriedOn = ({ server_ms, heard_at_ms }, now_ms) => server_ms + (now_ms - heard_at_ms);

/** @type {ClockReading | null} */
let heard = null;

/** @param {string | null | undefined} time  as `clockReading` takes it */
export function hearServerTime(time) {
  heard = clockReading(time, performance.now()) ?? heard;
}

/** The server's time in ms since the epoch; our own clock's until the server has been heard. */
export function serverNow() {
  return heard ? carriedOn(heard, performance.now()) : Date.now();
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
 * @param {number} [now_ms]
 */
export function msLeft(deadline_ms, now_ms = performance.now()) {
  return Math.max(0, deadline_ms - now_ms);
}
