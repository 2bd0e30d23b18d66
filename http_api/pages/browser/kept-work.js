/**
 * What a mechanic has, and which ends they have still to read, kept on the device: a phone closes pages that nobody looks at, and
 * whoever opens the app again must hear what has become of their session meanwhile.
 */

/** @import {HowEnded, Served, SessionEnding} from "./endings.js" */

const KEY = "pitlane.work";
const HOW = /** @type {const} @satisfies {readonly HowEnded[]} */ ([
  "no_show",
  "find_another",
  "cancelled",
  "taken_back",
  "by_customer",
  "by_time",
  "by_operator",
  "gone",
  "unsure",
]);

/** @typedef {{served: Served | null, endings: readonly SessionEnding[]}} Work */

/**
 * @param {string} account_id  what was kept of somebody else is no concern of theirs
 * @returns {Work}
 */
export function readWork(account_id) {
  try {
    return workFrom(localStorage.getItem(KEY), account_id);
  } catch {
    // A browser that keeps nothing: what is told while the page is open is told all the same.
    return { served: null, endings: [] };
  }
}

/**
 * @param {string} account_id
 * @param {Work} work
 */
export function keepWork(account_id, work) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ account_id, ...work }));
  } catch (error) {
    console.warn("The browser keeps nothing; what is unread is lost with the page.", error);
  }
}

/**
 * What was kept, as far as it makes sense.
 * @param {string | null} text
 * @param {string} account_id
 * @returns {Work}
 */
export function workFrom(text, account_id) {
  /** @type {any} */
  let kept = null;
  try {
    kept = JSON.parse(text ?? "null");
  } catch {
    // Nothing that we have written.
  }
  if (kept?.account_id !== account_id) return { served: null, endings: [] };
  /** @type {unknown[]} */
  const endings = Array.isArray(kept.endings) ? kept.endings : [];
  return { served: isServed(kept.served) ? kept.served : null, endings: endings.filter(isEnding) };
}

/**
 * @param {any} one
 * @returns {one is Served}
 */
const isServed = (one) =>
  typeof one?.request_id === "string" && typeof one.customer_name === "string" && typeof one.plan === "string";

/**
 * @param {any} one
 * @returns {one is SessionEnding}
 */
const isEnding = (one) => isServed(one) && HOW.some((how) => how === /** @type {SessionEnding} */ (one).how);
