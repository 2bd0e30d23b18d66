/** What notifications say, and what stands in the way of them. */

import assert from "node:assert/strict";

import { deviceName } from "../../http_api/pages/browser/device-name.js";
import { answeredNotice, failedNotice, noticeOf, offerTag } from "../../http_api/pages/browser/notices.js";
import { base64url, endpointHash, keyBytes } from "../../http_api/pages/browser/push-key.js";
import { stateOf } from "../../http_api/pages/browser/push.js";
import { test } from "./harness.js";
import { AT, aRequest, anOffer } from "./samples.js";

/** @import {RequestView} from "../../http_api/pages/browser/wire.js" */

/** @param {unknown} message */
const said = (message) => {
  const { title, options } = noticeOf(message);
  return [title, options.body];
};

test("an offer says who, what, for how much, why and how long, and can be answered", () => {
  const offer = anOffer({ price_cents: 2_999, currency: "usd", note: "Golf, rattles", expires_in_ms: 540_000 });
  assert.deepEqual(said({ type: "offer", offer }), [
    "John Doe asks for you",
    "Expert video · 30 min video · $29.99\n“Golf, rattles”\n9 min to answer",
  ]);
  const { options } = noticeOf({ type: "offer", offer });
  assert.deepEqual(
    options.actions?.map(({ action }) => action),
    ["accept", "decline"],
  );
  assert.deepEqual([options.tag, options.data], [offerTag("o1"), { offer_id: "o1" }]);
});

test("an open request says for whom, and nothing that is not known", () => {
  const offer = anOffer({ kind: "broadcast", expires_in_ms: 20_000 });
  assert.deepEqual(said({ type: "offer", offer }), [
    "New offer",
    "Expert video · 30 min video, for John Doe\nLess than a minute to answer",
  ]);
});

test("all that is said of an offer is one notification", () => {
  const failure = { status: 409, code: "offer_gone", message: "Another mechanic was faster.", mayRetry: false };
  const notices = [
    noticeOf({ type: "offer", offer: anOffer() }),
    noticeOf({ type: "offer_withdrawn", offer_id: "o1", reason: "expired" }),
    answeredNotice("o1", { answer: "accept", request: aRequest() }),
    answeredNotice("o1", { answer: "decline" }),
    failedNotice("o1", "accept", failure),
  ];
  assert.deepEqual(new Set(notices.map(({ options }) => options.tag)), new Set([offerTag("o1")]));
});

test("what is over is quiet and brief, also when it was another device", () => {
  const ended = noticeOf({ type: "offer_withdrawn", offer_id: "o1", reason: "taken", by_you: true });
  assert.deepEqual([ended.options.body, ended.options.silent, ended.brief], ["You accepted this on another device.", true, true]);
});

/** @type {[claim: string, failure: Parameters<typeof failedNotice>[2], title: string, may_retry: boolean][]} */
const FAILURES = [
  ["signed out", { status: 401, code: "unauthenticated", message: "", mayRetry: false }, "Sign in to answer", false],
  ["too late", { status: 409, code: "offer_gone", message: "", mayRetry: false }, "Too late: this offer has ended", false],
  ["never heard of", { status: 404, code: "not_found", message: "", mayRetry: false }, "Too late: this offer has ended", false],
  ["busy", { status: 409, code: "already_in_session", message: "", mayRetry: false }, "Not accepted: you are in a session", false],
  ["a proxy's page", { status: 403, code: "http_403", message: "", mayRetry: true }, "Not accepted yet", true],
  ["a proxy's page for what it does not find", { status: 404, code: "http_404", message: "", mayRetry: true }, "Not accepted yet", true],
  ["no network", { status: 0, code: "network", message: "", mayRetry: true }, "Not accepted yet", true],
  ["a server in trouble", { status: 503, code: "unavailable", message: "", mayRetry: true }, "Not accepted yet", true],
];
for (const [claim, failure, title, may_retry] of FAILURES)
  test(`an accept that failed says so: ${claim}`, () => {
    const notice = failedNotice("o1", "accept", failure);
    assert.deepEqual([notice.title, notice.options.actions !== undefined], [title, may_retry]);
  });

/** @param {Partial<RequestView>} is */
const told = (is) => noticeOf({ type: "request_update", request: aRequest({ customer_name: "Dana Roe", ...is }) });
/** @param {string} event @param {string} [mechanic_id] @returns {RequestView["timeline"][number]} */
const line = (event, mechanic_id = "m1") => ({ at: AT, event, mechanic_id });
const MIKE = { id: "m1", name: "Mike's Garage" };
const ANA = { id: "m2", name: "Ana Lima" };

test("who must start is called until they do, and nothing can be answered there", () => {
  const start = { expires_at: "2026-11-22T09:32:30.000Z", expires_in_ms: 150_000 };
  const timeline = [line("accepted"), line("reminded")];
  const { title, options } = told({ status: "accepted", assigned_mechanic: MIKE, start, timeline });
  assert.equal(title, "Start your session with Dana Roe: 2:30 left");
  assert.equal(options.body?.replace(/\s/g, " "), "Expert video. Start it by 9:32 AM, or the request goes to others.");
  assert.deepEqual([options.tag, options.data], ["request:r1", { request_id: "r1" }]);
  assert.deepEqual([options.requireInteraction, options.renotify, options.actions], [true, true, undefined]);
});

/** @type {[claim: string, is: Partial<RequestView>, title: string][]} */
const LOST = [
  ["by not starting", { status: "broadcasting", timeline: [line("no_show"), line("broadcast")] }, "You did not start in time"],
  [
    "to another mechanic whom the customer asked for",
    { status: "broadcasting", timeline: [line("find_another"), line("broadcast")] },
    "Dana Roe asked for another mechanic",
  ],
  [
    "and somebody else has it by now",
    { status: "accepted", assigned_mechanic: ANA, timeline: [line("no_show"), line("broadcast"), line("accepted", "m2")] },
    "You did not start in time",
  ],
  [
    "and somebody else is at it by now",
    { status: "in_progress", assigned_mechanic: ANA, timeline: [line("find_another"), line("accepted", "m2"), line("started")] },
    "Dana Roe asked for another mechanic",
  ],
  ["with a story too long to be told", { status: "broadcasting", timeline: [] }, "You no longer have Dana Roe's session"],
  ["by its customer", { status: "cancelled", timeline: [line("reminded"), line("cancelled")] }, "Dana Roe cancelled"],
  [
    "by the operator",
    { status: "cancelled", timeline: [{ at: AT, event: "cancelled", cause: "operator" }] },
    "Pitlane called off Dana Roe's session",
  ],
];
for (const [claim, is, title] of LOST)
  test(`a session that is lost says so under the tag of its reminder: ${claim}`, () => {
    const { title: said, options } = told(is);
    assert.deepEqual([said, options.tag, options.data], [title, "request:r1", { request_id: "r1", is_outcome: true }]);
  });

test("a reminder that comes late is none", () => {
  const timeline = [line("accepted"), line("reminded"), { at: AT, event: "started" }];
  assert.equal(told({ status: "in_progress", assigned_mechanic: MIKE, timeline }).title, "Dana Roe's session");
});

test("what was accepted says until when to start, and that it is of this session", () => {
  const request = aRequest({ status: "accepted", start: { expires_at: AT, expires_in_ms: 299_800 } });
  const { options } = answeredNotice("o1", { answer: "accept", request });
  assert.equal(options.body, "Expert video. Open the app and start it within 5 min.");
  assert.equal(options.data.request_id, "r1");
});

test("whatever is pushed says something", () => {
  for (const message of [null, 7, "x", [], {}, { type: "of a newer server" }]) assert.ok(noticeOf(message).title);
  assert.deepEqual(said({ type: "test" })[0], "Notifications work");
  for (const status of /** @type {const} */ (["cancelled", "accepted", "completed", "broadcasting"]))
    assert.ok(noticeOf({ type: "request_update", request: aRequest({ status }) }).options.body);
});

const CHROME = { secure: true, has_push: true, is_ios: false, is_installed: false, subscribed: false };
/** @type {[claim: string, browser: Parameters<typeof stateOf>[0], state: string][]} */
const STATES = [
  ["nobody was asked yet", { ...CHROME, permission: "default" }, "off"],
  ["allowed and not subscribed", { ...CHROME, permission: "granted" }, "off"],
  ["allowed and subscribed", { ...CHROME, permission: "granted", subscribed: true }, "on"],
  ["a subscription without permission wakes nobody", { ...CHROME, permission: "default", subscribed: true }, "off"],
  ["a no is for good", { ...CHROME, permission: "denied", subscribed: true }, "blocked"],
  ["an iPhone's browser", { ...CHROME, is_ios: true, has_push: false, permission: undefined }, "home_screen"],
  ["an iPhone's app", { ...CHROME, is_ios: true, is_installed: true, permission: "default" }, "off"],
  ["an old browser", { ...CHROME, has_push: false, permission: undefined }, "unsupported"],
  ["http", { ...CHROME, secure: false, permission: "default" }, "insecure"],
];
for (const [claim, browser, state] of STATES)
  test(`notifications: ${claim}`, () => assert.equal(stateOf(browser), state));

test("a key is the bytes that base64url says, there and back", () => {
  assert.deepEqual([...keyBytes("-_8A")], [251, 255, 0]);
  assert.equal(base64url(keyBytes("BCVxsr7N_eNg-A")), "BCVxsr7N_eNg-A");
});

test("a page knows its own subscription by the hash that the server names", async () => {
  assert.equal(await endpointHash("https://push.example.com/1"), await endpointHash("https://push.example.com/1"));
  assert.equal(await endpointHash("abc"), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
});

test("a device has a name that a person knows", () => assert.equal(typeof deviceName(), "string"));
