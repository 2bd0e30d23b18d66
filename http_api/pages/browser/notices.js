/** What notifications say. Pure: a message that was pushed, or what became of an answer, in; title and options out. */

import { endingWords, reminderText } from "./session-words.js";
import { planLength, planName, priceText, span, timeOfDay, withdrawnText } from "./words.js";

/** @import {Deadline, OfferView, OfferWithdrawn, RequestView, ToMechanic} from "./wire.js" */

/**
 * `brief`: it only says that something is over, and goes by itself.
 * @typedef {object} Notice
 * @property {string} title
 * @property {NotificationOptions & {actions?: {action: string, title: string}[], vibrate?: number[], renotify?: boolean,
 *   data: NoticeData}} options
 * @property {boolean} [brief]
 */
/**
 * What a notification is about, for when it is touched. `is_outcome`: of an answer that was given on it, or of a session; it stays
 * until somebody looks at the app. Of one request only the newest notification stays.
 * @typedef {{offer_id?: string, request_id?: string, is_outcome?: boolean}} NoticeData
 */

const ICON = "/static/icons/icon-192.png";
const BADGE = "/static/icons/badge-96.png";
const ANSWERS = [
  { action: "accept", title: "Accept" },
  { action: "decline", title: "Decline" },
];

/** One notification for one offer, whatever is said of it. @param {string} offer_id */
export const offerTag = (offer_id) => `offer:${offer_id}`;
/** And one for one session. @param {string} request_id */
export const requestTag = (request_id) => `request:${request_id}`;
/** What becomes of a session without its mechanic, who is therefore woken. */
const SESSION_NEWS = ["reminded", "no_show", "find_another", "cancelled"];

/**
 * What a pushed message shows. A browser demands something for each, also for what only a newer server says.
 * @param {unknown} message
 * @returns {Notice}
 */
export function noticeOf(message) {
  const said = /** @type {ToMechanic | {type: "test"} | null} */ (message);
  switch (said?.type) {
    case "offer":
      return offerNotice(said.offer);
    case "offer_withdrawn":
      return withdrawnNotice(said);
    case "request_update":
      return requestNotice(said.request);
    case "test":
      return notice("Notifications work", "This is how offers reach this device.", { tag: "test" });
    default:
      return notice("News on Pitlane", "Open the app to see it.", { tag: "news" });
  }
}

/** @param {OfferView} offer */
function offerNotice(offer) {
  const priority = offer.kind === "priority";
  const what = [planName(null, offer.plan), planLength(offer), priceText(offer)].filter(Boolean).join(" · ");
  const lines = [priority ? what : `${what}, for ${offer.customer_name}`, offer.note ? `“${offer.note}”` : "", openFor(offer)];
  return notice(priority ? `${offer.customer_name} asks for you` : "New offer", lines.filter(Boolean).join("\n"), {
    tag: offerTag(offer.offer_id),
    data: { offer_id: offer.offer_id },
    actions: ANSWERS,
    requireInteraction: true,
    renotify: true,
    vibrate: priority ? [250, 120, 250, 120, 500] : [200],
  });
}

/** @param {OfferView} offer */
function openFor({ expires_in_ms }) {
  const minutes = Math.round(expires_in_ms / 60_000);
  return minutes < 1 ? "Less than a minute to answer" : `${minutes} min to answer`;
}

/** @param {OfferWithdrawn} withdrawn */
function withdrawnNotice({ offer_id, reason, by_you }) {
  return over(offer_id, "This offer has ended", withdrawnText(reason, by_you));
}

/**
 * Nobody here knows who is signed in. But a mechanic is woken for their own sessions alone: of one that was lost, the line that says
 * so names them, and may be followed by what others do with it.
 * @param {RequestView} request
 */
function requestNotice(request) {
  const what = planName(null, request.plan);
  const options = { tag: requestTag(request.id), data: { request_id: request.id, is_outcome: true } };
  const news = request.timeline.findLast(({ event }) => SESSION_NEWS.includes(event));
  const how = lossIn(request, news);
  if (how !== null) {
    const { title, text } = endingWords({ how, customer_name: request.customer_name });
    return notice(title, `${what}. ${text}`, { ...options, renotify: true, vibrate: [400] });
  }
  switch (request.status) {
    case "accepted":
      if (news?.event === "reminded" && request.start) return reminderNotice(request, request.start);
      return notice(`You have ${request.customer_name}'s session`, `${what}. Open the app and start it.`, options);
    case "completed":
      return notice("Session completed", `${what} with ${request.customer_name}.`, options);
    default:
      return notice(`${request.customer_name}'s session`, "There is news. Open the app to see it.", options);
  }
}

/**
 * @param {RequestView} request
 * @param {RequestView["timeline"][number] | undefined} news  the last line of those that wake a mechanic
 */
function lossIn({ status, assigned_mechanic }, news) {
  if (status === "cancelled") return news?.cause ? "taken_back" : "cancelled";
  const { event } = news ?? {};
  const is_lost = (event === "no_show" || event === "find_another") && news?.mechanic_id !== assigned_mechanic?.id;
  if (is_lost) return event;
  // Too long a story for a push message: whoever has nothing more to do with it hears at least that.
  return status === "broadcasting" ? "gone" : null;
}

/**
 * @param {RequestView} request
 * @param {Deadline} start
 */
function reminderNotice({ id, customer_name, plan }, { expires_at, expires_in_ms }) {
  const until = timeOfDay(expires_at);
  return notice(
    reminderText(customer_name, expires_in_ms),
    `${planName(null, plan)}. Start it${until ? ` by ${until}` : ""}, or the request goes to others.`,
    {
      tag: requestTag(id),
      data: { request_id: id },
      requireInteraction: true,
      renotify: true,
      vibrate: [150, 100, 150, 100, 150, 300, 150, 100, 150, 100, 150],
    },
  );
}

/**
 * What became of an answer that was given on the notification itself.
 * @param {string} offer_id
 * @param {{answer: "accept", request: RequestView} | {answer: "decline"}} done
 * @returns {Notice}
 */
export function answeredNotice(offer_id, done) {
  if (done.answer === "decline") {
    const declined = over(offer_id, "Declined", "You will not be asked for this one again.");
    return { ...declined, options: { ...declined.options, data: { offer_id, is_outcome: true } } };
  }
  const { id, customer_name, plan, start } = done.request;
  // It stands there as it was shown: the nearest ten seconds are as true as any.
  const within = start ? ` within ${span(Math.round(start.expires_in_ms / 10_000) * 10)}` : "";
  return notice(`You have ${customer_name}'s session`, `${planName(null, plan)}. Open the app and start it${within}.`, {
    tag: offerTag(offer_id),
    data: { offer_id, request_id: id, is_outcome: true },
    requireInteraction: true,
    renotify: true,
  });
}

/**
 * Why an answer did not count. What may be tried again keeps its buttons.
 * @param {string} offer_id
 * @param {"accept" | "decline"} answer
 * @param {{status: number, code: string, message: string, mayRetry: boolean}} failure
 * @returns {Notice}
 */
export function failedNotice(offer_id, answer, { status, code, message, mayRetry }) {
  const options = { tag: offerTag(offer_id), data: { offer_id, is_outcome: true }, renotify: true };
  // A proxy refuses, too, and knows nothing of offers.
  const is_final = !mayRetry;
  if (is_final && (status === 401 || status === 403))
    return notice("Sign in to answer", "Your session has ended, so nothing was sent. Touch to open the app.", {
      ...options,
      requireInteraction: true,
    });
  if (code === "already_in_session") return notice("Not accepted: you are in a session", message, options);
  if (code === "offer_gone" || (is_final && status === 404))
    return notice(answer === "accept" ? "Too late: this offer has ended" : "This offer has ended", message, options);
  const title = answer === "accept" ? "Not accepted yet" : "Not declined yet";
  return notice(title, message, { ...options, requireInteraction: true, ...(mayRetry ? { actions: ANSWERS } : {}) });
}

/**
 * @param {string} offer_id
 * @param {string} title
 * @param {string} body
 * @returns {Notice}
 */
function over(offer_id, title, body) {
  const options = { tag: offerTag(offer_id), data: { offer_id }, silent: true };
  return { ...notice(title, body, options), brief: true };
}

/**
 * @param {string} title
 * @param {string} body
 * @param {Partial<Notice["options"]> & {tag: string}} options
 * @returns {Notice}
 */
function notice(title, body, options) {
  return { title, options: { body, icon: ICON, badge: BADGE, lang: "en", data: {}, ...options } };
}
