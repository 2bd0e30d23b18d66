/** What is said to a mechanic of the session that they have, or had, as pure functions of what is known. */

import { countdown } from "./words.js";

/** @import {HowEnded, SessionEnding} from "./endings.js" */
/** @import {RequestView} from "./wire.js" */

/**
 * The time limit of a session. None of these is longer than `limitRoom`.
 * @param {{status: string}} request
 * @param {number} left_ms
 */
export function limitText({ status }, left_ms) {
  if (status === "accepted")
    return left_ms > 0 ? `Start within ${countdown(left_ms)}, or the request goes to others.` : "Time is up: the request goes to others.";
  return left_ms > 0 ? `It ends by itself in ${countdown(left_ms)}, extra time included.` : "Its time is up.";
}

/** As long as any of the texts that follow each other without anybody's doing. @param {{status: string}} request */
export const limitRoom = ({ status }) => limitText({ status }, status === "accepted" ? 2_659_000 : 4_499_000);

/**
 * For those who listen: minutes only, so that they do not stumble over every second.
 * @param {{status: string}} request
 * @param {number} left_ms
 */
export function limitSaid(request, left_ms) {
  if (left_ms <= 0) return limitText(request, 0);
  // The minutes that the countdown shows, which rounds seconds up.
  const seconds = Math.ceil(left_ms / 1000);
  const left = seconds > 60 ? `about ${Math.floor(seconds / 60)} min` : "a minute";
  return request.status === "accepted"
    ? `Start within ${left}, or the request goes to others.`
    : `It ends by itself within ${left}, extra time included.`;
}

/**
 * Whether the mechanic who has it was reminded to start.
 * @param {Pick<RequestView, "status" | "timeline">} request
 */
export const isReminded = ({ status, timeline }) =>
  status === "accepted" &&
  timeline.findLast(({ event }) => event === "accepted" || event === "reminded")?.event === "reminded";

/**
 * @param {string} customer_name
 * @param {number} left_ms
 */
export const reminderText = (customer_name, left_ms) =>
  `Start your session with ${customer_name}: ${countdown(left_ms)} left`;

/**
 * How a session ended, for who had it.
 * @param {Pick<SessionEnding, "customer_name"> & {how: HowEnded}} ending
 * @returns {{title: string, text: string}}
 */
export function endingWords({ how, customer_name: name }) {
  const done = "It counts as done, for you and for the customer.";
  switch (how) {
    case "no_show":
      return {
        title: "You did not start in time",
        text: `So ${name}'s request has gone to other mechanics. You are not asked for it again.`,
      };
    case "find_another":
      return {
        title: `${name} asked for another mechanic`,
        text: "You had not started yet. You need do nothing, and are not asked for this one again.",
      };
    case "cancelled":
      return { title: `${name} cancelled`, text: "The session does not take place. You need do nothing." };
    case "taken_back":
      return { title: `Pitlane called off ${name}'s session`, text: "It does not take place. You need do nothing." };
    case "by_customer":
      return { title: `${name} ended the session`, text: done };
    case "by_time":
      return { title: `Your session with ${name} ended by itself`, text: `Its time was up. ${done}` };
    case "by_operator":
      return { title: `Pitlane ended your session with ${name}`, text: done };
    default:
      return {
        title: `You no longer have ${name}'s session`,
        text: "Somebody else may have it by now. You need do nothing.",
      };
  }
}
