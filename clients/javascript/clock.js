/** Time without trusting the device's wall clock: the server's, as it was heard, carried on by `performance.now()`. */

/**
 * What the server's clock said, and when that was on the `performance.now()` scale.
 * @typedef {{server_ms: number, heard_at_ms: number}} ClockReading
 */

/** A reading that is behind by more than this is no slow message: the server's clock has been set back. */
const SET_BACK_MS = 5_000;

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

/**
 * Of two readings the one to go by. Travelling and rounding only make a reading seem earlier, so the one that is ahead is
 * nearer the truth, and time never runs backwards for a late message.
 * @param {ClockReading | null} old
 * @param {ClockReading | null} reading  the newer one
 */
export function betterReading(old, reading) {
  if (!old || !reading) return reading ?? old;
  const behind_ms = carriedOn(old, reading.heard_at_ms) - reading.server_ms;
  return behind_ms > 0 && behind_ms < SET_BACK_MS ? old : reading;
}

/** One for everything on a page or in a program that asks what time it is at the server. */
export class ServerClock {
  /** @type {ClockReading | null} */
  #reading = null;

  /** @param {string | null | undefined} time  as `clockReading` takes it */
  hear(time) {
    this.#reading = betterReading(this.#reading, clockReading(time, performance.now()));
  }

  /** The server's time in ms since the epoch; our own clock's until the server has been heard. */
  now() {
    return this.#reading ? carriedOn(this.#reading, performance.now()) : Date.now();
  }
}
