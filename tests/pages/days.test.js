/** What is said of days, breaks and past offers. */

import assert from "node:assert/strict";

import * as words from "../../http_api/pages/browser/day-words.js";
import { test } from "./harness.js";
import { AT, aMechanicWelcome, after, received } from "./samples.js";

/** @import {PastOffer} from "../../http_api/pages/browser/wire.js" */

/** @param {string} day */
const aDay = (day) => ({ day, on_duty_s: 3_600, in_session_s: 600, sessions: 1, earned_cents: 999, currency: "usd" });

test("days are summed by weeks that begin on Monday, the newest first", () => {
  const weeks = words.byWeek(["2026-11-22", "2026-11-23", "2026-11-29"].map(aDay));
  assert.deepEqual(
    weeks.map(({ monday, days, on_duty_s, earned_cents }) => [
      monday,
      days.map(({ day }) => day),
      on_duty_s,
      earned_cents.get("usd"),
    ]),
    [
      ["2026-11-23", ["2026-11-29", "2026-11-23"], 7_200, 1_998],
      ["2026-11-16", ["2026-11-22"], 3_600, 999],
    ],
  );
});

test("what was earned in different currencies is not added up", () => {
  const [week] = words.byWeek([
    { ...aDay("2026-11-29"), currency: "jpy", earned_cents: 1_500 },
    { ...aDay("2026-11-29"), on_duty_s: 0, in_session_s: 0 },
    aDay("2026-11-28"),
  ]);
  assert.deepEqual([...(week?.earned_cents ?? [])], [["jpy", 1_500], ["usd", 1_998]]);
});

test("weeks and days have the names that people give them", () => {
  const today = "2026-11-29";
  assert.deepEqual(
    ["2026-11-23", "2026-11-16", "2026-11-09"].map((monday) => words.weekName(monday, today)),
    ["This week", "Last week", "Week of Nov 9"],
  );
  assert.deepEqual(
    ["2026-11-29", "2026-11-28", "2026-11-27"].map((day) => words.dayName(day, today)),
    ["Today", "Yesterday", "Fri, Nov 27"],
  );
});

test("hours are hours and minutes, whole ones", () => {
  assert.deepEqual([0, 20, 60, 2_700, 3_600, 27_000].map(words.hours), ["0 min", "0 min", "1 min", "45 min", "1 h", "7 h 30 min"]);
});

test("what became of an offer is said, also by a newer server", () => {
  assert.equal(words.outcomeText({ outcome: "missed" }), "Missed: no answer in time");
  assert.equal(words.outcomeText(/** @type {any} */ ({ outcome: "of a newer server" })), "Ended");
});

test("a break says when it ends", () => {
  assert.equal(words.backText(840_001, "2:30 PM"), "Back at 2:30 PM, in 15 min. You go back on duty automatically.");
  assert.equal(words.backText(0, "2:30 PM"), "You are about to go on duty again.");
});

test("a break and the end of the day are as the server last said", () => {
  const planned = after([received({ ...aMechanicWelcome(), on_duty: false, back_in_ms: 60_000, off_after_session: true }, 5_000)]);
  assert.deepEqual([planned.back_ms, planned.off_after_session], [65_000, true]);
  const back = after([received({ type: "availability", on_duty: true, availability: "available" })], planned);
  assert.deepEqual([back.back_ms, back.off_after_session], [null, false]);
});

/** @param {string} offer_id @returns {PastOffer} */
const aPast = (offer_id) => ({
  offer_id,
  request_id: "r1",
  kind: "broadcast",
  customer_name: "John Doe",
  plan: "expert_video",
  session_type: "video",
  duration_min: 30,
  price_cents: 2999,
  currency: "usd",
  offered_at: AT,
  ended_at: AT,
  outcome: "missed",
});
/** @param {string | null} cursor @param {string | null} next_cursor @param {string[]} ids */
const aPage = (cursor, next_cursor, ...ids) =>
  /** @type {const} */ ({ type: "past_offers_loaded", offers: ids.map(aPast), next_cursor, cursor });

test("a page of past offers that was asked for twice is shown once, and a list that begins anew is whole", () => {
  const ids = (/** @type {ReturnType<typeof after>} */ state) => state.past_offers?.map(({ offer_id }) => offer_id);
  const first = after([aPage(null, "c1", "o4", "o3")]);
  const second = after([aPage("c1", "c2", "o2"), aPage("c1", "c2", "o2")], first);
  assert.deepEqual([ids(second), second.past_cursor], [["o4", "o3", "o2"], "c2"]);
  const last = after([aPage("c2", null, "o1"), aPage("c2", null, "o1")], second);
  assert.deepEqual([ids(last), last.past_cursor], [["o4", "o3", "o2", "o1"], null]);
  const anew = after([aPage(null, "c4", "o5", "o4"), aPage("c2", null, "o1")], second);
  assert.deepEqual([ids(anew), anew.past_cursor], [["o5", "o4"], "c4"]);
});
