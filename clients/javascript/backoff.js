/** How long a client waits: after its socket was closed, and between two polls. Pure: the caller draws. */

import { CLOSE_CODES } from "./wire.js";

/** @import {Then} from "./wire.js" */

/** `seldom`: where sockets do not seem to get through, and polling works. @typedef {Exclude<Then, "sign_in"> | "seldom"} Reconnecting */
/**
 * The bound of the first wait, which doubles with every try up to the cap, and the share of it that is always waited.
 * @typedef {{base_ms: number, cap_ms: number, share_min: number}} Pace
 */

/** @type {Pace} */
const QUICK = { base_ms: 500, cap_ms: 20_000, share_min: 0 };
/** @type {Pace} */
const SPREAD = { ...QUICK, base_ms: 2_000 };
/** A server that has sent us away must not be hit again at once by a lucky draw. @type {Pace} */
const SLOW = { base_ms: 15_000, cap_ms: 120_000, share_min: 0.5 };

/**
 * A client whose frames are refused is mended by a new version of it. Until it has that, it knocks slowly.
 * @type {Record<Reconnecting, Pace>}
 */
const PACES = { reconnect: QUICK, reconnect_spread: SPREAD, reconnect_slowly: SLOW, fix: SLOW, seldom: SLOW };

/**
 * What to do after a close. A code that the table does not name tells no more than that the line is gone.
 * @param {number | undefined} close_code  undefined: we gave up on it ourselves
 * @returns {Then}
 */
export const thenAfter = (close_code) => CLOSE_CODES[close_code ?? 0] ?? "reconnect";

/**
 * How long to wait before a try: anything up to the bound ("full jitter"), where haste would do harm at least half of it.
 * @param {number} attempt  0 for the first
 * @param {Reconnecting} then  what the close of the last connection asks for
 * @param {number} random  from 0 to 1
 */
export function backoffMs(attempt, then, random) {
  const { base_ms, cap_ms, share_min } = PACES[then];
  const bound_ms = Math.min(cap_ms, base_ms * 2 ** attempt);
  return bound_ms * (share_min + random * (1 - share_min));
}

const POLL_MS = 4_000;
/** Nobody looks, and the phone's battery is somebody's. */
const POLL_HIDDEN_MS = 30_000;
const POLL_CAP_MS = 60_000;

/**
 * How long to wait before the next poll: three quarters to five quarters of the pace, so that clients drift apart.
 * @param {object} now
 * @param {number} now.failures  in a row; each doubles the wait, up to a minute
 * @param {boolean} now.hidden  whether the page is in the background
 * @param {number} [now.retry_after_s]  what the server asked for; never less than that
 * @param {number} random  from 0 to 1
 */
export function pollInMs({ failures, hidden, retry_after_s = 0 }, random) {
  const pace_ms = Math.min(POLL_CAP_MS, (hidden ? POLL_HIDDEN_MS : POLL_MS) * 2 ** failures);
  return Math.max(retry_after_s * 1_000, pace_ms * (0.75 + random / 2));
}
