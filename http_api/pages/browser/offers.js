/** Offers as the mechanic's page keeps them. Pure: values in, values out; `received_ms` is `performance.now()` at receipt. */

import { newestOf } from "../../../clients/javascript/offers.js";
import { without } from "./requests.js";

/**
 * @import {ErrorMessage, OfferView, OfferWithdrawn, WithdrawReason} from "./wire.js"
 * @import {State} from "./state.js"
 */

/**
 * An offer on the mechanic's page. `declining` while a decline may still be taken back, and why it was given; `pending` while
 * our answer is on its way; `problem` what the server said to it; `ended` why the offer is gone, while the card still says so;
 * `by_you`: it was answered on another device.
 * @typedef {OfferView & {deadline_ms: number, declining: {reason: string | null} | null,
 *   pending: "accept" | "decline" | null, problem: string | null,
 *   ended: WithdrawReason | "offer_gone" | "answered" | null, by_you: boolean}} TrackedOffer
 */

/**
 * @param {Readonly<Record<string, TrackedOffer>>} known
 * @param {OfferView} offer  may be one we have: offers are sent again until acknowledged
 * @param {number} received_ms
 * @returns {Readonly<Record<string, TrackedOffer>>}
 */
export function withOffer(known, offer, received_ms) {
  const old = known[offer.offer_id];
  const newest = newestOf(old, offer, received_ms);
  const card = old
    ? {
        ...old,
        ...newest,
        // Why it had ended is of no concern any more.
        problem: old.ended ? null : old.problem,
        ended: null,
        by_you: false,
      }
    : { ...newest, declining: null, pending: null, problem: null, ended: null, by_you: false };
  return { ...known, [offer.offer_id]: card };
}

/**
 * Change one offer, if it is still known.
 * @param {Readonly<Record<string, TrackedOffer>>} known
 * @param {string} offer_id
 * @param {Partial<TrackedOffer>} change
 */
export function changeOffer(known, offer_id, change) {
  const old = known[offer_id];
  return old ? { ...known, [offer_id]: { ...old, ...change } } : known;
}

/**
 * Without what went wrong with answers to those that are open; of one that has ended it is the reason.
 * @param {State["offers"]} offers
 * @returns {State["offers"]}
 */
export const withoutProblems = (offers) =>
  Object.fromEntries(
    Object.entries(offers).map(([offer_id, offer]) => [offer_id, offer.ended ? offer : { ...offer, problem: null }]),
  );

/**
 * A snapshot says which offers are open. What is being answered stays until its outcome is known, and cards that are only
 * still saying goodbye may finish doing so.
 * @param {State["offers"]} known
 * @param {OfferView[]} offers
 * @param {number} received_ms
 */
export function withOpenOffers(known, offers, received_ms) {
  const open = new Set(offers.map((offer) => offer.offer_id));
  /** @type {State["offers"]} */
  const kept = Object.fromEntries(
    Object.entries(known).filter(([offer_id, offer]) => open.has(offer_id) || offer.pending || offer.ended),
  );
  return offers.reduce((all, offer) => withOffer(all, offer, received_ms), kept);
}

/**
 * Drop every card of a request: a late tap names the priority offer while the broadcast's card is shown as well.
 *
 * @param {State["offers"]} offers
 * @param {string} request_id
 * @returns {State["offers"]}
 */
export function withoutRequest(offers, request_id) {
  return Object.fromEntries(Object.entries(offers).filter(([, offer]) => offer.request_id !== request_id));
}

/**
 * @param {State} state
 * @param {OfferWithdrawn} withdrawn
 * @returns {State}
 */
export function withWithdrawal(state, { offer_id, reason, by_you = false }) {
  const known = state.offers[offer_id];
  // A decline of ours that was made here needs no explanation.
  if (reason === "declined" && (known?.pending === "decline" || !by_you))
    return { ...state, offers: without(state.offers, offer_id) };
  const change = { declining: null, pending: null, problem: null, ended: reason, by_you };
  return { ...state, offers: changeOffer(state.offers, offer_id, change) };
}

/**
 * @param {State} state
 * @param {ErrorMessage} error
 * @returns {State}
 */
export function withRefusal(state, { code, message, ref }) {
  // One that is about duty has no `ref`.
  if (!ref) return state.duty_wanted === null ? state : { ...state, duty_wanted: null };
  const change = { declining: null, pending: null, problem: message };
  return {
    ...state,
    offers: changeOffer(state.offers, ref, code === "offer_gone" ? { ...change, ended: code } : change),
  };
}
