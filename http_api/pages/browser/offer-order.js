/** In which order offers are shown. Pure. What lies under a hand stays where it is, so there are two orders: the one that is right, and the one shown. */

/** @import {TrackedOffer} from "./offers.js" */

/**
 * Those who asked for this mechanic first, then whoever runs out soonest.
 * @param {TrackedOffer} a
 * @param {TrackedOffer} b
 */
export function byUrgency(a, b) {
  if (a.kind !== b.kind) return a.kind === "priority" ? -1 : 1;
  return a.deadline_ms - b.deadline_ms || (a.offer_id < b.offer_id ? -1 : 1);
}

/**
 * The order to show. While a hand is near nothing that is shown moves or goes, and what is new comes after it.
 * @param {readonly string[]} shown  ids, as they are on the screen
 * @param {readonly string[]} right  ids, as they should be
 * @param {boolean} hand_near
 * @returns {string[]}
 */
export function steadyOrder(shown, right, hand_near) {
  if (!hand_near) return [...right];
  return [...shown, ...right.filter((id) => !shown.includes(id))];
}
