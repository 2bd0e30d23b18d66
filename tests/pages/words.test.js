/** What the pages say. Times of day are those of the time zone that the tests are run in: UTC. */

import * as words from "../../http_api/pages/browser/words.js";
import { says } from "./harness.js";
import { AT, AT_MS, aPlan, aRequest, aStatus } from "./samples.js";

/**
 * @import {RequestView, StatusView, TimelineEntryView} from "../../http_api/pages/browser/wire.js"
 */

says("money", [
  ["cents and thousands are set apart", words.money(123_456, "USD"), "$1,234.56"],
  ["nothing is still money", words.money(0, "usd"), "$0.00"],
  ["the currency may be written small", words.money(999, "eur"), "€9.99"],
  ["a currency without decimals has none", words.money(1_500, "jpy"), "¥1,500"],
  ["a currency with three has three", words.money(1_500, "kwd"), "KWD\u00a01.500"],
  ["one that browsers round to whole ones is told as it is charged", words.money(12_345, "rsd"), "RSD\u00a0123.45"],
  ["one that is counted in hundredths for the sake of older programs has none", words.money(50_000, "isk"), "ISK\u00a0500"],
]);

says("a price", [
  ["in its own currency", words.priceText({ price_cents: 1_500, currency: "jpy" }), "¥1,500"],
  ["of nothing", words.priceText({ price_cents: 0, currency: "eur" }), "Free"],
  ["that a server of an earlier version does not tell", words.priceText({}), ""],
]);

const CHATS = aStatus({ session_types: ["diagnostic", "text"] });

says("what a favorite takes", [
  ["what they have not switched off", words.takesPlan(CHATS, aPlan({ session_type: "text" })), true],
  ["not what they have", words.takesPlan(CHATS, aPlan({ session_type: "video" })), false],
  ["a kind that there is no switch for", words.takesPlan(CHATS, aPlan({ session_type: "phone_call" })), true],
  ["anything, while nobody knows", words.takesPlan(undefined, aPlan({ session_type: "video" })), true],
  ["why not", words.notTakenText("Mike", aPlan({ session_type: "video" })), "Mike does not take video sessions."],
]);

/** @param {Partial<NonNullable<StatusView["response"]>>} is */
const usually = (is) => words.usualAnswerText("Mike", { accept_percent: 80, answers_within_s: 90, offers: 10, ...is });

says("how a favorite usually answers", [
  ["nothing while too little is known", words.usualAnswerText("Mike", null), ""],
  ["nor by a server that does not say", words.usualAnswerText("Mike", undefined), ""],
  ["how soon, and how many", usually({}), "Mike usually answers within 2 minutes; accepted 8 of the last 10."],
  ["at once", usually({ answers_within_s: 4 }), "Mike usually answers within a minute; accepted 8 of the last 10."],
  [
    "honestly",
    usually({ accept_percent: 0, answers_within_s: null, offers: 6 }),
    "Mike has answered none of the last 6 requests.",
  ],
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
    [
      "Mike cannot be notified right now, but will see your request if they open the app within 10 min. If not, we'll find you another mechanic.",
    ],
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

const FREE = aPlan({ id: "free_diagnostic", price_cents: 0 });

says("the button that books", [
  ["leads to the payment", words.checkoutText(aPlan(), "idle"), "Continue to Checkout"],
  ["before a plan is chosen", words.checkoutText(undefined, "idle"), "Continue to Checkout"],
  ["on the way", words.checkoutText(aPlan(), "sending"), "Opening checkout…"],
  ["nearly there", words.checkoutText(aPlan(), "leaving"), "Taking you to checkout…"],
  ["where nothing is to pay", words.checkoutText(FREE, "idle"), "Book Free Session"],
  ["where nothing is to pay, on the way", words.checkoutText(FREE, "sending"), "Booking…"],
]);

/**
 * @param {RequestView["refund"]} refund
 * @param {Partial<RequestView>} [is]
 */
const refund = (refund, is) => words.refundText(aRequest({ price_cents: 999, refund, ...is }));
/**
 * As a server of an earlier version tells it.
 * @param {RequestView["refund"]} refund
 */
function unpricedRefund(refund) {
  const { price_cents: _price_cents, currency: _currency, ...rest } = aRequest({ refund });
  return words.refundText(rest);
}

const BANK_LOOKS_AND_WE_OWE =
  "Once your bank has decided, we give back what it has not.";
const BANK_HAS_PAID = "Your bank has given this payment back to you.";
/**
 * @param {string} event
 * @param {RequestView["refund"]} of
 */
const disputed = (event, of) => refund(of, { disputed: true, timeline: [{ at: AT, event }] });

says("a refund", [
  ["none", refund(null), ""],
  ["on its way", refund({ status: "pending", amount_cents: 999 }), "Your refund of $9.99 is on its way."],
  ["done", refund({ status: "succeeded", amount_cents: 999 }), "$9.99 refunded in full."],
  ["of a part", refund({ status: "succeeded", amount_cents: 500 }), "$5.00 refunded."],
  [
    "in its own currency",
    refund({ status: "succeeded", amount_cents: 999, currency: "eur" }, { currency: "eur" }),
    "€9.99 refunded in full.",
  ],
  [
    "in that of the request, if it does not say",
    refund({ status: "pending", amount_cents: 999 }, { currency: "jpy" }),
    "Your refund of ¥999 is on its way.",
  ],
  [
    "of nobody knows how much",
    unpricedRefund({ status: "succeeded", amount_cents: 999 }),
    "Your payment was refunded in full.",
  ],
  [
    "of nobody knows how much, on its way",
    unpricedRefund({ status: "pending", amount_cents: 999 }),
    "Your refund is on its way.",
  ],
  [
    "still owed",
    refund({ status: "failed", amount_cents: 999 }),
    "The refund of $9.99 has not gone through yet; we keep it on record and owe it to you.",
  ],
  ["disputed and owed", disputed("disputed", { status: "pending", amount_cents: 999 }), BANK_LOOKS_AND_WE_OWE],
  ["disputed after the session", disputed("disputed", null), "Your bank is looking into this payment."],
  ["lost to the bank", disputed("dispute_lost", { status: "succeeded", amount_cents: 999 }), BANK_HAS_PAID],
  ["won, and paid by us", disputed("dispute_won", { status: "succeeded", amount_cents: 999 }), "$9.99 refunded in full."],
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
const HERS = { assigned_mechanic: { id: "m2", name: "Ana Lima" } };

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
  ["accepted by who has it", line("accepted", {}, HERS), "Ana Lima accepted"],
  ["accepted by somebody who has left", line("accepted"), "A mechanic accepted"],
  ["started", line("started"), "Session started"],
  ["a reminder", line("reminded", BY_ANA), "Ana Lima was reminded to start"],
  ["nobody came", line("no_show", BY_ANA), "Ana Lima did not start in time"],
  ["somebody who has left did not come", line("no_show"), "The mechanic did not start in time"],
  ["another mechanic, to who wanted one", line("find_another", BY_ANA), "You asked for another mechanic"],
  ["another mechanic, to who did not", line("find_another", BY_ANA, {}, "mechanic"), "The customer asked for another mechanic"],
  ["completed, as earlier versions tell it", line("completed"), "Session completed"],
  ["completed by who reads it", line("completed", { by: "customer", lasted_s: 1_700 }), "You completed the session after 28 min"],
  ["completed by the other", line("completed", { by: "mechanic", lasted_s: 8 }, HERS), "Ana Lima completed the session after 8 s"],
  ["completed by who has left", line("completed", { by: "mechanic" }), "The mechanic completed the session"],
  ["completed, to the mechanic", line("completed", { by: "mechanic" }, HERS, "mechanic"), "You completed the session"],
  ["completed by the customer", line("completed", { by: "customer" }, HERS, "mechanic"), "The customer completed the session"],
  ["completed by nobody", line("completed", { by: "time", lasted_s: 2_700 }), "The session ended by itself after 45 min"],
  ["completed by an operator", line("completed", { by: "operator" }), "Pitlane ended the session"],
  ["reported", line("reported"), "You reported a problem"],
  ["released", line("released", BY_ANA), "Ana Lima gave the request back"],
  ["released by somebody who has left", line("released"), "The mechanic gave the request back"],
  ["cancelled", line("cancelled"), "You cancelled the request"],
  ["unfilled", line("unfilled"), "No mechanic was free in time"],
  ["a refund begun", line("refund_requested", { amount_cents: 2999 }), "Refund on its way"],
  ["a refund done", line("refunded", {}, { refund: { status: "succeeded", amount_cents: 999 } }), "$9.99 refunded"],
  ["a refund done in another currency", line("refunded", { amount_cents: 999 }, { currency: "jpy" }), "¥999 refunded"],
  ["a refund done of an amount that is not told", line("refunded"), "Refunded"],
  ["a refund that failed", line("refund_failed"), "A refund did not go through"],
  ["what only a newer server tells", line("flown_to_the_moon"), "Flown to the moon"],
]);

says("a withdrawn offer", [
  ["taken", words.withdrawnText("taken"), "Another mechanic was faster."],
  ["expired", words.withdrawnText("expired"), "The time for this offer ran out."],
  ["cancelled", words.withdrawnText("cancelled"), "This request was called off."],
  ["skipped", words.withdrawnText("skipped"), "The customer chose not to wait."],
  ["declined", words.withdrawnText("declined"), "Declined."],
  ["gone", words.withdrawnText("offer_gone"), "This offer is gone."],
  ["for a newer server's reason", words.withdrawnText(NEWER), "This offer was withdrawn."],
]);

const NOW = { live: true, polling: false, on_duty: true, customer_name: null, is_to_start: false, on_break: false, offers: 0, is_answering: false };
const LOST = { ...NOW, live: false };

says("how things stand for a mechanic", [
  ["on duty", words.situationText(NOW), "On duty · waiting for offers"],
  ["with somebody who waits", words.situationText({ ...NOW, customer_name: "Dana", is_to_start: true, offers: 1 }), "Dana waits for you to start · 1 offer"],
  ["in a session", words.situationText({ ...NOW, customer_name: "Dana" }), "In a session with Dana"],
  ["without sockets", words.situationText({ ...NOW, polling: true }), "On duty · offers come every few seconds"],
  ["without a connection", words.situationText(LOST), "No connection: offers cannot reach you here. We keep trying."],
  [
    "with offers that cannot be answered",
    words.situationText({ ...LOST, offers: 2 }),
    "No connection: no answer can be sent just now.",
  ],
  [
    "with an answer on its way, which is not called impossible",
    words.situationText({ ...LOST, offers: 2, is_answering: true }),
    "No connection. Your answer goes out again once we get through.",
  ],
]);

says("why an offer cannot be accepted", [
  ["none", words.acceptReason({ live: true, in_session: false, may_give_back: false, is_answering: true }), ""],
  [
    "another answer is on its way",
    words.acceptReason({ live: false, in_session: false, may_give_back: false, is_answering: true }),
    "No connection: your other answer goes out first, once we get through.",
  ],
]);

/** @param {string} [cause] */
const whyCancelled = (cause) =>
  words.cancelledText(aRequest({ status: "cancelled", timeline: [{ at: AT, event: "cancelled", ...(cause && { cause }) }] }));

says("why it was cancelled", [
  ["by the customer", whyCancelled(), ""],
  ["paid on an older page, too", whyCancelled("paid_twice"), "You had paid for the same session on another page already."],
  ["refunded by others", whyCancelled("refunded_at_stripe"), "We called this request off before the session began."],
  ["disputed", whyCancelled("disputed"), "Your bank disputes this payment, so we called the session off."],
  ["by the operator", whyCancelled("operator"), "We have cancelled this request for you."],
]);
