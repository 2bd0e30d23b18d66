/** What the mechanic's app says of days, breaks and past offers, as pure functions of what it knows. */

/** @import {PastOfferOutcome, DayHours} from "./wire.js" */

const LOCALE = "en-US";
const DAY_MS = 86_400_000;
// Days are names of the calendar and not instants: no time zone may move them.
const weekday = new Intl.DateTimeFormat(LOCALE, { weekday: "short", month: "short", day: "numeric", timeZone: "UTC" });
const short = new Intl.DateTimeFormat(LOCALE, { month: "short", day: "numeric", timeZone: "UTC" });

/** @param {string} day  `2026-11-29` */
const dayMs = (day) => Date.parse(`${day}T00:00:00Z`);
/** @param {number} ms */
export const dayOf = (ms) => new Date(ms).toISOString().slice(0, 10);

/**
 * @typedef {object} WorkWeek
 * @property {string} monday
 * @property {DayHours[]} days  newest first
 * @property {number} on_duty_s
 * @property {number} in_session_s
 * @property {number} sessions
 * @property {Map<string, number>} earned_cents  by currency, each of which is a sum of its own
 */

/**
 * The weeks of some days, newest first, each with its sum.
 * @param {readonly DayHours[]} days  in any order
 * @returns {WorkWeek[]}
 */
export function byWeek(days) {
  /** @type {Map<string, WorkWeek>} */
  const weeks = new Map();
  // Of a day with several currencies the first entry has the hours, and stays the first.
  for (const one of [...days].sort((a, b) => b.day.localeCompare(a.day))) {
    const monday = mondayOf(one.day);
    /** @type {WorkWeek} */
    const nothing = { monday, days: [], on_duty_s: 0, in_session_s: 0, sessions: 0, earned_cents: new Map() };
    const week = weeks.get(monday) ?? nothing;
    week.days.push(one);
    week.on_duty_s += one.on_duty_s;
    week.in_session_s += one.in_session_s;
    week.sessions += one.sessions;
    week.earned_cents.set(one.currency, (week.earned_cents.get(one.currency) ?? 0) + one.earned_cents);
    weeks.set(monday, week);
  }
  return [...weeks.values()];
}

/** @param {string} day */
export function mondayOf(day) {
  const ms = dayMs(day);
  return dayOf(ms - ((new Date(ms).getUTCDay() + 6) % 7) * DAY_MS);
}

/**
 * @param {string} monday
 * @param {string} today
 */
export function weekName(monday, today) {
  const weeks = Math.round((dayMs(mondayOf(today)) - dayMs(monday)) / (7 * DAY_MS));
  if (weeks === 0) return "This week";
  return weeks === 1 ? "Last week" : `Week of ${short.format(dayMs(monday))}`;
}

/**
 * @param {string} day
 * @param {string} today
 */
export function dayName(day, today) {
  if (day === today) return "Today";
  return dayMs(today) - dayMs(day) === DAY_MS ? "Yesterday" : weekday.format(dayMs(day));
}

/**
 * "7 h 30 min", "45 min".
 * @param {number} seconds
 */
export function hours(seconds) {
  const minutes = Math.round(seconds / 60);
  if (minutes === 0) return "0 min";
  const rest = minutes % 60;
  const whole = Math.floor(minutes / 60);
  return [whole ? `${whole} h` : "", rest ? `${rest} min` : ""].filter(Boolean).join(" ");
}

/**
 * What became of an offer, and why it was lost.
 * @param {{outcome: PastOfferOutcome}} offer
 */
export function outcomeText({ outcome }) {
  /** @type {Record<PastOfferOutcome, string>} */
  const texts = {
    accepted: "You accepted",
    declined: "You declined",
    missed: "Missed: no answer in time",
    taken: "Another mechanic was faster",
    cancelled: "Called off",
    skipped: "The customer chose not to wait",
    given_back: "You gave it back",
    no_show: "You did not start in time",
    find_another: "The customer asked for another mechanic",
  };
  return texts[outcome] ?? "Ended";
}

/**
 * When a break ends: "Back at 2:30 PM, in 12 min".
 * @param {number} left_ms
 * @param {string} at  the time of day
 */
export function backText(left_ms, at) {
  const minutes = Math.ceil(left_ms / 60_000);
  return left_ms <= 0 ? "You are about to go on duty again." : `Back at ${at}, in ${minutes} min. You go back on duty automatically.`;
}
