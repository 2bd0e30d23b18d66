/** What a page does after its socket was closed, and how long it waits before the next try. Pure: the caller draws. */

import { CLOSE_CODES } from "./wire.js";

/** @import {Then} from "./wire.js" */

/** @typedef {Exclude<Then, "sign_in">} Reconnecting */
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
 * A page is mended by being loaded anew. It does not do that to its reader, and so knocks slowly.
 * @type {Record<Reconnecting, Pace>}
 */
const PACES = { reconnect: QUICK, reconnect_spread: SPREAD, reconnect_slowly: SLOW, fix: SLOW };

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
