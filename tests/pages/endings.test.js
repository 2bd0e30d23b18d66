/** How sessions end for the mechanic who had them, and what is said of the session that they have. */

import assert from "node:assert/strict";

import { howEndedIn } from "../../http_api/pages/browser/endings.js";
import { workFrom } from "../../http_api/pages/browser/kept-work.js";
import { endingWords, isReminded, limitRoom, limitSaid, limitText, reminderText } from "../../http_api/pages/browser/session-words.js";
import { outcomeText } from "../../http_api/pages/browser/day-words.js";
import { test } from "./harness.js";
import { AT, aMechanicWelcome, aRequest, after, received } from "./samples.js";

/**
 * @import {PastOffer, RequestView} from "../../http_api/pages/browser/wire.js"
 * @import {HowEnded} from "../../http_api/pages/browser/endings.js"
 * @import {Message} from "../../http_api/pages/browser/state.js"
 */

const ME = /** @type {const} */ ({ id: "m1", role: "mechanic", name: "Mike", email: "mike@example.com" });
const MIKE = { id: "m1", name: "Mike's Garage" };
const ANA = { id: "m2", name: "Ana Lima" };
const SERVED = { request_id: "r1", customer_name: "John Doe", plan: "expert_video" };

/**
 * @param {string} event
 * @param {Partial<RequestView["timeline"][number]>} [says]
 */
const line = (event, says = {}) => ({ at: AT, event, ...says });
/** @param {Partial<RequestView>} is @returns {Message} */
const heard = (is) => received({ type: "request_update", request: aRequest({ version: 9, ...is }) });
/** @param {Partial<RequestView>} [is] */
const serving = (is = {}) =>
  after([
    { type: "signed_in", me: ME },
    received(aMechanicWelcome({ request: aRequest({ version: 3, status: "accepted", assigned_mechanic: MIKE, ...is }) })),
  ]);

/** @type {[claim: string, is: Partial<RequestView>, how: HowEnded | undefined][]} */
const ENDS = [
  ["they did not start", { status: "broadcasting", timeline: [line("no_show", { mechanic_id: "m1" }), line("broadcast")] }, "no_show"],
  [
    "the customer wanted another, who has it already",
    {
      status: "accepted",
      assigned_mechanic: ANA,
      timeline: [line("find_another", { mechanic_id: "m1" }), line("accepted", { mechanic_id: "m2" })],
    },
    "find_another",
  ],
  [
    "the other one was late as well, and nobody was free",
    { status: "unfilled", timeline: [line("find_another", { mechanic_id: "m1" }), line("no_show", { mechanic_id: "m2" })] },
    "find_another",
  ],
  ["nobody says why", { status: "broadcasting" }, "gone"],
  ["cancelled", { status: "cancelled", timeline: [line("cancelled")] }, "cancelled"],
  ["the payment was taken back", { status: "cancelled", timeline: [line("cancelled", { cause: "disputed" })] }, "taken_back"],
  ["called off", { status: "cancelled", timeline: [line("cancelled", { cause: "operator" })] }, "taken_back"],
  ["settled as not served", { status: "unfilled", timeline: [line("unfilled", { cause: "operator" })] }, "taken_back"],
  ["ended by the customer", { status: "completed", timeline: [line("completed", { by: "customer" })] }, "by_customer"],
  ["ended by time", { status: "completed", timeline: [line("completed", { by: "time" }), line("refunded")] }, "by_time"],
  ["ended by the operator", { status: "completed", timeline: [line("completed", { by: "operator" })] }, "by_operator"],
  ["ended by themselves", { status: "completed", timeline: [line("completed", { by: "mechanic" })] }, undefined],
  ["given back by themselves", { status: "broadcasting", timeline: [line("released", { mechanic_id: "m1" })] }, undefined],
  ["begun", { status: "in_progress", assigned_mechanic: MIKE }, undefined],
];
for (const [claim, is, how] of ENDS)
  test(`a session that ends is told until it is read, if others ended it: ${claim}`, () => {
    const ended = after([heard(is)], serving());
    assert.deepEqual(ended.endings["r1"], how && { ...SERVED, how });
    assert.deepEqual(after([{ type: "ending_read", request_id: "r1" }], ended).endings, {});
  });

test("what others do with a lost request tells nothing more", () => {
  const lost = after([heard({ status: "broadcasting", timeline: [line("no_show", { mechanic_id: "m1" })] })], serving());
  const read = after([{ type: "ending_read", request_id: "r1" }], lost);
  const later = after([heard({ version: 12, status: "cancelled" }), { type: "request_lost", request_id: "r1" }], read);
  assert.deepEqual(later.endings, {});
});

test("a customer's requests have no such ends", () => {
  const me = /** @type {const} */ ({ ...ME, role: "customer" });
  const open = after([{ type: "signed_in", me }, heard({ status: "accepted", assigned_mechanic: MIKE })]);
  assert.deepEqual(after([heard({ version: 10, status: "cancelled" })], open).endings, {});
});

test("what is somebody else's after a reconnect is unsure, until what it came to as an offer says how", () => {
  const lost = after([{ type: "request_lost", request_id: "r1" }], serving());
  assert.equal(lost.endings["r1"]?.how, "unsure");
  const found = after([{ type: "ending_found", request_id: "r1", how: "no_show" }], lost);
  assert.equal(found.endings["r1"]?.how, "no_show");
  assert.deepEqual(after([{ type: "ending_found", request_id: "r1", how: null }], lost).endings, {});
  assert.deepEqual(after([{ type: "ending_found", request_id: "r7", how: "gone" }], lost), lost);
});

/** @param {PastOffer["outcome"]} outcome @param {string} [request_id] */
const past = (outcome, request_id = "r1") => /** @type {PastOffer} */ ({ request_id, outcome });

test("past offers say how a request was lost", () => {
  assert.equal(howEndedIn("r1", [past("missed", "r2"), past("find_another"), past("missed")]), "find_another");
  assert.equal(howEndedIn("r1", [past("no_show")]), "no_show");
  assert.equal(howEndedIn("r1", [past("given_back")]), null);
  assert.equal(howEndedIn("r1", [past("no_show", "r2")]), "gone");
});

test("of a session that the page was closed with the end is looked for, unless it goes on", () => {
  const opened = after([
    { type: "signed_in", me: ME },
    { type: "session_remembered", served: SERVED, endings: [] },
  ]);
  const gone = after([received(aMechanicWelcome())], opened);
  assert.deepEqual([gone.endings["r1"]?.how, gone.remembered], ["unsure", null]);
  const polled = after([received({ type: "polled", requests: [], offers: [], statuses: [] })], opened);
  assert.equal(polled.endings["r1"]?.how, "unsure");
  const request = aRequest({ status: "in_progress", assigned_mechanic: MIKE });
  const goes_on = after([received(aMechanicWelcome({ request }))], opened);
  assert.deepEqual([goes_on.endings, goes_on.remembered], [{}, null]);
});

test("what is kept on the device is of one account, and what makes no sense is not kept", () => {
  const endings = [{ ...SERVED, how: "no_show" }];
  const kept = { account_id: "m1", served: SERVED, endings: [...endings, { ...SERVED, how: "flown" }, null, 7] };
  assert.deepEqual(workFrom(JSON.stringify(kept), "m1"), { served: SERVED, endings });
  const nothing = { served: null, endings: [] };
  assert.deepEqual(workFrom(JSON.stringify(kept), "m2"), nothing);
  for (const text of [null, "", "{", "[]", "7", '{"account_id":"m1","served":{},"endings":{}}'])
    assert.deepEqual(workFrom(text, "m1"), nothing, String(text));
});

test("whoever signs out leaves nothing to read to the next", () => {
  const ended = after([heard({ status: "cancelled" })], serving());
  assert.deepEqual(after([{ type: "signed_out" }], ended).endings, {});
});

test("every end has its words, also one that only a newer server knows", () => {
  const hows = /** @type {HowEnded[]} */ (["no_show", "find_another", "cancelled", "taken_back", "by_customer", "by_time", "by_operator", "gone"]);
  const titles = hows.map((how) => endingWords({ how, customer_name: "Dana" }).title);
  assert.equal(new Set(titles).size, hows.length);
  assert.equal(titles[0], "You did not start in time");
  assert.equal(outcomeText({ outcome: "no_show" }), "You did not start in time");
  assert.equal(outcomeText({ outcome: "find_another" }), "The customer asked for another mechanic");
});

const ACCEPTED = { status: "accepted" };
const BEGUN = { status: "in_progress" };

test("the limit is counted down, and no text of it is longer than the room that is kept for it", () => {
  assert.equal(limitText(ACCEPTED, 272_000), "Start within 4:32, or the request goes to others.");
  assert.equal(limitText(ACCEPTED, 0), "Time is up: the request goes to others.");
  assert.equal(limitText(BEGUN, 1_450_000), "It ends by itself in 24:10, extra time included.");
  for (const request of [ACCEPTED, BEGUN])
    for (const left_ms of [0, 1, 59_000, 599_000, 2_700_000])
      assert.ok(limitText(request, left_ms).length <= limitRoom(request).length, limitText(request, left_ms));
  assert.equal(limitSaid(ACCEPTED, 272_000), "Start within about 4 min, or the request goes to others.");
  assert.equal(limitSaid(BEGUN, 30_000), "It ends by itself within a minute, extra time included.");
  assert.equal(limitSaid(ACCEPTED, 0), limitText(ACCEPTED, 0));
});

test("whoever listens to the limit hears the minutes that are on the screen", () => {
  for (const [left_ms, shown, said] of /** @type {const} */ ([
    [1_500_000, "25:00", "about 25 min"],
    [1_499_300, "25:00", "about 25 min"],
    [1_499_000, "24:59", "about 24 min"],
    [60_900, "1:01", "about 1 min"],
    [59_100, "1:00", "a minute"],
  ])) {
    assert.equal(limitText(BEGUN, left_ms), `It ends by itself in ${shown}, extra time included.`);
    assert.equal(limitSaid(BEGUN, left_ms), `It ends by itself within ${said}, extra time included.`);
  }
});

test("a reminder is of the acceptance that it follows", () => {
  const reminded = [line("accepted"), line("reminded")];
  assert.equal(isReminded({ status: "accepted", timeline: reminded }), true);
  assert.equal(isReminded({ status: "accepted", timeline: [...reminded, line("no_show"), line("accepted")] }), false);
  assert.equal(isReminded({ status: "in_progress", timeline: reminded }), false);
  assert.equal(reminderText("Dana", 150_000), "Start your session with Dana: 2:30 left");
});
