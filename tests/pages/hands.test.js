/** What is shown under a hand, and what may still be taken back. */

import assert from "node:assert/strict";

import { settingsFrom } from "../../http_api/pages/browser/alert-settings.js";
import { byUrgency, steadyOrder } from "../../http_api/pages/browser/offer-order.js";
import { forEverySeed } from "./chance.js";
import { test } from "./harness.js";
import { after, anOffer, received } from "./samples.js";

/** @import {Chance} from "./chance.js" */

/**
 * A few ids in any order.
 * @param {Chance} chance
 */
const someIds = (chance) => {
  const ids = ["a", "b", "c", "d", "e", "f"];
  return Array.from({ length: chance.below(6) }, () => /** @type {string} */ (ids.splice(chance.below(ids.length), 1)[0]));
};

test("under a hand nothing moves, nothing goes, and what is new comes last", () => {
  forEverySeed((chance) => {
    const shown = someIds(chance);
    const right = someIds(chance);
    const order = steadyOrder(shown, right, true);
    assert.deepEqual(order.slice(0, shown.length), shown);
    assert.deepEqual(new Set(order), new Set([...shown, ...right]));
    assert.equal(new Set(order).size, order.length);
  });
});

test("without a hand the order is the right one", () => {
  forEverySeed((chance) => {
    const right = someIds(chance);
    assert.deepEqual(steadyOrder(someIds(chance), right, false), right);
  });
});

test("who asked for this mechanic comes before whoever runs out sooner", () => {
  const state = after([
    received({ type: "offer", offer: anOffer({ offer_id: "o3", kind: "broadcast", expires_in_ms: 9_000 }) }),
    received({ type: "offer", offer: anOffer({ offer_id: "o2", kind: "broadcast", expires_in_ms: 5_000 }) }),
    received({ type: "offer", offer: anOffer({ offer_id: "o1", kind: "priority", expires_in_ms: 60_000 }) }),
  ]);
  const order = Object.values(state.offers).sort(byUrgency);
  assert.deepEqual(
    order.map(({ offer_id }) => offer_id),
    ["o1", "o2", "o3"],
  );
});

const begun = after(
  [{ type: "decline_begun", offer_id: "o1", reason: null }],
  after([received({ type: "offer", offer: anOffer() })]),
);

test("a decline that may be taken back takes a reason, and goes again as if it had never been", () => {
  assert.deepEqual(begun.offers["o1"]?.declining, { reason: null });
  const because = after([{ type: "decline_begun", offer_id: "o1", reason: "Not my field" }], begun);
  assert.deepEqual(because.offers["o1"]?.declining, { reason: "Not my field" });
  assert.equal(after([{ type: "decline_undone", offer_id: "o1" }], because).offers["o1"]?.declining, null);
});

test("an offer that ends while its decline may be taken back has ended", () => {
  const ended = after([received({ type: "offer_withdrawn", offer_id: "o1", reason: "expired" })], begun);
  assert.deepEqual([ended.offers["o1"]?.declining, ended.offers["o1"]?.ended], [null, "expired"]);
});

test("a decline that has been sent cannot be taken back any more", () => {
  const sent = after([{ type: "offer_answered", offer_id: "o1", answer: "decline" }], begun);
  assert.deepEqual([sent.offers["o1"]?.declining, sent.offers["o1"]?.pending], [null, "decline"]);
});

test("of kept alert settings what makes sense counts, whatever else is there", () => {
  assert.deepEqual(settingsFrom(null), { sound: true, vibration: true, awake: false });
  assert.deepEqual(settingsFrom('{"sound": false, "awake": true}'), { sound: false, vibration: true, awake: true });
  for (const text of ["", "no", "null", "7", "[]", '{"sound": "off"}', '{"horn": true}'])
    assert.deepEqual(settingsFrom(text), settingsFrom(null), text);
});

test("signing out forgets the offers and keeps what this device does to be noticed", () => {
  const silent = { sound: false, vibration: false, awake: true };
  const state = after([{ type: "alerts_set", alerts: silent }, { type: "signed_out" }], begun);
  assert.deepEqual([state.offers, state.alerts], [{}, silent]);
});
