/** The offers that a mechanic's client knows: each is news once, whatever the network repeats. */

import assert from "node:assert/strict";

import { ended, KNOWN_MAX, NO_OFFERS, openIn, seen, withOffer, withSnapshot } from "../../clients/javascript/offers.js";
import { forEverySeed } from "./chance.js";
import { test } from "./harness.js";
import { anOffer } from "./samples.js";

/** @import {KnownOffers} from "../../clients/javascript/offers.js" */

const one = anOffer({ offer_id: "o1" });
const two = anOffer({ offer_id: "o2" });
const three = anOffer({ offer_id: "o3" });
const offers = [one, two, three];

/** @param {KnownOffers} known */
const ids = (known) => openIn(known).map(({ offer_id }) => offer_id);

test("an offer is news once, and has the earliest deadline that was heard", () => {
  const first = withOffer(NO_OFFERS, one, 1_000);
  assert.deepEqual(first.opened, { offer: { ...one, deadline_ms: 61_000 }, is_new: true });
  const again = withOffer(first.known, { ...one, expires_in_ms: 55_000 }, 6_200);
  assert.equal(again.opened, null);
  assert.equal(openIn(again.known)[0]?.deadline_ms, 61_000);
  const sooner = withOffer(again.known, { ...one, expires_in_ms: 50_000 }, 10_900);
  assert.equal(openIn(sooner.known)[0]?.deadline_ms, 60_900);
});

test("a deadline that has changed counts as it was said last, whatever arrives last", () => {
  const first = { ...one, expires_at: "2026-11-22T09:30:10.000Z", expires_in_ms: 10_000 };
  const longer = { ...one, expires_at: "2026-11-22T09:31:05.000Z", expires_in_ms: 60_000 };
  for (const [views, title] of /** @type {const} */ ([
    [[first, longer], "in order"],
    [[longer, first], "overtaken"],
    [[first, longer, first, longer], "repeated"],
  ])) {
    const known = views.reduce((all, view, at) => withOffer(all, view, 1_000 + at).known, NO_OFFERS);
    const { expires_at, deadline_ms } = openIn(known)[0] ?? {};
    assert.deepEqual([expires_at, deadline_ms], [longer.expires_at, 61_000 + views.indexOf(longer)], title);
  }
});

test("a snapshot opens what is new, and ends what it does not name unless it is kept", () => {
  const { known } = withSnapshot(NO_OFFERS, [one, two], 0);
  const next = withSnapshot(known, [three], 0, new Set(["o2"]));
  assert.deepEqual(
    next.opened.map(({ offer, is_new }) => [offer.offer_id, is_new]),
    [["o3", true]],
  );
  assert.deepEqual(
    next.gone.map(({ offer_id }) => offer_id),
    ["o1"],
  );
  assert.deepEqual(ids(next.known), ["o2", "o3"]);
});

test("what was gone may come again, and is no news then; what was answered does not come again", () => {
  const { known } = withSnapshot(NO_OFFERS, [one, two], 0);
  const over = ended(ended(known, "o1", "gone"), "o2", "answered");
  assert.deepEqual(ids(over), []);
  const back = withSnapshot(over, [one, two], 0);
  assert.deepEqual(
    back.opened.map(({ offer, is_new }) => [offer.offer_id, is_new]),
    [["o1", false]],
  );
  assert.deepEqual(ids(back.known), ["o1"]);
  assert.equal(ended(over, "o2", "gone"), over, "what was answered stays so");
  assert.equal(ended(over, "o9", "gone"), over, "of what nobody has heard there is nothing to end");
});

test("that a person could see it is remembered, also while it comes and goes", () => {
  const { known } = withOffer(NO_OFFERS, one, 0);
  const shown = seen(known, "o1");
  assert.equal(seen(shown, "o1"), shown);
  assert.equal(seen(shown, "o9"), shown);
  const back = withOffer(ended(shown, "o1", "gone"), one, 0);
  assert.equal(back.known.get("o1")?.seen, true);
});

test("of what is over only so many are remembered, of what is open all", () => {
  let known = withOffer(NO_OFFERS, one, 0).known;
  for (let count = 0; count < KNOWN_MAX + 10; count += 1) {
    const offer_id = `later${count}`;
    known = ended(withOffer(known, anOffer({ offer_id }), 0).known, offer_id, "gone");
  }
  assert.equal(known.size, KNOWN_MAX);
  assert.deepEqual(ids(known), ["o1"]);
});

test("whatever is repeated in whatever order, no offer is new twice, and what is open is what was said last", () => {
  forEverySeed((chance) => {
    let known = NO_OFFERS;
    /** @type {Map<string, number>} */
    const announced = new Map();
    /** @type {Set<string>} */
    const open = new Set();
    /** @type {Set<string>} */
    const answered = new Set();
    for (let step = 0; step < 40; step += 1) {
      const offer = chance.oneOf(offers);
      const what = chance.below(10);
      if (what < 5) {
        const { known: next, opened } = withOffer(known, offer, step);
        known = next;
        if (opened?.is_new) announced.set(offer.offer_id, (announced.get(offer.offer_id) ?? 0) + 1);
        if (!answered.has(offer.offer_id)) open.add(offer.offer_id);
      } else if (what < 7) {
        const named = offers.filter(() => chance.share() < 0.5);
        const snapshot = withSnapshot(known, named, step);
        known = snapshot.known;
        open.clear();
        named.forEach(({ offer_id }) => !answered.has(offer_id) && open.add(offer_id));
        for (const { offer: { offer_id }, is_new } of snapshot.opened) {
          if (is_new) announced.set(offer_id, (announced.get(offer_id) ?? 0) + 1);
        }
      } else {
        const standing = what < 9 ? "gone" : "answered";
        if (known.has(offer.offer_id) && standing === "answered") answered.add(offer.offer_id);
        known = ended(known, offer.offer_id, standing);
        open.delete(offer.offer_id);
      }
      assert.deepEqual(ids(known).sort(), [...open].sort());
    }
    for (const [offer_id, times] of announced) assert.equal(times, 1, offer_id);
  });
});
