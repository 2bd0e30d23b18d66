/** How long this mechanic was on duty and in sessions, and what came of it: week by week, day by day. */

import { byWeek, dayName, hours, weekName } from "./day-words.js";
import { Part, h, keyed, setText } from "./elements.js";
import { money } from "./words.js";

/**
 * @import {DayHours} from "./wire.js"
 * @import {WorkWeek} from "./day-words.js"
 */

/** One week: its sum, and its days in a table. */
class WorkWeekPart extends Part {
  #title = h("h3", {});
  #sum = h("p", { class: "week-sum" });
  #rows = h("tbody", {});
  #caption = h("caption", { class: "sr-only" });

  build() {
    const heads = ["Day", "On duty", "In sessions", "Earned"].map((text) => h("th", { scope: "col" }, text));
    this.append(
      this.#title,
      this.#sum,
      h("table", { class: "week" }, this.#caption, h("thead", {}, h("tr", {}, ...heads)), this.#rows),
    );
  }

  /** @param {{week: WorkWeek, today: string}} props */
  update({ week, today }) {
    setText(this.#title, weekName(week.monday, today));
    setText(this.#caption, weekName(week.monday, today));
    const sums = [...week.earned_cents];
    const earned = sums.filter(([, cents]) => cents > 0);
    setText(
      this.#sum,
      [
        `${hours(week.on_duty_s)} on duty`,
        `${hours(week.in_session_s)} in ${week.sessions === 1 ? "1 session" : `${week.sessions} sessions`}`,
        ...(earned.length ? earned : sums.slice(0, 1)).map(([currency, cents]) => money(cents, currency)),
      ].join(" · "),
    );
    keyed(
      this.#rows,
      week.days,
      ({ day, currency }) => `${day} ${currency}`,
      () => h("tr", {}, h("th", { scope: "row" }), h("td", {}), h("td", {}), h("td", {})),
      (row, one) => drawDay(row, one, today),
    );
  }
}
customElements.define("work-week", WorkWeekPart);

/**
 * @param {HTMLTableRowElement} row
 * @param {DayHours} one
 * @param {string} today
 */
function drawDay(row, one, today) {
  const texts = [
    dayName(one.day, today),
    hours(one.on_duty_s),
    one.sessions ? `${hours(one.in_session_s)} (${one.sessions})` : "–",
    one.earned_cents ? money(one.earned_cents, one.currency) : "–",
  ];
  texts.forEach((text, index) => row.children[index] && setText(row.children[index], text));
}

export class WorkHours extends Part {
  #weeks = h("div", { class: "weeks" });
  #note = h("p", { class: "hint" });

  build() {
    this.append(
      h(
        "section",
        { "aria-labelledby": "hours-title" },
        h("h2", { id: "hours-title" }, "Hours and earnings"),
        h("div", { class: "panel", "data-testid": "work-hours" }, this.#note, this.#weeks),
      ),
    );
  }

  /** @param {{days: readonly DayHours[] | null, problem: string | null, today: string}} props  `today` as `2026-11-29` */
  update({ days, problem, today }) {
    const worked = (days ?? []).filter((day) => day.on_duty_s > 0 || day.sessions > 0);
    setText(this.#note, problem ?? (days === null ? "Loading…" : worked.length ? "" : "Nothing in the last weeks yet."));
    this.#note.hidden = !this.#note.textContent;
    keyed(
      this.#weeks,
      byWeek(worked),
      ({ monday }) => monday,
      () => new WorkWeekPart(),
      (part, week) => part.update({ week, today }),
    );
  }
}
customElements.define("work-hours", WorkHours);
