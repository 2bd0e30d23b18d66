/** Requests and offers as the page keeps them. Pure: values in, values out; `received_ms` is `performance.now()` at receipt. */

/** @import {OfferView, RequestStatus, RequestView, WithdrawReason} from "./wire.js" */

/**
 * A request with its own deadline: `deadline_ms` on the `performance.now()` scale, null while nothing is offered.
 * `unsure` after a reconnect whose welcome no longer names it: it ended while we were away.
 * @typedef {RequestView & {deadline_ms: number | null, unsure: boolean}} TrackedRequest
 */

/** @type {RequestStatus[]} */
const OPEN = ["priority_offered", "broadcasting", "accepted", "in_progress"];

/** @param {{status: RequestStatus}} request */
export const isOpen = (request) => OPEN.includes(request.status);

/** @param {{status: RequestStatus}} request */
export const isCancellable = (request) => isOpen(request) && request.status !== "in_progress";

/**
 * Take in a request unless a newer version is known already.
 * @param {Readonly<Record<string, TrackedRequest>>} known
 * @param {RequestView} request
 * @param {number} received_ms
 * @returns {Readonly<Record<string, TrackedRequest>>}
 */
export function withRequest(known, request, received_ms) {
  const old = known[request.id];
  if (old && old.version > request.version) return known;
  return { ...known, [request.id]: { ...request, deadline_ms: deadlineOf(request, received_ms, old), unsure: false } };
}

/**
 * @param {RequestView} request
 * @param {number} received_ms
 * @param {TrackedRequest | undefined} old
 */
function deadlineOf({ offer }, received_ms, old) {
  if (!offer) return null;
  const deadline_ms = received_ms + offer.expires_in_ms;
  // One deadline heard twice: transit only ever makes it seem later, so the earlier reading is nearer the truth.
  return old?.offer?.id === offer.id ? Math.min(deadline_ms, old.deadline_ms ?? deadline_ms) : deadline_ms;
}

/**
 * Take in the open requests of a welcome; open ones that it no longer names become `unsure`.
 * @param {Readonly<Record<string, TrackedRequest>>} known
 * @param {RequestView[]} requests
 * @param {number} received_ms
 */
export function withSnapshot(known, requests, received_ms) {
  const named = new Set(requests.map((request) => request.id));
  /** @type {Record<string, TrackedRequest>} */
  const checked = {};
  for (const [id, request] of Object.entries(known)) {
    checked[id] = isOpen(request) && !named.has(id) ? { ...request, unsure: true } : request;
  }
  return requests.reduce(
    (all, request) => withRequest(all, request, received_ms),
    /** @type {typeof known} */ (checked),
  );
}

/**
 * The request that a mechanic is busy with.
 * @param {string | undefined} mechanic_id
 * @param {Readonly<Record<string, TrackedRequest>>} requests
 * @returns {TrackedRequest | null}
 */
export function assignedTo(mechanic_id, requests) {
  const theirs = Object.values(requests).filter(
    ({ status, assigned_mechanic }) =>
      (status === "accepted" || status === "in_progress") && (assigned_mechanic?.id ?? mechanic_id) === mechanic_id,
  );
  return newestFirst(theirs)[0] ?? null;
}

/**
 * Newest first: ids sort by creation time.
 * @template {{id: string}} Item
 * @param {Item[]} items
 */
export const newestFirst = (items) => [...items].sort((a, b) => (a.id < b.id ? 1 : -1));

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
  const deadline_ms = received_ms + offer.expires_in_ms;
  const card = old
    ? { ...old, ...offer, deadline_ms: Math.min(old.deadline_ms, deadline_ms), ended: null, by_you: false }
    : { ...offer, deadline_ms, declining: null, pending: null, problem: null, ended: null, by_you: false };
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
 * The record without one entry.
 * @template Value
 * @param {Readonly<Record<string, Value>>} record
 * @param {string} key
 * @returns {Readonly<Record<string, Value>>}
 */
export function without(record, key) {
  const { [key]: _gone, ...rest } = record;
  return rest;
}
