/** What the pages say. Times of day are those of the time zone that the tests are run in: UTC. */

import assert from "node:assert/strict";

import * as words from "../../http_api/pages/browser/words.js";
import { test } from "./harness.js";
import { AT, AT_MS, aPlan, aRequest, aStatus } from "./samples.js";

/**
 * @import {RequestView, StatusView, TimelineEntryView} from "../../http_api/pages/browser/wire.js"
 */

const CONFIG = { priority_window_s: 600, broadcast_window_s: 900, heartbeat_interval_s: 20, demo: false };

/**
 * A table: each claim with what is said and what should be.
 * @param {string} title
 * @param {[claim: string, said: unknown, expected: unknown][]} rows
 */
function says(title, rows) {
  for (const [claim, said, expected] of rows) test(`${title}: ${claim}`, () => assert.deepEqual(said, expected));
}

says("money", [
  ["cents and thousands are set apart", words.money(123_456), "$1,234.56"],
  ["nothing is still money", words.money(0), "$0.00"],
  ["the currency may be written small", words.money(999, "eur"), "€9.99"],
  ["a currency without decimals has none", words.money(1_500, "jpy"), "¥1,500"],
  ["a currency with three has three", words.money(1_500, "kwd"), "KWD\u00a01.500"],
]);

const CHATS = aStatus({ session_types: ["diagnostic", "text"] });

says("what a favorite takes", [
  ["what they have not switched off", words.takesPlan(CHATS, aPlan({ session_type: "text" })), true],
  ["not what they have", words.takesPlan(CHATS, aPlan({ session_type: "video" })), false],
  ["a kind that there is no switch for", words.takesPlan(CHATS, aPlan({ session_type: "phone_call" })), true],
  ["anything, while nobody knows", words.takesPlan(undefined, aPlan({ session_type: "video" })), true],
  ["why not", words.notTakenText("Mike", aPlan({ session_type: "video" })), "Mike does not take video sessions."],
]);

says("a span", [
  ["seconds", words.span(30), "30 s"],
  ["a fraction, to one place", words.span(1.25), "1.3 s"],
  ["a whole number has no places", words.span(4.04), "4 s"],
  ["just under a minute is a minute", words.span(59.95), "1 min"],
  ["minutes", words.span(600), "10 min"],
  ["minutes and seconds", words.span(90), "1 min 30 s"],
  ["there are never sixty seconds", words.span(119.7), "2 min"],
  ["an hour is still minutes", words.span(3_600), "60 min"],
  ["whole hours from two on", words.span(7_200), "2 hours"],
  ["hours that are not whole are minutes", words.span(9_000), "150 min"],
  ["hours with seconds are minutes", words.span(7_230), "120 min 30 s"],
]);

says("a countdown", [
  ["over", words.countdown(0), "0:00"],
  ["the last begun second counts", words.countdown(1), "0:01"],
  ["seconds have two digits", words.countdown(61_000), "1:01"],
  ["up to an hour", words.countdown(3_599_000), "59:59"],
  ["an hour", words.countdown(3_600_000), "1:00:00"],
  ["hours", words.countdown(3_661_000), "1:01:01"],
  ["ten hours", words.countdown(36_000_000), "10:00:00"],
]);

/** @param {number} seconds */
const agoBy = (seconds) => words.ago(AT, AT_MS + seconds * 1_000);

says("ago", [
  ["a clock that is behind", agoBy(-5), "just now"],
  ["moments", agoBy(44), "just now"],
  ["nearly a minute is one", agoBy(45), "1 minute ago"],
  ["begun minutes do not count", agoBy(119), "1 minute ago"],
  ["minutes", agoBy(120), "2 minutes ago"],
  ["an hour", agoBy(3_600), "1 hour ago"],
  ["hours", agoBy(7_200), "2 hours ago"],
  ["a day", agoBy(86_400), "1 day ago"],
  ["a week", agoBy(7 * 86_400), "1 week ago"],
  ["a month", agoBy(30 * 86_400), "1 month ago"],
  ["a year", agoBy(365 * 86_400), "1 year ago"],
  ["no time at all", words.ago("", AT_MS), "some time ago"],
]);

says("a time", [
  ["of day", plain(words.timeOfDay(AT)), "9:30 AM"],
  ["of day that cannot be read", words.timeOfDay("soon"), ""],
  ["of this year has the time", plain(words.dateAndTime(AT, AT_MS)), "Nov 22, 9:30 AM"],
  ["of another year has the year", words.dateAndTime(AT, Date.parse("2027-01-01T00:00:00Z")), "Nov 22, 2026"],
  ["that cannot be read", words.dateAndTime("soon", AT_MS), ""],
]);

/** @param {string} text  with whatever kind of space stands between a time and its half of the day */
function plain(text) {
  return text.replace(/\s/g, " ");
}

says("a name", [
  ["of a person is the first", words.shortName("John Smith"), "John"],
  ["with spaces around it", words.shortName("  John   Smith "), "John"],
  ["of one word", words.shortName("Cher"), "Cher"],
  ["of a business is whole", words.shortName("Mike's Garage"), "Mike's Garage"],
  ["with a company's end is whole", words.shortName("Bolt Inc"), "Bolt Inc"],
  ["the server knows better than the name", words.shortName("Mike's Garage", "independent"), "Mike's"],
  ["the server knows better than the name, of workshops too", words.shortName("Jo Lee", "workshop"), "Jo Lee"],
]);

says("a provider", [
  ["workshop", words.providerType("workshop"), "Workshop"],
  ["independent", words.providerType("independent"), "Independent"],
]);

const NEWER = /** @type {any} */ ("on_the_moon");
const OFFLINE = aStatus({ is_online: false, availability: "offline", reachable: "none" });

says("availability", [
  ["not known yet", words.availabilityText(null), "Checking status…"],
  ["available", words.availabilityText(aStatus()), "Available Now"],
  ["busy", words.availabilityText(aStatus({ availability: "busy" })), "In a session right now"],
  ["off duty", words.availabilityText(aStatus({ availability: "off_duty" })), "Off duty"],
  ["offline", words.availabilityText(OFFLINE), "Currently Offline"],
  ["a newer server's word", words.availabilityText(aStatus({ availability: NEWER })), "Status unknown"],
]);

says("last seen", [
  ["not known yet", words.lastSeenText(undefined, AT_MS), ""],
  ["here now", words.lastSeenText(aStatus(), AT_MS), ""],
  ["gone", words.lastSeenText(OFFLINE, AT_MS + 7_200_000), "Last seen 2 hours ago"],
  ["never", words.lastSeenText({ ...OFFLINE, last_seen: null }, AT_MS), "Not seen online yet"],
]);

const PRIORITY_NOTE = "Mike will get priority notification. If no response in 10 min, we'll find you another mechanic.";
/** @param {Partial<StatusView>} is */
const notes = (is) => words.notificationNotes("Mike", { ...OFFLINE, ...is }, "10 min");

says("what happens to a favourite who is chosen", [
  ["available", notes({ availability: "available" }), ["Mike will be notified immediately"]],
  [
    "with the app open",
    notes({ availability: "busy", reachable: "socket" }),
    [PRIORITY_NOTE, "Mike has the app open and will be notified immediately."],
  ],
  ["by push", notes({ reachable: "push" }), [PRIORITY_NOTE, "Mike will get a push notification."]],
  [
    "not reachable",
    notes({}),
    [PRIORITY_NOTE, "Their app is closed right now: they will see your request when they open it."],
  ],
  ["in a way of a newer server's", notes({ reachable: NEWER }), [PRIORITY_NOTE]],
]);

says("how many are available", [
  ["none", words.availableText(0), "No mechanic is available this minute"],
  ["one", words.availableText(1), "1 mechanic available now"],
  ["several", words.availableText(3), "3 mechanics available now"],
]);

says("a plan", [
  ["its length", words.planLength(aPlan()), "30 min video"],
  ["its length in words of several", words.planLength(aPlan({ session_type: "house_call" })), "30 min house call"],
  ["its name", words.planName([aPlan()], "expert_video"), "Expert Video"],
  ["its id while the plans are not known", words.planName(null, "quick_chat"), "Quick chat"],
  ["its id if it is not offered any more", words.planName([aPlan()], "quick_chat"), "Quick chat"],
]);

/**
 * @param {Partial<RequestView>} is
 * @param {Partial<Parameters<typeof words.customerStory>[1]>} [know]
 */
function story(is, know = {}) {
  const { headline, detail, tone } = words.customerStory(aRequest(is), {
    preferred: "Mike",
    config: CONFIG,
    status: undefined,
    available_count: null,
    ...know,
  });
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
  [
    "accepted",
    story({ status: "accepted", assigned_mechanic: ANA }),
    ["good", "Ana Lima accepted", "Your session starts as soon as they press start."],
  ],
  ["accepted by somebody without a name", story({ status: "accepted" })[1], "Your mechanic accepted"],
  [
    "in session",
    story({ status: "in_progress", assigned_mechanic: ANA }),
    ["good", "In session with Ana Lima", "Your session is under way."],
  ],
  [
    "completed",
    story({ status: "completed", assigned_mechanic: ANA }),
    ["calm", "Completed with Ana Lima", "Thank you for using Pitlane."],
  ],
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

/** @param {RequestView["refund"]} refund */
const refund = (refund) => words.refundText(aRequest({ refund }));

says("a refund", [
  ["none", refund(null), ""],
  ["on its way", refund({ status: "pending", amount_cents: 999 }), "Your refund of $9.99 is on its way."],
  ["done", refund({ status: "succeeded", amount_cents: 999 }), "$9.99 refunded in full."],
  [
    "still owed",
    refund({ status: "failed", amount_cents: 999 }),
    "The refund of $9.99 has not gone through yet; we keep it on record and owe it to you.",
  ],
]);

/** @param {RequestView["status"]} status */
const short = (status) => words.shortStatus(aRequest({ status }));

says("a status in short", [
  ["waiting", short("priority_offered"), "Waiting"],
  ["broadcasting", short("broadcasting"), "Finding a mechanic"],
  ["accepted", short("accepted"), "Accepted"],
  ["in session", short("in_progress"), "In session"],
  ["completed", short("completed"), "Completed"],
  ["unfilled", short("unfilled"), "No mechanic free"],
  ["cancelled", short("cancelled"), "Cancelled"],
  ["a newer server's", short(NEWER), "On the moon"],
]);

/**
 * @param {string} event
 * @param {Partial<TimelineEntryView>} [says]
 * @param {Partial<RequestView>} [is]
 * @param {"customer" | "mechanic"} [side]
 */
const line = (event, says = {}, is = {}, side = "customer") =>
  words.timelineText({ at: AT, event, ...says }, aRequest(is), side);

const BY_ANA = { mechanic_id: "m2", mechanic_name: "Ana Lima" };
const NOBODY = { preferred_mechanic: null };

says("the timeline", [
  ["a free request", line("requested"), "Request made"],
  ["a paid one", line("paid", { amount_cents: 2999 }), "Payment received"],
  ["offered", line("offered", BY_ANA), "Offered to Ana Lima first"],
  ["offered to somebody who has left", line("offered"), "Offered to Mike's Garage first"],
  ["delivered", line("delivered", BY_ANA), "Reached Ana Lima"],
  ["delivered to somebody who has left", line("delivered", {}, NOBODY), "Reached The favorite"],
  ["declined", line("declined", BY_ANA), "Ana Lima declined"],
  ["declined by somebody who has left", line("declined"), "Mike's Garage declined"],
  ["expired", line("expired"), "No answer from Mike's Garage in time"],
  ["skipped, to who did", line("skipped"), "You skipped the wait"],
  ["skipped, to who did not", line("skipped", {}, {}, "mechanic"), "The customer chose not to wait"],
  ["broadcast", line("broadcast"), "Offered to every available mechanic"],
  ["accepted", line("accepted", BY_ANA), "Ana Lima accepted"],
  ["accepted by who has it", line("accepted", {}, { assigned_mechanic: ANA }), "Ana Lima accepted"],
  ["accepted by somebody who has left", line("accepted"), "A mechanic accepted"],
  ["started", line("started"), "Session started"],
  ["completed", line("completed"), "Session completed"],
  ["released", line("released", BY_ANA), "Ana Lima gave the request back"],
  ["released by somebody who has left", line("released"), "The mechanic gave the request back"],
  ["cancelled", line("cancelled"), "Request cancelled"],
  ["unfilled", line("unfilled"), "No mechanic was free in time"],
  ["a refund begun", line("refund_requested", { amount_cents: 2999 }), "Refund on its way"],
  ["a refund done", line("refunded", {}, { refund: { status: "succeeded", amount_cents: 999 } }), "$9.99 refunded"],
  ["a refund done of an amount that is not told", line("refunded"), "Refunded"],
  ["a refund that failed", line("refund_failed"), "A refund attempt failed; trying again"],
  ["what only a newer server tells", line("flown_to_the_moon"), "Flown to the moon"],
]);

says("a withdrawn offer", [
  ["taken", words.withdrawnText("taken"), "Another mechanic was faster."],
  ["expired", words.withdrawnText("expired"), "The time for this offer ran out."],
  ["cancelled", words.withdrawnText("cancelled"), "The customer cancelled this request."],
  ["skipped", words.withdrawnText("skipped"), "The customer chose not to wait."],
  ["declined", words.withdrawnText("declined"), "Declined."],
  ["gone", words.withdrawnText("offer_gone"), "This offer is gone."],
  ["for a newer server's reason", words.withdrawnText(NEWER), "This offer was withdrawn."],
]);
