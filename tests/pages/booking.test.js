/** What must outlive a trip to the payment page, and what makes a retry safe. */

import assert from "node:assert/strict";

import { CheckoutKey, bookingMemory } from "../../http_api/pages/browser/booking.js";
import { beforeEach, test } from "./harness.js";

/**
 * @import {CheckoutBody} from "../../http_api/pages/browser/wire.js"
 * @import {Booking} from "../../http_api/pages/browser/state.js"
 */

/** @type {Booking} */
const ANYONE = { routing_type: "broadcast", favorite: null, plan: null, note: "" };
/** @type {Booking} */
const MIKE = {
  routing_type: "priority_broadcast",
  favorite: { id: "m1", name: "Mike's Garage" },
  plan: "expert_video",
  note: "Golf 7, rattles\nwhen cold",
};

beforeEach(() => sessionStorage.clear());

/**
 * Leave in the storage what an older version of the page, or somebody else, may have left there.
 * @param {(text: string) => string} damage
 */
function damaged(damage) {
  bookingMemory.keep("c1", MIKE);
  const key = /** @type {string} */ (sessionStorage.key(0));
  sessionStorage.setItem(key, damage(/** @type {string} */ (sessionStorage.getItem(key))));
}

test("a choice is recalled as it was kept, by the account that made it", () => {
  for (const booking of [ANYONE, MIKE]) {
    bookingMemory.keep("c1", booking);
    assert.deepEqual(bookingMemory.recall("c1"), booking);
  }
  assert.equal(bookingMemory.recall("c2"), null);
});

test("a choice that a page without notes has kept is recalled without one", () => {
  for (const note of [undefined, 7]) {
    bookingMemory.keep("c1", /** @type {any} */ ({ ...MIKE, note }));
    assert.deepEqual(bookingMemory.recall("c1"), { ...MIKE, note: "" });
  }
});

test("the last choice counts, and none is left once it is forgotten", () => {
  bookingMemory.keep("c1", ANYONE);
  bookingMemory.keep("c1", MIKE);
  assert.deepEqual(bookingMemory.recall("c1"), MIKE);
  bookingMemory.forget();
  assert.equal(bookingMemory.recall("c1"), null);
});

test("nothing is recalled of what is not a whole choice", () => {
  const wrongs = [
    { ...MIKE, favorite: null },
    { ...MIKE, favorite: { id: "m1" } },
    { ...MIKE, favorite: { name: "Mike's Garage" } },
    { ...MIKE, routing_type: "nobody" },
    { ...MIKE, plan: 7 },
    { ...ANYONE, favorite: MIKE.favorite },
    { routing_type: "broadcast", favorite: null },
    null,
  ];
  const said = warnings(() => {
    for (const wrong of wrongs) {
      bookingMemory.keep("c1", /** @type {any} */ (wrong));
      assert.equal(bookingMemory.recall("c1"), null, JSON.stringify(wrong));
    }
  });
  assert.deepEqual(said, [], "that is nothing to warn of");
});

test("where nothing was kept nothing is recalled, without a warning", () => {
  assert.deepEqual(
    warnings(() => assert.equal(bookingMemory.recall("c1"), null)),
    [],
  );
});

/** @param {() => void} act */
function warnings(act) {
  const { warn } = console;
  /** @type {unknown[]} */
  const said = [];
  console.warn = (/** @type {unknown} */ text) => said.push(text);
  try {
    act();
  } finally {
    console.warn = warn;
  }
  return said;
}

test("a damaged memory is as good as none", () => {
  damaged((text) => text.slice(0, -1));
  const said = warnings(() => assert.equal(bookingMemory.recall("c1"), null));
  assert.deepEqual(said, ["The choice cannot be recalled:"]);
});

test("a browser that refuses storage only forgets", () => {
  const storage = /** @type {PropertyDescriptor} */ (Object.getOwnPropertyDescriptor(globalThis, "sessionStorage"));
  Object.defineProperty(globalThis, "sessionStorage", {
    configurable: true,
    get() {
      throw new Error("refused");
    },
  });
  try {
    const said = warnings(() => {
      bookingMemory.keep("c1", MIKE);
      assert.equal(bookingMemory.recall("c1"), null);
      bookingMemory.forget();
    });
    assert.deepEqual(said, [
      "The choice cannot be remembered:",
      "The choice cannot be recalled:",
      "The choice cannot be forgotten:",
    ]);
  } finally {
    Object.defineProperty(globalThis, "sessionStorage", storage);
  }
});

/** @type {CheckoutBody} */
const CHOICE = { plan: "expert_video", routing_type: "broadcast", preferred_mechanic_id: null };

test("every try of one choice has one key", () => {
  const key = new CheckoutKey();
  const first = key.for(CHOICE);
  assert.match(first, /^[\w-]{32,}$/);
  assert.equal(key.for({ ...CHOICE }), first);
});

test("another choice has another key, and so has the first one taken up again", () => {
  const key = new CheckoutKey();
  const keys = [CHOICE, { ...CHOICE, plan: "quick_chat" }, CHOICE].map((choice) => key.for(choice));
  assert.equal(new Set(keys).size, 3);
});

test("once answered, the same choice has a new key", () => {
  const key = new CheckoutKey();
  const keys = [1, 2, 3].map(() => {
    const one = key.for(CHOICE);
    assert.equal(key.for(CHOICE), one);
    key.spent();
    return one;
  });
  assert.equal(new Set(keys).size, 3);
});

test("two pages never share a key, also where the address is not a secure one", () => {
  const { randomUUID } = crypto;
  try {
    for (const without of [false, true]) {
      if (without) Object.defineProperty(crypto, "randomUUID", { configurable: true, value: undefined });
      const keys = Array.from({ length: 100 }, () => new CheckoutKey().for(CHOICE));
      assert.equal(new Set(keys).size, 100);
      assert.ok(keys.every((one) => (without ? /^[0-9a-f]{32}$/ : /^[0-9a-f-]{36}$/).test(one)));
    }
  } finally {
    Object.defineProperty(crypto, "randomUUID", { configurable: true, value: randomUUID });
  }
});
