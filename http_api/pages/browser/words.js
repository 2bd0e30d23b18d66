/**
 * What the page says, as pure functions of what it knows. A word that only a newer server has is said as well as can be.
 */

/**
 * @import {Availability, FallbackReason, OfferKind, PlanView, ProviderType, PublicConfig, Reachable, RequestStatus, RequestView,
 *   SessionType, StatusView, TimelineEntryView, WithdrawReason} from "./wire.js"
 */

const LOCALE = "en-US";

/**
 * @param {number} cents  in the currency's minor unit: whole yen, thousandths of a dinar
 * @param {string} [currency]  ISO 4217, any case
 */
export function money(cents, currency = "usd") {
  const format = new Intl.NumberFormat(LOCALE, { style: "currency", currency });
  return format.format(cents / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2));
}

/**
 * A length in the words of the flow: "10 min", "30 s", "1 min 30 s".
 * @param {number} seconds
 */
export function span(seconds) {
  if (seconds < 59.95) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  const rest = whole % 60;
  const minutes = Math.floor(whole / 60);
  if (minutes >= 120 && rest === 0 && minutes % 60 === 0) return `${minutes / 60} hours`;
  return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
}

/**
 * A countdown: "9:41"; hours appear only when there are any.
 * @param {number} left_ms
 */
export function countdown(left_ms) {
  const seconds = Math.ceil(left_ms / 1000);
  const two = (/** @type {number} */ part) => String(part).padStart(2, "0");
  const minutes = Math.floor(seconds / 60);
  if (minutes >= 60) return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`;
  return `${minutes}:${two(seconds % 60)}`;
}

const relative = new Intl.RelativeTimeFormat("en");

/**
 * "2 hours ago", "just now".
 * @param {string} at  RFC 3339
 * @param {number} now_ms  the server's time
 */
export function ago(at, now_ms) {
  const seconds = Math.max(0, (now_ms - Date.parse(at)) / 1000);
  if (!Number.isFinite(seconds)) return "some time ago";
  if (seconds < 45) return "just now";
  /** @type {[Intl.RelativeTimeFormatUnit, number][]} */
  const steps = [
    ["year", 31_536_000],
    ["month", 2_592_000],
    ["week", 604_800],
    ["day", 86_400],
    ["hour", 3_600],
  ];
  const [unit, size] = steps.find(([, length]) => seconds >= length) ?? ["minute", 60];
  return relative.format(-Math.max(1, Math.floor(seconds / size)), unit);
}

const hourAndMinute = new Intl.DateTimeFormat(LOCALE, { hour: "numeric", minute: "2-digit" });
const day = /** @type {const} */ ({ month: "short", day: "numeric" });
const thisYear = new Intl.DateTimeFormat(LOCALE, { ...day, hour: "numeric", minute: "2-digit" });
const longAgo = new Intl.DateTimeFormat(LOCALE, { ...day, year: "numeric" });

/** @param {string} at  RFC 3339 */
export const timeOfDay = (at) => (Number.isNaN(Date.parse(at)) ? "" : hourAndMinute.format(new Date(at)));
/**
 * The day, with its time in this year and with the year in others.
 * @param {string} at  RFC 3339
 * @param {number} now_ms  the server's time
 */
export function dateAndTime(at, now_ms) {
  const when = new Date(at);
  if (Number.isNaN(when.getTime())) return "";
  return (when.getFullYear() === new Date(now_ms).getFullYear() ? thisYear : longAgo).format(when);
}

const BUSINESS = /'s\b|’s\b|&|\d|garage|auto|motor|work|service|repair|tire|tyre|shop|center|centre|\b(inc|llc|ltd)\b/i;

/**
 * How to speak of a mechanic: "John" for a person, "Mike's Garage" for a workshop.
 * @param {string} name
 * @param {ProviderType} [type]  where the server did not say, the name itself decides
 */
export function shortName(name, type) {
  const workshop = type ? type === "workshop" : BUSINESS.test(name);
  return workshop ? name : (name.trim().split(/\s/)[0] ?? name);
}

/** @param {ProviderType} type */
export const providerType = (type) => (type === "workshop" ? "Workshop" : "Independent");

/** @type {Record<Availability, string>} */
const AVAILABILITY = {
  available: "Available Now",
  busy: "In a session right now",
  off_duty: "Off duty",
  offline: "Currently Offline",
};

/** @param {StatusView | null | undefined} status */
export const availabilityText = (status) =>
  status ? (AVAILABILITY[status.availability] ?? "Status unknown") : "Checking status…";

/**
 * The second line of a status; empty where there is nothing to add.
 * @param {StatusView | null | undefined} status
 * @param {number} now_ms
 */
export function lastSeenText(status, now_ms) {
  if (!status || status.is_online) return "";
  return status.last_seen ? `Last seen ${ago(status.last_seen, now_ms)}` : "Not seen online yet";
}

/**
 * What happens after choosing the favourite, in the sentences of the flow.
 * @param {string} name  the short one
 * @param {StatusView} status
 * @param {string} window  how long the favourite is asked alone, such as "10 min"
 * @returns {string[]}
 */
export function notificationNotes(name, status, window) {
  if (status.availability === "available") return [`${name} will be notified immediately`];
  /** @type {Record<Reachable, string>} */
  const how = {
    socket: `${name} has the app open and will be notified immediately.`,
    push: `${name} will get a push notification.`,
    none: "Their app is closed right now: they will see your request when they open it.",
  };
  return [
    `${name} will get priority notification. If no response in ${window}, we'll find you another mechanic.`,
    how[status.reachable] ?? "",
  ].filter(Boolean);
}

/** @param {number} count */
export function availableText(count) {
  if (count === 0) return "No mechanic is available this minute";
  return count === 1 ? "1 mechanic available now" : `${count} mechanics available now`;
}

/** @param {{duration_min: number, session_type: string}} plan */
export const planLength = (plan) => `${plan.duration_min} min ${plan.session_type.replaceAll("_", " ")}`;

/** The kinds of session that a mechanic may switch off. @type {readonly string[]} */
const SESSION_TYPES = /** @type {const} @satisfies {readonly SessionType[]} */ (["diagnostic", "text", "video"]);

/**
 * Whether a mechanic takes what the plan buys; while their status is not known, it is not said that they do not.
 * @param {StatusView | null | undefined} status
 * @param {{session_type: string}} plan
 */
export const takesPlan = (status, { session_type }) =>
  !status?.session_types ||
  !SESSION_TYPES.includes(session_type) ||
  status.session_types.some((taken) => taken === session_type);

/**
 * Why a plan cannot be chosen with a favourite.
 * @param {string} name
 * @param {{session_type: string}} plan
 */
export const notTakenText = (name, { session_type }) =>
  `${name} does not take ${session_type.replaceAll("_", " ")} sessions.`;

/**
 * The name of a plan, or its id made readable while the plans are not known.
 * @param {readonly PlanView[] | null} plans
 * @param {string} id
 */
export function planName(plans, id) {
  return plans?.find((plan) => plan.id === id)?.name ?? sentence(id);
}

/**
 * @param {string} word  snake_case
 */
function sentence(word) {
  const text = word.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * @typedef {object} Story  what the customer reads about a request
 * @property {string} headline
 * @property {string} detail
 * @property {"waiting" | "good" | "calm" | "sad"} tone
 */

/**
 * @param {RequestView} request
 * @param {object} know
 * @param {string} know.preferred  short name of the favourite, or ""
 * @param {PublicConfig | null} know.config
 * @param {StatusView | undefined} know.status  of the favourite
 * @param {number | null} know.available_count
 * @returns {Story}
 */
export function customerStory(request, { preferred, config, status, available_count }) {
  const assigned = request.assigned_mechanic?.name ?? "Your mechanic";
  switch (request.status) {
    case "priority_offered":
      return {
        tone: "waiting",
        headline: `Waiting for ${preferred}`,
        detail: waitingDetail(request, preferred, status, config),
      };
    case "broadcasting":
      return {
        tone: "waiting",
        headline: "Finding you a mechanic…",
        detail: broadcastDetail(request, preferred, available_count),
      };
    case "accepted":
      return {
        tone: "good",
        headline: `${assigned} accepted`,
        detail: "Your session starts as soon as they press start.",
      };
    case "in_progress":
      return { tone: "good", headline: `In session with ${assigned}`, detail: "Your session is under way." };
    case "completed":
      return { tone: "calm", headline: `Completed with ${assigned}`, detail: "Thank you for using Pitlane." };
    case "unfilled":
      return {
        tone: "sad",
        headline: "No mechanic was free in time",
        detail: refundText(request) || "You have not been charged.",
      };
    case "cancelled":
      return { tone: "calm", headline: "Cancelled", detail: refundText(request) || "You have not been charged." };
    default: {
      /** @type {never} */
      const unknown = request.status;
      return { tone: "calm", headline: sentence(unknown), detail: "" };
    }
  }
}

/**
 * @param {RequestView} request
 * @param {string} preferred
 * @param {StatusView | undefined} status
 * @param {PublicConfig | null} config
 */
function waitingDetail(request, preferred, status, config) {
  const then = "If there is no answer in time, we'll find you another mechanic.";
  const has = (/** @type {string} */ event) => request.timeline.some((entry) => entry.event === event);
  if (has("seen")) return `${preferred} has seen your request. ${then}`;
  if (has("delivered")) return `Your request has reached ${preferred}. ${then}`;
  if (status?.reachable === "none") {
    const window = config ? ` within ${span(config.priority_window_s)}` : "";
    return `${preferred} cannot be reached right now, but will see your request if they open the app${window}.`;
  }
  return then;
}

/**
 * @param {RequestView} request
 * @param {string} preferred
 * @param {number | null} available_count
 */
function broadcastDetail(request, preferred, available_count) {
  const who =
    available_count === null
      ? "Every available mechanic is asked; the first to accept gets it."
      : available_count === 0
        ? "Nobody is free this minute; whoever comes on duty gets your request at once."
        : `Offered to ${available_count} available ${available_count === 1 ? "mechanic" : "mechanics"}; the first to accept gets it.`;
  /** @type {Record<FallbackReason, string>} */
  const because = {
    declined: `${preferred || "Your favorite"} could not take it. `,
    expired: `${preferred || "Your favorite"} did not answer in time. `,
    skipped: "You skipped the wait. ",
  };
  return request.fallback_reason ? (because[request.fallback_reason] ?? "") + who : who;
}

/**
 * Where the money is; empty if none is owed.
 * @param {RequestView} request
 */
export function refundText({ refund }) {
  if (!refund) return "";
  const amount = money(refund.amount_cents);
  if (refund.status === "succeeded") return `${amount} refunded in full.`;
  if (refund.status === "failed")
    return `The refund of ${amount} has not gone through yet; we keep it on record and owe it to you.`;
  return `Your refund of ${amount} is on its way.`;
}

/** @type {Record<RequestStatus, string>} */
const SHORT_STATUS = {
  priority_offered: "Waiting",
  broadcasting: "Finding a mechanic",
  accepted: "Accepted",
  in_progress: "In session",
  completed: "Completed",
  unfilled: "No mechanic free",
  cancelled: "Cancelled",
};

/** @param {RequestView} request */
export const shortStatus = (request) => SHORT_STATUS[request.status] ?? sentence(request.status);

/**
 * One line of a request's story.
 * @param {TimelineEntryView} entry
 * @param {RequestView} request
 * @param {"customer" | "mechanic"} side  who reads it
 */
export function timelineText(entry, request, side) {
  const favorite = request.preferred_mechanic?.name ?? "The favorite";
  const who = entry.mechanic_name;
  switch (entry.event) {
    case "requested":
      return "Request made";
    case "paid":
      return "Payment received";
    case "offered":
      return `Offered to ${who ?? favorite} first`;
    case "delivered":
      return `Reached ${who ?? favorite}`;
    case "seen":
      return `Seen by ${who ?? favorite}`;
    case "declined":
      return `${who ?? favorite} declined`;
    case "expired":
      return `No answer from ${favorite} in time`;
    case "skipped":
      return side === "customer" ? "You skipped the wait" : "The customer chose not to wait";
    case "broadcast":
      return "Offered to every available mechanic";
    case "accepted":
      return `${who ?? request.assigned_mechanic?.name ?? "A mechanic"} accepted`;
    case "started":
      return "Session started";
    case "completed":
      return "Session completed";
    case "released":
      return `${who ?? "The mechanic"} gave the request back`;
    case "cancelled":
      return "Request cancelled";
    case "unfilled":
      return "No mechanic was free in time";
    case "refund_requested":
      return "Refund on its way";
    case "refunded":
      return request.refund ? `${money(request.refund.amount_cents)} refunded` : "Refunded";
    case "refund_failed":
      return "A refund attempt failed; trying again";
    default:
      return sentence(entry.event);
  }
}

/** What a mechanic may say to a decline; operators read it, customers do not. @type {readonly string[]} */
export const DECLINE_REASONS = ["Busy right now", "Not my field", "Done for today"];

/**
 * Why an offer left the mechanic's list.
 * @param {WithdrawReason | "offer_gone" | "answered"} reason
 * @param {boolean} [by_you]  it was this mechanic, on another device
 */
export function withdrawnText(reason, by_you = false) {
  if (by_you && reason === "taken") return "You accepted this on another device.";
  if (by_you && reason === "declined") return "You declined this on another device.";
  /** @type {Record<WithdrawReason | "offer_gone" | "answered", string>} */
  const texts = {
    taken: "Another mechanic was faster.",
    expired: "The time for this offer ran out.",
    cancelled: "The customer cancelled this request.",
    skipped: "The customer chose not to wait.",
    declined: "Declined.",
    offer_gone: "This offer is gone.",
    answered: "Answered.",
  };
  return texts[reason] ?? "This offer was withdrawn.";
}

/**
 * An offer in a sentence, for whoever only listens or only glances.
 * @param {{kind: OfferKind, customer_name: string, plan: string}} offer
 * @param {readonly PlanView[] | null} plans
 */
export function offerText({ kind, customer_name, plan }, plans) {
  const what = planName(plans, plan);
  return kind === "priority"
    ? `Priority offer: ${customer_name} asked for you. ${what}.`
    : `New offer: ${what} for ${customer_name}.`;
}

/**
 * The title of the app's page: what waits comes first, where a narrow tab still shows it.
 * @param {string} title
 * @param {readonly {kind: OfferKind, customer_name: string}[]} offers  those that are open, in the right order
 */
export function appTitle(title, offers) {
  const [first] = offers;
  if (!first) return title;
  const what = first.kind === "priority" ? `${first.customer_name} asks for you` : offers.length === 1 ? "Offer" : "Offers";
  return `(${offers.length}) ${what} - ${title}`;
}

/**
 * Why no offer can be accepted now; empty if it can.
 * @param {{live: boolean, in_session: boolean}} now
 */
export function acceptReason({ live, in_session }) {
  if (in_session) return "You are in a session. Complete it, or give it back, to accept another offer.";
  return live ? "" : "No connection just now, so no answer can be sent. We keep trying.";
}

/**
 * The mechanic's day in a line.
 * @param {object} now
 * @param {boolean} now.live
 * @param {boolean | null} now.on_duty
 * @param {string | null} now.customer_name  of the session, if there is one
 * @param {number} now.offers  how many are open
 */
export function situationText({ live, on_duty, customer_name, offers }) {
  // Only a socket says whether they are on duty; offers come by polling, too.
  if (on_duty === null) return live ? "Offers come every few seconds" : "Connecting…";
  if (!live) return "No connection: offers cannot reach you here";
  const rest = offers === 0 ? "" : offers === 1 ? " · 1 offer" : ` · ${offers} offers`;
  if (customer_name !== null) return `In a session with ${customer_name}${rest}`;
  if (rest) return `${on_duty ? "On duty" : "Off duty"}${rest}`;
  return on_duty ? "On duty · waiting for offers" : "Off duty";
}
