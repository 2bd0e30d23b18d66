/**
 * What the page says, as pure functions of what it knows. A word that only a newer server has is said as well as can be.
 */

import { money as moneyIn } from "../../../clients/javascript/money.js";

/**
 * @import {Availability, OfferKind, PlanView, ProviderType, Reachable, RefundStatus, RequestStatus, RequestView, SessionType, StatusView,
 *   TimelineEntryView, WithdrawReason} from "./wire.js"
 * @import {CheckoutProgress} from "./state.js"
 */

const LOCALE = "en-US";

/**
 * @param {number} amount  as the server counts it: cents, whole yen, thousandths of a dinar
 * @param {string} currency
 */
export const money = (amount, currency) => moneyIn(amount, currency, LOCALE);

/**
 * What something costs; empty where a server of an earlier version has not told.
 * @param {{price_cents?: number, currency?: string}} priced
 */
export function priceText({ price_cents, currency }) {
  if (price_cents === undefined || currency === undefined) return "";
  return price_cents === 0 ? "Free" : money(price_cents, currency);
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
  const otherwise = "we'll find you another mechanic.";
  // The flow's sentence promises a notification.
  if (status.reachable === "none")
    return [
      `${name} cannot be notified right now, but will see your request if they open the app within ${window}. If not, ${otherwise}`,
    ];
  /** @type {Record<Exclude<Reachable, "none">, string>} */
  const how = {
    socket: `${name} has the app open and will be notified immediately.`,
    push: `${name} will get a push notification.`,
  };
  return [
    `${name} will get priority notification. If no response in ${window}, ${otherwise}`,
    how[status.reachable] ?? "",
  ].filter(Boolean);
}

/**
 * How a favourite usually answers, for whoever is about to wait for them; empty while too little is known.
 * @param {string} name  the short one
 * @param {StatusView["response"]} response
 */
export function usualAnswerText(name, response) {
  if (!response) return "";
  const { accept_percent, answers_within_s, offers } = response;
  if (answers_within_s === null) return `${name} has answered none of the last ${offers} requests.`;
  const within = answers_within_s <= 60 ? "a minute" : `${Math.ceil(answers_within_s / 60)} minutes`;
  const accepted = Math.round((accept_percent * offers) / 100);
  return `${name} usually answers within ${within}; accepted ${accepted} of the last ${offers}.`;
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
 * What the button says that books.
 * @param {PlanView | undefined} plan  undefined: none is chosen
 * @param {CheckoutProgress["phase"]} phase
 */
export function checkoutText(plan, phase) {
  // The flow's words lead to a payment.
  if (plan?.price_cents === 0) return phase === "idle" ? "Book Free Session" : "Booking…";
  return { idle: "Continue to Checkout", sending: "Opening checkout…", leaving: "Taking you to checkout…" }[phase];
}

/**
 * The name of a plan, or its id made readable while the plans are not known.
 * @param {readonly PlanView[] | null} plans
 * @param {string} id
 */
export function planName(plans, id) {
  return plans?.find((plan) => plan.id === id)?.name ?? sentence(id);
}

const DISPUTES = new Set(["disputed", "dispute_won", "dispute_lost"]);

/**
 * Why a request was cancelled by nobody's wish; empty where its customer did it.
 * @param {RequestView} request
 */
export function cancelledText({ timeline }) {
  const cause = timeline.findLast(({ event }) => event === "cancelled")?.cause;
  switch (cause) {
    case "paid_twice":
      return "You had paid for the same session on another page already.";
    case "refunded_at_stripe":
      return "We called this request off before the session began.";
    case "disputed":
      return "Your bank disputes this payment, so we called the session off.";
    case "operator":
      return "We have cancelled this request for you.";
    default:
      return "";
  }
}

/**
 * @param {string} word  snake_case
 */
export function sentence(word) {
  const text = word.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * Where the money is; empty if none is owed, and none has been moved.
 * @param {RequestView} request
 */
export function refundText(request) {
  const { refund, currency, price_cents, timeline } = request;
  const dispute = request.disputed ? timeline.findLast(({ event }) => DISPUTES.has(event))?.event : undefined;
  if (dispute === "disputed" && refund?.status !== "succeeded")
    return refund
      ? "Once your bank has decided, we give back what it has not."
      : "Your bank is looking into this payment.";
  if (dispute === "dispute_lost") return "Your bank has given this payment back to you.";
  if (!refund) return "";
  const code = refund.currency ?? currency;
  const amount = code === undefined ? "" : money(refund.amount_cents, code);
  const of_it = amount && ` of ${amount}`;
  switch (refund.status) {
    case "succeeded": {
      const is_all = price_cents === undefined || refund.amount_cents >= price_cents;
      return `${amount || "Your payment was"} refunded${is_all ? " in full" : ""}.`;
    }
    case "failed":
      return `The refund${of_it} has not gone through yet; we keep it on record and owe it to you.`;
    default:
      return `Your refund${of_it} is on its way.`;
  }
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
export const shortStatus = (request) =>
  isEndedByUs(request) ? "Ended" : (SHORT_STATUS[request.status] ?? sentence(request.status));

/** Whether the operator has ended it unserved. @param {RequestView} request */
export const isEndedByUs = ({ status, timeline }) =>
  status === "unfilled" && timeline.some(({ event, cause }) => event === "unfilled" && cause === "operator");

/** @type {Record<RefundStatus, string>} */
const SHORT_REFUND = { pending: "refund on its way", succeeded: "refunded", failed: "refund not through yet" };

/**
 * Where a request stands, and where its money is, in a few words.
 * @param {RequestView} request
 */
export const shortStatusAndMoney = (request) =>
  [shortStatus(request), request.refund && SHORT_REFUND[request.refund.status]].filter(Boolean).join(", ");

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
    case "reminded":
      return `${who ?? "The mechanic"} was reminded to start`;
    case "no_show":
      return `${who ?? "The mechanic"} did not start in time`;
    case "find_another":
      return `${side === "customer" ? "You" : "The customer"} asked for another mechanic`;
    case "completed":
      return completedText(entry, request, side);
    case "reported":
      return "You reported a problem";
    case "released":
      return `${who ?? "The mechanic"} gave the request back`;
    case "cancelled":
      if (side === "customer") return cancelledText(request) || "You cancelled the request";
      return entry.cause ? "Called off" : "The customer cancelled";
    case "unfilled":
      return entry.cause === "operator" ? "We have ended this request" : "No mechanic was free in time";
    case "refund_requested":
      return request.disputed ? "A refund, as soon as the bank lets us" : "Refund on its way";
    case "refunded":
      return refundedText(entry, request);
    case "refund_failed":
      return request.refund?.status === "failed"
        ? "The refund has not gone through; we look after it"
        : "A refund did not go through";
    case "refunded_at_stripe":
      return givenBackText(entry, request);
    case "disputed":
      return `${side === "customer" ? "Your" : "The customer's"} bank disputes the payment`;
    case "dispute_won":
      return "The bank has left the payment with us";
    case "dispute_lost":
      return "The bank has given the payment back";
    default:
      return sentence(entry.event);
  }
}

/**
 * Of what may still be on its way.
 * @param {TimelineEntryView} entry
 * @param {RequestView} request
 */
function givenBackText({ amount_cents }, { currency }) {
  return amount_cents === undefined || currency === undefined ? "Given back" : `We gave back ${money(amount_cents, currency)}`;
}

/**
 * @param {TimelineEntryView} entry
 * @param {RequestView} request
 */
function refundedText({ amount_cents }, { refund, currency }) {
  const amount = amount_cents ?? refund?.amount_cents;
  const code = refund?.currency ?? currency;
  return amount === undefined || code === undefined ? "Refunded" : `${money(amount, code)} refunded`;
}

/**
 * @param {TimelineEntryView} entry
 * @param {RequestView} request
 * @param {"customer" | "mechanic"} side
 */
function completedText({ by, lasted_s }, request, side) {
  const after = lasted_s === undefined ? "" : ` after ${length(lasted_s)}`;
  if (by === side) return `You completed the session${after}`;
  switch (by) {
    case "mechanic":
      return `${request.assigned_mechanic?.name ?? "The mechanic"} completed the session${after}`;
    case "customer":
      return `The customer completed the session${after}`;
    case "time":
      return `The session ended by itself${after}`;
    case "operator":
      return `Pitlane ended the session${after}`;
    default:
      return "Session completed";
  }
}

/** How long a session was: seconds count only where there is no minute. @param {number} seconds */
const length = (seconds) => span(seconds < 60 ? seconds : Math.round(seconds / 60) * 60);

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
    cancelled: "This request was called off.",
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
 * Several that came together.
 * @param {readonly {kind: OfferKind}[]} offers
 */
export function offersText(offers) {
  const asked = offers.filter(({ kind }) => kind === "priority").length;
  const customers = asked === 1 ? "one customer" : `${asked} customers`;
  return `${offers.length} offers wait${asked ? `; ${customers} asked for you` : ""}.`;
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
 * @param {{live: boolean, in_session: boolean, may_give_back: boolean, is_answering: boolean}} now  `is_answering`: the answer
 *   to another offer is on its way
 */
export function acceptReason({ live, in_session, may_give_back, is_answering }) {
  if (in_session)
    return `You are in a session. Complete it${may_give_back ? ", or give it back," : ""} to accept another offer.`;
  if (live) return "";
  return is_answering
    ? "No connection: your other answer goes out first, once we get through."
    : NO_ANSWER;
}

const NO_ANSWER = "No connection: no answer can be sent just now.";

/**
 * The mechanic's day in a line.
 * @param {object} now
 * @param {boolean} now.live
 * @param {boolean} now.polling  offers come and answers go all the same
 * @param {boolean | null} now.on_duty
 * @param {string | null} now.customer_name  of the session, if there is one
 * @param {boolean} now.is_to_start  it has not begun, and its customer waits
 * @param {boolean} now.on_break
 * @param {number} now.offers  how many are open
 * @param {boolean} now.is_answering  an answer to one is on its way, or about to be
 */
export function situationText({ live, polling, on_duty, customer_name, is_to_start, on_break, offers, is_answering }) {
  // Only a socket says whether they are on duty; offers come by polling, too.
  if (on_duty === null) return live ? "Offers come every few seconds" : "Connecting…";
  if (!live) {
    // What is on its way is repeated until somebody can be reached.
    if (is_answering) return "No connection. Your answer goes out again once we get through.";
    return offers ? NO_ANSWER : "No connection: offers cannot reach you here. We keep trying.";
  }
  const rest = offers === 0 ? "" : offers === 1 ? " · 1 offer" : ` · ${offers} offers`;
  if (customer_name !== null)
    return is_to_start ? `${customer_name} waits for you to start${rest}` : `In a session with ${customer_name}${rest}`;
  const duty = on_duty ? "On duty" : on_break ? "On a break" : "Off duty";
  if (!on_duty || rest) return `${duty}${rest}`;
  return polling ? `${duty} · offers come every few seconds` : `${duty} · waiting for offers`;
}
