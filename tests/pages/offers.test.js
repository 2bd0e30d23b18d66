/** Offers on the mechanic's page. The server's newest word on an offer counts; nothing of our own brings one back. */

import assert from "node:assert/strict";

import { forEverySeed } from "./chance.js";
import { test } from "./harness.js";
import { aMechanicWelcome, aRequest, after, anOffer, received } from "./samples.js";

/**
 * @import {Message} from "../../http_api/pages/browser/state.js"
 * @import {Chance} from "./chance.js"
 */

const BROADCAST = anOffer({ offer_id: "o2", kind: "broadcast" });
const OTHERS = anOffer({ offer_id: "o3", request_id: "r9", kind: "broadcast" });

/** @param {import("../../http_api/pages/browser/wire.js").OfferView[]} offers */
const offered = (...offers) => after(offers.map((offer) => received({ type: "offer", offer })));

test("an offer that comes again is one card, with our answer to it and the earlier deadline", () => {
  const state = after(
    [
      { type: "offer_answered", offer_id: "o1", answer: "accept" },
      received({ type: "offer", offer: anOffer({ expires_in_ms: 59_700 }) }, 1_500),
    ],
    offered(anOffer()),
  );
  assert.deepEqual(Object.keys(state.offers), ["o1"]);
  assert.equal(state.offers["o1"]?.pending, "accept");
  assert.equal(state.offers["o1"]?.deadline_ms, 61_000);
});

test("a card whose deadline has changed counts down to what was said last", () => {
  const longer = anOffer({ expires_at: "2026-11-22T09:31:00.000Z", expires_in_ms: 119_000 });
  const state = after([received({ type: "offer", offer: longer }, 2_000)], offered(anOffer()));
  assert.equal(state.offers["o1"]?.deadline_ms, 121_000);
  const overtaken = after([received({ type: "offer", offer: anOffer() }, 2_100)], state);
  assert.deepEqual(overtaken.offers["o1"], state.offers["o1"]);
});

test("a withdrawn offer says why until it has left", () => {
  const ended = after([received({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" })], offered(anOffer()));
  assert.equal(ended.offers["o1"]?.ended, "taken");
  assert.equal(ended.offers["o1"]?.pending, null);
  assert.deepEqual(after([{ type: "offer_left", offer_id: "o1" }], ended).offers, {});
});

test("what was answered on another device says so, and what was declined here does not", () => {
  const elsewhere = received({ type: "offer_withdrawn", offer_id: "o1", reason: "declined", by_you: true });
  assert.deepEqual(
    [after([elsewhere], offered(anOffer())).offers["o1"]?.ended, after([elsewhere], offered(anOffer())).offers["o1"]?.by_you],
    ["declined", true],
  );
  // Sent as the page was put away, it came by REST, and comes back as from anywhere.
  const here = after([{ type: "offer_answered", offer_id: "o1", answer: "decline" }], offered(anOffer()));
  assert.deepEqual(after([elsewhere], here).offers, {});
});

test("what we declined goes without a word", () => {
  const state = after([received({ type: "offer_withdrawn", offer_id: "o1", reason: "declined" })], offered(anOffer()));
  assert.deepEqual(state.offers, {});
});

/**
 * What the page itself or an answer of the server may still say of an offer.
 * @param {Chance} chance
 * @param {string} offer_id
 * @returns {Message}
 */
const afterword = (chance, offer_id) =>
  chance.oneOf([
    { type: "offer_answered", offer_id, answer: chance.oneOf(["accept", "decline"]) },
    { type: "offer_unanswered", offer_id, problem: "No answer." },
    { type: "offer_left", offer_id },
    received({ type: "error", code: "offer_gone", message: "Gone.", ref: offer_id }),
    received({ type: "error", code: "unavailable", message: "Try again.", ref: offer_id }),
    received({ type: "offer_withdrawn", offer_id, reason: chance.oneOf(["taken", "expired", "cancelled"]) }),
    received({ type: "availability", on_duty: true, availability: "available" }),
    received(aMechanicWelcome()),
  ]);

test("a withdrawn offer never returns by what is said of it afterwards", () => {
  forEverySeed((chance) => {
    let state = offered(anOffer(), OTHERS);
    state = after([received({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" })], state);
    for (let count = chance.below(8); count > 0; count -= 1) {
      state = after([afterword(chance, "o1")], state);
      assert.ok(!state.offers["o1"] || state.offers["o1"].ended, "the card is gone, or still says goodbye");
    }
  });
});

test("an offer that is not known is not made up by what is said of it", () => {
  forEverySeed((chance) => assert.equal(after([afterword(chance, "o1")]).offers["o1"], undefined));
});

test("an offer that the server makes again is open again", () => {
  const ended = after([received({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" })], offered(anOffer()));
  assert.equal(after([received({ type: "offer", offer: anOffer() })], ended).offers["o1"]?.ended, null);
});

test("an offer that is open again says nothing of why it had ended", () => {
  const refused = received({ type: "error", code: "offer_gone", message: "You have switched this off.", ref: "o1" });
  const again = after([refused, received({ type: "offer", offer: anOffer() })], offered(anOffer()));
  assert.deepEqual([again.offers["o1"]?.ended, again.offers["o1"]?.problem], [null, null]);
});

test("whoever has a request loses every card of it, and no other", () => {
  // A late tap names the priority offer while the broadcast's card is shown as well.
  const state = after(
    [received({ type: "offer_accepted", offer_id: "o1", request: aRequest({ status: "accepted" }) })],
    offered(anOffer(), BROADCAST, OTHERS),
  );
  assert.deepEqual(Object.keys(state.offers), ["o3"]);
  assert.equal(state.requests["r1"]?.status, "accepted");
  assert.equal(state.followed["r1"], true);
});

test("a welcome shows the offers that are open, and lets those go that are not", () => {
  const before = after(
    [
      received({ type: "offer_withdrawn", offer_id: "o3", reason: "expired" }),
      { type: "offer_answered", offer_id: "o2", answer: "accept" },
      { type: "duty_wanted", on_duty: false },
    ],
    offered(anOffer(), BROADCAST, OTHERS),
  );
  const fresh = anOffer({ offer_id: "o4" });
  const welcome = received(aMechanicWelcome({ offers: [BROADCAST, fresh], on_duty: true }), 5_000);
  const state = after([welcome], before);
  assert.deepEqual(Object.keys(state.offers).sort(), ["o2", "o3", "o4"]);
  assert.equal(state.offers["o2"]?.pending, "accept", "what is not named may be ours by now: the outcome tells");
  assert.equal(state.offers["o2"]?.deadline_ms, 61_000, "it is the same offer, with the deadline that was heard first");
  assert.equal(state.offers["o3"]?.ended, "expired", "it may finish saying goodbye");
  assert.deepEqual([state.on_duty, state.duty_wanted, state.requests], [true, null, {}]);
});

test("a welcome in the middle of a session brings the session and keeps its card", () => {
  const state = after([received(aMechanicWelcome({ request: aRequest({ status: "in_progress" }) }))]);
  assert.equal(state.requests["r1"]?.status, "in_progress");
  assert.equal(state.followed["r1"], true);
});

test("an answer that nobody answers may be given again", () => {
  const pending = after([{ type: "offer_answered", offer_id: "o1", answer: "decline" }], offered(anOffer()));
  assert.deepEqual([pending.offers["o1"]?.pending, pending.offers["o1"]?.problem], ["decline", null]);
  const state = after([{ type: "offer_unanswered", offer_id: "o1", problem: "No answer." }], pending);
  assert.deepEqual([state.offers["o1"]?.pending, state.offers["o1"]?.problem], [null, "No answer."]);
});

test("the time for an answer that has come means nothing any more", () => {
  const state = offered(anOffer());
  assert.equal(after([{ type: "offer_unanswered", offer_id: "o1", problem: "No answer." }], state), state);
});

test("a second try takes the first one's problem away", () => {
  const state = after(
    [
      { type: "offer_answered", offer_id: "o1", answer: "accept" },
      { type: "offer_unanswered", offer_id: "o1", problem: "No answer." },
      { type: "offer_answered", offer_id: "o1", answer: "accept" },
    ],
    offered(anOffer()),
  );
  assert.deepEqual([state.offers["o1"]?.pending, state.offers["o1"]?.problem], ["accept", null]);
});

test("an accept that lost ends the card with the server's own words", () => {
  const state = after(
    [
      { type: "offer_answered", offer_id: "o1", answer: "accept" },
      received({ type: "error", code: "offer_gone", message: "Another mechanic was faster.", ref: "o1" }),
    ],
    offered(anOffer(), OTHERS),
  );
  const { pending, problem, ended } = /** @type {NonNullable<typeof state.offers[string]>} */ (state.offers["o1"]);
  assert.deepEqual(
    { pending, problem, ended },
    {
      pending: null,
      problem: "Another mechanic was faster.",
      ended: "offer_gone",
    },
  );
  assert.equal(state.offers["o3"]?.problem, null);
});

test("any other refusal leaves the card open, with what was said", () => {
  const state = after(
    [
      { type: "offer_answered", offer_id: "o1", answer: "accept" },
      received({ type: "error", code: "already_in_session", message: "You have a session.", ref: "o1" }),
    ],
    offered(anOffer()),
  );
  assert.deepEqual(
    [state.offers["o1"]?.pending, state.offers["o1"]?.problem, state.offers["o1"]?.ended],
    [null, "You have a session.", null],
  );
});

test("the switch shows what was wished for until the server has answered, also with no", () => {
  const wished = after([{ type: "duty_wanted", on_duty: false }], after([received(aMechanicWelcome())]));
  assert.deepEqual([wished.on_duty, wished.duty_wanted], [true, false]);
  const done = after([received({ type: "availability", on_duty: false, availability: "off_duty" })], wished);
  assert.deepEqual([done.on_duty, done.duty_wanted], [false, null]);
  const refused = after([received({ type: "error", code: "unavailable", message: "Try again." })], wished);
  assert.deepEqual([refused.on_duty, refused.duty_wanted], [true, null]);
  const elsewhere = after(
    [received({ type: "error", code: "offer_gone", message: "Another mechanic was faster.", ref: "o1" })],
    wished,
  );
  assert.equal(elsewhere.duty_wanted, false, "an error about an offer says nothing of duty");
});

test("a poll brings what a welcome would, but nothing of duty", () => {
  const before = after([{ type: "offer_answered", offer_id: "o2", answer: "accept" }], offered(anOffer(), BROADCAST));
  const fresh = anOffer({ offer_id: "o4" });
  const session = aRequest({ id: "r5", status: "in_progress" });
  const over = aRequest({ id: "r6", status: "completed" });
  const poll = received({ type: "polled", offers: [fresh], requests: [session, over], statuses: [] }, 5_000);
  const state = after([poll], { ...before, on_duty: true });
  assert.deepEqual(Object.keys(state.offers).sort(), ["o2", "o4"], "what is being answered may be ours by now");
  assert.equal(state.offers["o4"]?.deadline_ms, 65_000);
  assert.deepEqual([state.requests["r5"]?.status, state.requests["r6"]?.status], ["in_progress", "completed"]);
  assert.deepEqual([state.followed, state.on_duty], [{ r5: true }, true]);
});

test("an open request that a poll does not name is to be looked after, as with a welcome", () => {
  const before = after([received({ type: "request_update", request: aRequest() })]);
  const state = after([received({ type: "polled", offers: [], requests: [], statuses: [] })], before);
  assert.equal(state.requests["r1"]?.unsure, true);
});
