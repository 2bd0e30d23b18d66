/** What notifications say, and what stands in the way of them. */

import assert from "node:assert/strict";

import { answeredNotice, failedNotice, noticeOf, offerTag } from "../../http_api/pages/browser/notices.js";
import { base64url, endpointHash, keyBytes } from "../../http_api/pages/browser/push-key.js";
import { deviceName, stateOf } from "../../http_api/pages/browser/push.js";
import { test } from "./harness.js";
import { aRequest, anOffer } from "./samples.js";

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
  ["no network", { status: 0, code: "network", message: "", mayRetry: true }, "Not accepted yet", true],
  ["a server in trouble", { status: 503, code: "unavailable", message: "", mayRetry: true }, "Not accepted yet", true],
];
for (const [claim, failure, title, may_retry] of FAILURES)
  test(`an accept that failed says so: ${claim}`, () => {
    const notice = failedNotice("o1", "accept", failure);
    assert.deepEqual([notice.title, notice.options.actions !== undefined], [title, may_retry]);
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
