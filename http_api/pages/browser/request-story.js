/** What the customer reads about a request while it goes on, as a pure function of what the page knows. */

import { cancelledText, countdown, isEndedByUs, planName, refundText, sentence, shortName, span } from "./words.js";

/**
 * @import {Question} from "./once-more-dialog.js"
 * @import {CompletedBy, FallbackReason, PlanView, PublicConfig, RequestView, StatusView} from "./wire.js"
 */

/**
 * @typedef {object} Story
 * @property {string} headline
 * @property {string} presence  whether the mechanic who has the request is there; "" where it does not matter, or nobody knows
 * @property {string} detail
 * @property {"waiting" | "good" | "calm" | "sad"} tone
 */

/**
 * @typedef {object} Known  besides the request itself
 * @property {string} preferred  short name of the favourite, or ""
 * @property {string} assigned  short name of whoever has the request, or ""
 * @property {PublicConfig | null} config
 * @property {StatusView | undefined} status  of the favourite
 * @property {number | null} available_count
 * @property {boolean | null} is_there  whether whoever has the request is connected; null: nobody knows
 * @property {number | null} left_ms  until when they must start, or the session ends by itself; null: no limit is known
 * @property {boolean} keeps_waiting  the customer has been told that the favourite is busy, and waits all the same
 */

/**
 * @param {RequestView} request
 * @param {Known} know
 * @returns {Story}
 */
export function customerStory(request, know) {
  const assigned = request.assigned_mechanic?.name ?? "Your mechanic";
  const calm = /** @type {const} */ ({ tone: "calm", presence: "" });
  switch (request.status) {
    case "priority_offered":
      return {
        tone: "waiting",
        headline: `Waiting for ${know.preferred}`,
        presence: "",
        detail: waitingDetail(request, know),
      };
    case "broadcasting":
      return {
        tone: "waiting",
        headline: "Finding you a mechanic…",
        presence: "",
        detail: broadcastDetail(request, know),
      };
    case "accepted":
      return {
        tone: know.is_there === false ? "waiting" : "good",
        headline: `${assigned} accepted`,
        ...startWords(know),
      };
    case "in_progress":
      return {
        tone: "good",
        headline: `In session with ${assigned}`,
        presence: presenceText(know),
        detail: sessionDetail(know.left_ms),
      };
    case "completed":
      return { ...calm, headline: `Completed with ${assigned}`, detail: completedDetail(request, know.assigned) };
    case "unfilled":
      return {
        ...calm,
        tone: "sad",
        headline: isEndedByUs(request) ? "We have ended this request" : "No mechanic was free in time",
        detail: moneyDetail(request),
      };
    case "cancelled":
      return {
        ...calm,
        headline: "Cancelled",
        detail: [cancelledText(request), moneyDetail(request)].filter(Boolean).join(" "),
      };
    default: {
      /** @type {never} */
      const unknown = request.status;
      return { ...calm, headline: sentence(unknown), detail: "" };
    }
  }
}

/**
 * The story for whoever only listens, in whole sentences.
 * @param {Story} story
 */
export function spoken({ headline, presence, detail }) {
  return [headline, presence, detail].filter(Boolean).map(asSentence).join(" ");
}

/** @param {string} text */
const asSentence = (text) => (text.endsWith(".") ? text : `${text.replace(/…$/, "")}.`);

/**
 * What to ask whoever books a favourite with whom they have an open request already.
 * @param {RequestView} request  the open one
 * @param {object} know
 * @param {string} know.favorite  short name of whom they book
 * @param {string} know.preferred  short name of whom the request was made for, or ""
 * @param {string} know.assigned  short name of whoever has it, or "" if nobody has
 * @param {boolean} know.is_theirs  the favourite has it
 * @param {readonly PlanView[] | null} know.plans
 * @returns {Question}
 */
export function onceMoreWords(request, { favorite, preferred, assigned, is_theirs, plans }) {
  const plan = planName(plans, request.plan);
  const who = is_theirs ? favorite : assigned;
  const first = is_theirs ? "" : `You asked for ${preferred} first. `;
  const [title, text] = {
    priority_offered: [
      `You are already waiting for ${favorite}`,
      `Your ${plan} request is with ${favorite}. ${THEN}`,
    ],
    broadcasting: [
      "You are already waiting for a mechanic",
      `${whyLost(request) || whyWidened(request, preferred)} Your ${plan} request goes to every available mechanic now.`,
    ],
    accepted: [`${who} has already accepted your request`, `${first}Your ${plan} session is about to start.`],
    in_progress: [`You are already in a session with ${who}`, `${first}Your ${plan} session is under way.`],
  }[/** @type {string} */ (request.status)] ?? ["You have an open request already", `It is for ${plan}.`];
  return {
    title: title ?? "",
    text: `${text} Booking once more makes another request, which is paid for on its own.`.trim(),
    again: `Book ${favorite} once more`,
  };
}

/**
 * What has overtaken a question that was still open, and what is true of its wish now.
 * @param {"cancel" | "find-another" | "complete" | "book-again"} action  what was asked about
 * @param {RequestView} request  as it is now
 */
export function overtakenText(action, { status, assigned_mechanic }) {
  const who = assigned_mechanic?.name ?? "Your mechanic";
  const undone = action === "cancel" ? "; nothing was cancelled" : "";
  switch (status) {
    case "in_progress":
      return action === "cancel"
        ? `${who} has started the session; it can no longer be cancelled.`
        : `${who} has started the session; it can no longer go to another mechanic.`;
    case "accepted":
      return `${who} has accepted meanwhile${undone}.`;
    case "broadcasting":
      return `Your request goes to every available mechanic now${undone}.`;
    case "cancelled":
      return "Your request has been cancelled meanwhile.";
    case "completed":
      return "The session has ended meanwhile.";
    default:
      return "Your request has ended meanwhile.";
  }
}

/** @param {RequestView} request */
const moneyDetail = (request) => refundText(request) || "You have not been charged.";

const THEN = "If there is no answer in time, we'll find you another mechanic.";

/**
 * @param {RequestView} request
 * @param {Known} know
 */
function waitingDetail(request, { preferred, status, config, keeps_waiting }) {
  const has = (/** @type {string} */ event) => request.timeline.some((entry) => entry.event === event);
  if (request.offer?.preferred_is_busy) {
    const busy = `${preferred} is in a session with somebody else and can answer when it is done.`;
    return keeps_waiting ? `${busy} ${THEN}` : `${busy} Do you want to wait? ${THEN}`;
  }
  if (has("seen")) return `${preferred} has seen your request. ${THEN}`;
  if (has("delivered")) return `Your request has reached ${preferred}. ${THEN}`;
  if (status?.reachable === "none") {
    const window = config ? ` within ${span(config.priority_window_s)}` : "";
    return `${preferred} cannot be reached right now, but will see your request if they open the app${window}.`;
  }
  return THEN;
}

/**
 * @param {RequestView} request
 * @param {Known} know
 */
function broadcastDetail(request, { preferred, available_count }) {
  const who =
    available_count === null
      ? "Every available mechanic is asked; the first to accept gets it."
      : available_count === 0
        ? "Nobody is free this minute; whoever comes on duty gets your request at once."
        : `Offered to ${available_count} available ${available_count === 1 ? "mechanic" : "mechanics"}; the first to accept gets it.`;
  const why = whyLost(request) || whyWidened(request, preferred);
  return why ? `${why} ${who}` : who;
}

/**
 * How the last mechanic who had it came to lose it; empty if nobody had it.
 * @param {RequestView} request
 */
function whyLost({ timeline }) {
  const lost = timeline.findLast(({ event }) => event === "no_show" || event === "find_another" || event === "released");
  const who = lost?.mechanic_name ? shortName(lost.mechanic_name) : "The mechanic";
  switch (lost?.event) {
    case "no_show":
      return `${who} did not start in time.`;
    case "find_another":
      return "You asked for another mechanic.";
    case "released":
      return `${who} gave your request back.`;
    default:
      return "";
  }
}

/**
 * @param {RequestView} request
 * @param {string} preferred
 */
function whyWidened({ fallback_reason }, preferred) {
  const favorite = preferred || "Your favorite";
  /** @type {Record<FallbackReason, string>} */
  const because = {
    declined: `${favorite} could not take it.`,
    expired: `${favorite} did not answer in time.`,
    skipped: "You skipped the wait.",
  };
  return fallback_reason ? (because[fallback_reason] ?? "") : "";
}

/**
 * What is true of whoever has accepted and has not started yet.
 * @param {Known} know
 * @returns {{presence: string, detail: string}}
 */
function startWords({ assigned, is_there, left_ms }) {
  const [who, Who] = assigned ? [assigned, assigned] : ["your mechanic", "Your mechanic"];
  const presence = presenceText({ assigned, is_there });
  // A node of an earlier version has set no limit.
  if (left_ms === null) return { presence, detail: `Your session starts as soon as ${who} presses start.` };
  if (left_ms <= 0) return { presence: "", detail: `${Who} has not started in time. We are about to ask everyone.` };
  const within = countdown(left_ms);
  if (is_there === false)
    return { presence: `${presence}; if ${who} does not start within ${within}, we ask everyone.`, detail: "" };
  return { presence, detail: `${Who} starts within ${within}. If not, we ask everyone.` };
}

/** @param {Pick<Known, "assigned" | "is_there">} know */
function presenceText({ assigned, is_there }) {
  if (is_there === null) return "";
  const who = assigned || "Your mechanic";
  return is_there ? `${who} is online` : `${who} has lost the connection`;
}

/** @param {number | null} left_ms */
function sessionDetail(left_ms) {
  if (left_ms === null) return "Your session is under way.";
  if (left_ms <= 0) return "The time is up: your session is about to end.";
  return `Either of you completes it when you are done; otherwise it ends by itself in ${countdown(left_ms)}, extra time included.`;
}

/**
 * @param {RequestView} request
 * @param {string} assigned
 */
function completedDetail({ timeline }, assigned) {
  const by = timeline.findLast(({ event }) => event === "completed")?.by;
  /** @type {Record<CompletedBy, string>} */
  const texts = {
    mechanic: `${assigned || "Your mechanic"} completed it. `,
    customer: "You completed it. ",
    time: "The time was up, so it ended by itself. ",
    operator: "Pitlane ended it. ",
  };
  return `${by ? (texts[by] ?? "") : ""}Thank you for using Pitlane.`;
}
