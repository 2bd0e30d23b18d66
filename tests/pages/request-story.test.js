/** What the customer reads about a request, from the first wait to who ended the session. */

import assert from "node:assert/strict";

import { customerStory, onceMoreWords, overtakenText, spoken } from "../../http_api/pages/browser/request-story.js";
import { says } from "./harness.js";
import { AT, aRequest, aStatus } from "./samples.js";

/** @import {CompletedBy, RequestView} from "../../http_api/pages/browser/wire.js" */

const CONFIG = { priority_window_s: 600, broadcast_window_s: 900, heartbeat_interval_s: 20, demo: false };
const NEWER = /** @type {any} */ ("on_the_moon");
const OFFLINE = aStatus({ is_online: false, availability: "offline", reachable: "none" });
const KNOWN = {
  preferred: "Mike",
  assigned: "Ana",
  config: CONFIG,
  status: undefined,
  available_count: null,
  is_there: null,
  left_ms: null,
  keeps_waiting: false,
};

/**
 * @param {Partial<RequestView>} is
 * @param {Partial<Parameters<typeof customerStory>[1]>} [know]
 */
function story(is, know = {}) {
  const { headline, detail, tone } = customerStory(aRequest(is), { ...KNOWN, ...know });
  return [tone, headline, detail];
}

const THEN = "If there is no answer in time, we'll find you another mechanic.";
const ANA = { id: "m2", name: "Ana Lima" };
const FIRST = "Every available mechanic is asked; the first to accept gets it.";

/** @param {RequestView["fallback_reason"]} fallback_reason */
const widened = (fallback_reason, preferred = "Mike") =>
  story({ status: "broadcasting", fallback_reason }, { preferred })[2];
/** @param {number} available_count */
const asked = (available_count) => story({ status: "broadcasting" }, { available_count })[2];

says("the customer's story", [
  ["waiting", story({}), ["waiting", "Waiting for Mike", THEN]],
  [
    "the offer has arrived",
    story({ timeline: [{ at: AT, event: "delivered" }] }, { status: OFFLINE })[2],
    `Your request has reached Mike. ${THEN}`,
  ],
  ["the offer is on its way", story({ timeline: [{ at: AT, event: "offered" }] })[2], THEN],
  [
    "nobody can reach the favourite",
    story({}, { status: OFFLINE })[2],
    "Mike cannot be reached right now, but will see your request if they open the app within 10 min.",
  ],
  [
    "nobody can reach the favourite, and the window is not known",
    story({}, { status: OFFLINE, config: null })[2],
    "Mike cannot be reached right now, but will see your request if they open the app.",
  ],
  ["broadcasting", story({ status: "broadcasting" }), ["waiting", "Finding you a mechanic…", FIRST]],
  ["after a decline", widened("declined"), `Mike could not take it. ${FIRST}`],
  ["after the window", widened("expired"), `Mike did not answer in time. ${FIRST}`],
  ["after skipping", widened("skipped"), `You skipped the wait. ${FIRST}`],
  ["after what only a newer server does", widened(NEWER), FIRST],
  ["after a decline of nobody in particular", widened("declined", ""), `Your favorite could not take it. ${FIRST}`],
  [
    "after the window of nobody in particular",
    widened("expired", ""),
    `Your favorite did not answer in time. ${FIRST}`,
  ],
  ["nobody is free", asked(0), "Nobody is free this minute; whoever comes on duty gets your request at once."],
  ["one is asked", asked(1), "Offered to 1 available mechanic; the first to accept gets it."],
  ["several are asked", asked(3), "Offered to 3 available mechanics; the first to accept gets it."],
  ["unfilled", story({ status: "unfilled" }), ["sad", "No mechanic was free in time", "You have not been charged."]],
  [
    "unfilled and paid",
    story({ status: "unfilled", refund: { status: "pending", amount_cents: 2999 } })[2],
    "Your refund of $29.99 is on its way.",
  ],
  ["cancelled", story({ status: "cancelled" }), ["calm", "Cancelled", "You have not been charged."]],
  [
    "cancelled and paid",
    story({ status: "cancelled", refund: { status: "succeeded", amount_cents: 2999 } })[2],
    "$29.99 refunded in full.",
  ],
  ["a status of a newer server's", story({ status: NEWER }), ["calm", "On the moon", ""]],
]);

const BUSY = { offer: { id: "o1", kind: /** @type {const} */ ("priority"), expires_at: AT, expires_in_ms: 1, preferred_is_busy: true } };
const IS_BUSY = "Mike is in a session with somebody else and can answer when it is done.";

says("a favourite who has become busy", [
  ["is what there is to decide about", story(BUSY)[2], `${IS_BUSY} Do you want to wait? ${THEN}`],
  ["is still what it waits for", story(BUSY, { keeps_waiting: true })[2], `${IS_BUSY} ${THEN}`],
  ["comes before what was true until then", story({ ...BUSY, timeline: [{ at: AT, event: "seen" }] })[2], `${IS_BUSY} Do you want to wait? ${THEN}`],
]);

/**
 * @param {string} event
 * @param {Partial<RequestView>} [is]
 */
const lost = (event, is = {}) =>
  story({ status: "broadcasting", timeline: [{ at: AT, event, mechanic_name: "Ana Lima" }, { at: AT, event: "broadcast" }], ...is })[2];

says("asking everyone again", [
  ["after a no-show", lost("no_show"), `Ana did not start in time. ${FIRST}`],
  ["after a wish", lost("find_another"), `You asked for another mechanic. ${FIRST}`],
  ["after a release", lost("released"), `Ana gave your request back. ${FIRST}`],
  ["after a no-show, whatever was before", lost("no_show", { fallback_reason: "declined" }), `Ana did not start in time. ${FIRST}`],
  [
    "after somebody without a name",
    lost("no_show", { timeline: [{ at: AT, event: "no_show" }] }),
    `The mechanic did not start in time. ${FIRST}`,
  ],
]);

/**
 * @param {Partial<Parameters<typeof customerStory>[1]>} know
 * @param {Partial<RequestView>} [is]
 */
function had(know, is = {}) {
  const { headline, presence, detail, tone } = customerStory(
    aRequest({ status: "accepted", assigned_mechanic: ANA, ...is }),
    { ...KNOWN, ...know },
  );
  return [tone, headline, presence, detail];
}

says("accepted", [
  [
    "by somebody who is there",
    had({ is_there: true, left_ms: 272_000 }),
    ["good", "Ana Lima accepted", "Ana is online", "Ana starts within 4:32. If not, we ask everyone."],
  ],
  [
    "by somebody who is gone",
    had({ is_there: false, left_ms: 200_000 }),
    ["waiting", "Ana Lima accepted", "Ana has lost the connection; if Ana does not start within 3:20, we ask everyone.", ""],
  ],
  [
    "by somebody of whom nobody knows",
    had({ left_ms: 272_000 }),
    ["good", "Ana Lima accepted", "", "Ana starts within 4:32. If not, we ask everyone."],
  ],
  [
    "by somebody who did not start",
    had({ is_there: false, left_ms: 0 }),
    ["waiting", "Ana Lima accepted", "", "Ana has not started in time. We are about to ask everyone."],
  ],
  [
    "as earlier versions have it, without a limit",
    had({ is_there: true }),
    ["good", "Ana Lima accepted", "Ana is online", "Your session starts as soon as Ana presses start."],
  ],
  [
    "by somebody without a name",
    had({ assigned: "", is_there: false, left_ms: 1_000 }, { assigned_mechanic: null }),
    ["waiting", "Your mechanic accepted", "Your mechanic has lost the connection; if your mechanic does not start within 0:01, we ask everyone.", ""],
  ],
]);

const GOING = /** @type {const} */ ({ status: "in_progress" });

says("in session", [
  [
    "with its end",
    had({ is_there: true, left_ms: 2_652_000 }, GOING),
    [
      "good",
      "In session with Ana Lima",
      "Ana is online",
      "Either of you completes it when you are done; otherwise it ends by itself in 44:12, extra time included.",
    ],
  ],
  ["with somebody who is gone", had({ is_there: false, left_ms: 1 }, GOING)[2], "Ana has lost the connection"],
  ["at its end", had({ left_ms: 0 }, GOING)[3], "The time is up: your session is about to end."],
  ["without an end, as earlier versions have it", had({}, GOING)[3], "Your session is under way."],
]);

/** @param {CompletedBy} [by] */
const ended = (by) => had({}, { status: "completed", timeline: [{ at: AT, event: "completed", ...(by ? { by } : {}) }] });
const THANKS = "Thank you for using Pitlane.";

says("completed", [
  ["by the mechanic", ended("mechanic"), ["calm", "Completed with Ana Lima", "", `Ana completed it. ${THANKS}`]],
  ["by the customer", ended("customer")[3], `You completed it. ${THANKS}`],
  ["by time", ended("time")[3], `The time was up, so it ended by itself. ${THANKS}`],
  ["by an operator", ended("operator")[3], `Pitlane ended it. ${THANKS}`],
  ["by what only a newer server has", ended(NEWER)[3], THANKS],
  ["as earlier versions tell it", ended()[3], THANKS],
]);

/**
 * @param {Partial<RequestView>} is
 * @param {Partial<Parameters<typeof customerStory>[1]>} [know]
 */
const heard = (is, know = {}) => spoken(customerStory(aRequest(is), { ...KNOWN, ...know }));

says("who only listens hears whole sentences", [
  ["what goes on has no dots left over", heard({ status: "broadcasting" }), `Finding you a mechanic. ${FIRST}`],
  ["a headline ends as a sentence does", heard({}), `Waiting for Mike. ${THEN}`],
  [
    "all three",
    heard({ status: "in_progress", assigned_mechanic: ANA }, { is_there: true }),
    "In session with Ana Lima. Ana is online. Your session is under way.",
  ],
]);

/**
 * @param {Parameters<typeof overtakenText>[0]} action
 * @param {RequestView["status"]} status
 */
const overtaken = (action, status) => overtakenText(action, aRequest({ status, assigned_mechanic: ANA }));

says("a question that was taken back says what has overtaken it", [
  [
    "cancelling, by the start",
    overtaken("cancel", "in_progress"),
    "Ana Lima has started the session; it can no longer be cancelled.",
  ],
  [
    "finding another, by the start",
    overtaken("find-another", "in_progress"),
    "Ana Lima has started the session; it can no longer go to another mechanic.",
  ],
  [
    "by a mechanic whose name is not known",
    overtakenText("cancel", aRequest({ status: "in_progress" })),
    "Your mechanic has started the session; it can no longer be cancelled.",
  ],
  ["cancelling, by an accept", overtaken("cancel", "accepted"), "Ana Lima has accepted meanwhile; nothing was cancelled."],
  [
    "cancelling, by a broadcast",
    overtaken("cancel", "broadcasting"),
    "Your request goes to every available mechanic now; nothing was cancelled.",
  ],
  ["finding another, by a broadcast", overtaken("find-another", "broadcasting"), "Your request goes to every available mechanic now."],
  ["completing, by the end", overtaken("complete", "completed"), "The session has ended meanwhile."],
  ["cancelling, by another window", overtaken("cancel", "cancelled"), "Your request has been cancelled meanwhile."],
  ["cancelling, by the time", overtaken("cancel", "unfilled"), "Your request has ended meanwhile."],
]);

/**
 * @param {Partial<RequestView>} is
 * @param {Partial<Parameters<typeof onceMoreWords>[1]>} [know]
 */
function onceMore(is, know = {}) {
  const who = { favorite: "Mike", preferred: "Mike", assigned: "Ana", is_theirs: false, plans: null };
  const { title, text } = onceMoreWords(aRequest(is), { ...who, ...know });
  assert.ok(text.endsWith(OWN), text);
  return [title, text.slice(0, -OWN.length)];
}

const OWN = " Booking once more makes another request, which is paid for on its own.";

says("to whoever books a favorite whom they have booked", [
  [
    "they wait for the favorite",
    onceMore({}),
    ["You are already waiting for Mike", `Your Expert video request is with Mike. ${THEN}`],
  ],
  [
    "everybody is asked",
    onceMore({ status: "broadcasting", fallback_reason: "declined" }),
    [
      "You are already waiting for a mechanic",
      "Mike could not take it. Your Expert video request goes to every available mechanic now.",
    ],
  ],
  [
    "everybody is asked again",
    onceMore({ status: "broadcasting", timeline: [{ at: AT, event: "released", mechanic_name: "Ana Lima" }] })[1],
    "Ana gave your request back. Your Expert video request goes to every available mechanic now.",
  ],
  [
    "everybody is asked, and nobody knows why",
    onceMore({ status: "broadcasting" })[1],
    "Your Expert video request goes to every available mechanic now.",
  ],
  [
    "the favorite has accepted",
    onceMore({ status: "accepted" }, { is_theirs: true }),
    ["Mike has already accepted your request", "Your Expert video session is about to start."],
  ],
  [
    "somebody else has accepted",
    onceMore({ status: "accepted" }),
    ["Ana has already accepted your request", "You asked for Mike first. Your Expert video session is about to start."],
  ],
  [
    "they are in a session with the favorite",
    onceMore({ status: "in_progress" }, { is_theirs: true }),
    ["You are already in a session with Mike", "Your Expert video session is under way."],
  ],
  [
    "they are in a session with somebody else",
    onceMore({ status: "in_progress" }),
    ["You are already in a session with Ana", "You asked for Mike first. Your Expert video session is under way."],
  ],
  [
    "something is open that only a newer server knows",
    onceMore({ status: NEWER }),
    ["You have an open request already", "It is for Expert video."],
  ],
]);
