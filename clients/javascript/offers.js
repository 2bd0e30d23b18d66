/** The offers that a mechanic's client knows: which are open, which are news, which are over. Pure: values in, values out. */

/** @import {OfferView} from "./wire.js" */

/**
 * An offer with its own deadline: `deadline_ms` on the `performance.now()` scale, so that a wrong device clock does no harm.
 * @typedef {OfferView & {deadline_ms: number}} OpenOffer
 */
/**
 * - `open`: it may be accepted
 * - `gone`: it was withdrawn, a snapshot left it out, or an accept came too late; it may come again, to whoever goes on duty
 *   again, or takes sessions of its kind again
 * - `answered`: we have accepted or declined it, here or on another device; it never comes again, whoever says so late
 * @typedef {"open" | "gone" | "answered"} Standing
 */
/** @typedef {{offer: OpenOffer, standing: Standing, seen: boolean}} KnownOffer */
/** By `offer_id`, in the order in which they were first heard of. @typedef {ReadonlyMap<string, KnownOffer>} KnownOffers */
/** What an app is to be told of. @typedef {{offer: OpenOffer, is_new: boolean}} Opened */

/** Offers that are over are remembered up to so many altogether, so that a repeat of one is no news. */
export const KNOWN_MAX = 1_000;

/** @type {KnownOffers} */
export const NO_OFFERS = new Map();

/**
 * Of what is known of an offer and what is said of it now, the newer word, with its deadline.
 * @template {{expires_at: string, expires_in_ms: number}} View
 * @param {(View & {deadline_ms: number}) | undefined} old
 * @param {View} view
 * @param {number} received_ms
 * @returns {View & {deadline_ms: number}}
 */
export function newestOf(old, view, received_ms) {
  const deadline_ms = received_ms + view.expires_in_ms;
  // One deadline heard twice: transit only ever makes it seem later, so the earlier reading is nearer the truth.
  if (old?.expires_at === view.expires_at) return { ...view, deadline_ms: Math.min(old.deadline_ms, deadline_ms) };
  return old && saidAt(old) > saidAt(view) ? old : { ...view, deadline_ms };
}

/** When the server said so, by its own clock. @param {{expires_at: string, expires_in_ms: number}} view */
const saidAt = ({ expires_at, expires_in_ms }) => Date.parse(expires_at) - expires_in_ms;

/**
 * Take in an offer; it may be one that is known already: they are sent again until acknowledged.
 * @param {KnownOffers} known
 * @param {OfferView} view
 * @param {number} received_ms
 * @returns {{known: KnownOffers, opened: Opened | null}}  `opened` is null where the app has been told already
 */
export function withOffer(known, view, received_ms) {
  const old = known.get(view.offer_id);
  if (old?.standing === "answered") return { known, opened: null };
  const offer = newestOf(old?.offer, view, received_ms);
  /** @type {KnownOffer} */
  const entry = { offer, standing: "open", seen: old?.seen ?? false };
  const opened = old?.standing === "open" ? null : { offer, is_new: !old };
  return { known: bounded(new Map(known).set(view.offer_id, entry)), opened };
}

/**
 * Take in all that are open now, as a welcome or a poll says.
 * @param {KnownOffers} known
 * @param {readonly OfferView[]} views
 * @param {number} received_ms
 * @param {{has: (offer_id: string) => boolean}} [kept]  which are not gone although they are not named
 * @returns {{known: KnownOffers, opened: Opened[], gone: OpenOffer[]}}
 */
export function withSnapshot(known, views, received_ms, kept = new Set()) {
  const named = new Set(views.map(({ offer_id }) => offer_id));
  const gone = openIn(known).filter(({ offer_id }) => !named.has(offer_id) && !kept.has(offer_id));
  let next = gone.reduce((all, { offer_id }) => ended(all, offer_id, "gone"), known);
  /** @type {Opened[]} */
  const opened = [];
  for (const view of views) {
    const one = withOffer(next, view, received_ms);
    next = one.known;
    if (one.opened) opened.push(one.opened);
  }
  return { known: next, opened, gone };
}

/**
 * It is over. What was answered stays so.
 * @param {KnownOffers} known
 * @param {string} offer_id
 * @param {"gone" | "answered"} standing
 * @returns {KnownOffers}  the same if that changes nothing
 */
export function ended(known, offer_id, standing) {
  const old = known.get(offer_id);
  if (!old || old.standing === "answered" || old.standing === standing) return known;
  return new Map(known).set(offer_id, { ...old, standing });
}

/**
 * A person could see it.
 * @param {KnownOffers} known
 * @param {string} offer_id
 * @returns {KnownOffers}  the same if that was known, or the offer is not
 */
export function seen(known, offer_id) {
  const old = known.get(offer_id);
  return !old || old.seen ? known : new Map(known).set(offer_id, { ...old, seen: true });
}

/**
 * @param {KnownOffers} known
 * @returns {OpenOffer[]}
 */
export const openIn = (known) =>
  [...known.values()].filter(({ standing }) => standing === "open").map(({ offer }) => offer);

/** @param {Map<string, KnownOffer>} known  of these the oldest that are over are forgotten */
function bounded(known) {
  for (const [offer_id, { standing }] of known) {
    if (known.size <= KNOWN_MAX) break;
    if (standing !== "open") known.delete(offer_id);
  }
  return known;
}
