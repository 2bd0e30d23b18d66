/**
 * How sessions ended for the mechanic who had them, kept until they have read it: whoever looks away for a minute must not find
 * nothing where a session was. Pure: values in, values out.
 */

import { assignedTo, without } from "./requests.js";

/**
 * @import {PastOffer, RequestView} from "./wire.js"
 * @import {State} from "./state.js"
 */

/**
 * - `no_show`, `find_another`: lost before it began, by not starting in time, or because the customer asked for somebody else
 * - `cancelled`: by the customer; `taken_back`: by the operator, as cancelled or as not served
 * - `by_customer`, `by_time`, `by_operator`: completed, by whom
 * - `gone`: somebody else's by now, and nobody says why
 * - `unsure`: it ended unheard, and the server has still to say how; not shown before
 * @typedef {"no_show" | "find_another" | "cancelled" | "taken_back" | "by_customer" | "by_time" | "by_operator" | "gone" |
 *   "unsure"} HowEnded
 */
/** What a mechanic has, as far as its end has to be told. @typedef {{request_id: string, customer_name: string, plan: string}} Served */
/** @typedef {Served & {how: HowEnded}} SessionEnding */

/** So many are enough to read. */
const ENDINGS_MAX = 5;
const LOSSES = /** @type {const} */ (["no_show", "find_another"]);

/** @param {RequestView} request @returns {Served} */
export const servedIn = ({ id, customer_name, plan }) => ({ request_id: id, customer_name, plan });

/**
 * How it ended for who had it.
 * @param {RequestView} request  as it is now
 * @param {string | undefined} mechanic_id
 * @returns {HowEnded | null}  null: they have it still, or have ended it themselves
 */
export function howEnded(request, mechanic_id) {
  switch (request.status) {
    case "completed": {
      const { by } = request.timeline.findLast(({ event }) => event === "completed") ?? {};
      return by === "customer" || by === "time" || by === "operator" ? `by_${by}` : null;
    }
    case "cancelled": {
      const { cause } = request.timeline.findLast(({ event }) => event === "cancelled") ?? {};
      return cause ? "taken_back" : "cancelled";
    }
    case "unfilled":
      return lossOf(request, mechanic_id) ?? "taken_back";
    default:
      if (assignedTo(mechanic_id, { [request.id]: { ...request, deadline_ms: null, limit_ms: null, unsure: false } })) return null;
      return lossOf(request, mechanic_id) ?? (gaveBack(request, mechanic_id) ? null : "gone");
  }
}

/**
 * How a mechanic lost the request before it began.
 * @param {RequestView} request
 * @param {string | undefined} mechanic_id
 */
function lossOf({ timeline }, mechanic_id) {
  const line = timeline.findLast((entry) => entry.mechanic_id === mechanic_id && LOSSES.some((how) => how === entry.event));
  return LOSSES.find((how) => how === line?.event) ?? null;
}

/**
 * @param {RequestView} request
 * @param {string | undefined} mechanic_id
 */
const gaveBack = ({ timeline }, mechanic_id) =>
  timeline.some(({ event, mechanic_id: by }) => event === "released" && by === mechanic_id);

/**
 * How it ended, of what is told of it as an offer: of a request that is somebody else's by now the server says no more.
 * @param {string} request_id
 * @param {readonly PastOffer[]} offers
 * @returns {HowEnded | null}  null: they gave it back themselves
 */
export function howEndedIn(request_id, offers) {
  const outcomes = offers.filter((offer) => offer.request_id === request_id).map(({ outcome }) => outcome);
  if (outcomes.includes("given_back")) return null;
  return LOSSES.find((how) => outcomes.includes(how)) ?? "gone";
}

/**
 * After a change of what is known of requests: note how those ended that were this mechanic's before it.
 * @param {State} before
 * @param {State} state
 * @returns {State}
 */
export function withEndings(before, state) {
  const { me } = before;
  // Whoever is not here any more has nothing to read.
  if (state.requests === before.requests || me?.role !== "mechanic" || state.me !== me) return state;
  return Object.values(before.requests).reduce((next, old) => {
    if (!assignedTo(me.id, { [old.id]: old })) return next;
    const request = state.requests[old.id];
    return withEnding(next, servedIn(old), request ? howEnded(request, me.id) : "unsure");
  }, state);
}

/**
 * @param {State} state
 * @param {Served} served
 * @param {HowEnded | null} how  null: there is nothing to tell
 * @returns {State}
 */
export function withEnding(state, served, how) {
  const { request_id } = served;
  const others = without(state.endings, request_id);
  if (how === null) return request_id in state.endings ? { ...state, endings: others } : state;
  const kept = Object.entries(others).slice(-(ENDINGS_MAX - 1));
  return { ...state, endings: { ...Object.fromEntries(kept), [request_id]: { ...served, how } } };
}

/**
 * A snapshot names the request that this mechanic has: another one that they had, when the page was closed, has ended.
 * @param {State} state
 * @param {string | undefined} request_id  that they have now
 */
export function withRemembered(state, request_id) {
  const { remembered } = state;
  if (!remembered) return state;
  const next = { ...state, remembered: null };
  return remembered.request_id === request_id ? next : withEnding(next, remembered, "unsure");
}
