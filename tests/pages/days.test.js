/** What is said of days, breaks and past offers. */

import assert from "node:assert/strict";

import * as words from "../../http_api/pages/browser/day-words.js";
import { test } from "./harness.js";
import { aMechanicWelcome, after, received } from "./samples.js";

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
  assert.equal(words.backText(840_001, "2:30 PM"), "Back at 2:30 PM, in 15 min. You go on duty by yourself.");
  assert.equal(words.backText(0, "2:30 PM"), "You are about to go on duty again.");
});

test("a break and the end of the day are as the server last said", () => {
  const planned = after([received({ ...aMechanicWelcome(), on_duty: false, back_in_ms: 60_000, off_after_session: true }, 5_000)]);
  assert.deepEqual([planned.back_ms, planned.off_after_session], [65_000, true]);
  const back = after([received({ type: "availability", on_duty: true, availability: "available" })], planned);
  assert.deepEqual([back.back_ms, back.off_after_session], [null, false]);
});
