/** Requests that are over: one line each, the story on demand. */

import { serverNow } from "./clock.js";
import { Part, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { RequestTimeline } from "./request-timeline.js";
import { isReportable, isReported } from "./requests.js";
import { keepFocus } from "./steady.js";
import { dateAndTime, planName, refundText, shortName, shortStatusAndMoney } from "./words.js";

/**
 * @import {Person, PlanView} from "./wire.js"
 * @import {TrackedRequest} from "./requests.js"
 */

/**
 * @typedef {object} RecentProps
 * @property {TrackedRequest} request
 * @property {readonly PlanView[] | null} plans
 * @property {"customer" | "mechanic"} side  whose list this is
 * @property {boolean} may_add  the mechanic could become a favourite
 */

/**
 * @fires add-favorite  `{id, name}`
 * @fires report-problem  request id
 */
class RecentRequest extends Part {
  #id = "";
  /** @type {Person | null} */
  #mechanic = null;
  #title = h("span", { class: "recent-title" });
  #when = h("time", { class: "recent-when" });
  #state = h("span", { class: "recent-state" });
  #refund = h("p", { class: "recent-refund" });
  #timeline = new RequestTimeline();
  #addText = h("span", {});
  #add = h("button", { type: "button", class: "secondary small" }, glyph("heart-outline"), " ", this.#addText);
  #report = h(
    "button",
    { type: "button", class: "secondary small", "data-testid": "report-problem" },
    "Report a problem",
  );
  #reported = reportedMark();
  #actions = h("div", { class: "recent-actions" }, this.#add, this.#report, this.#reported);
  #summary = h("summary", {}, this.#title, " ", this.#when, " ", this.#state);

  build() {
    setAttribute(this, "data-testid", "recent-request");
    this.append(h("details", {}, this.#summary, this.#refund, this.#timeline, this.#actions));
    this.#add.addEventListener("click", () => this.#mechanic && this.say("add-favorite", this.#mechanic));
    this.#report.addEventListener("click", () => this.say("report-problem", this.#id));
  }

  /** @param {RecentProps} props */
  update(props) {
    keepFocus(
      this,
      () => this.#update(props),
      () => this.#summary,
    );
  }

  /** @param {RecentProps} props */
  #update({ request, plans, side, may_add }) {
    const other = side === "customer" ? request.assigned_mechanic?.name : request.customer_name;
    const refund = refundText(request);
    this.#id = request.id;
    this.#mechanic = request.assigned_mechanic;
    setAttribute(this, "data-request-id", request.id);
    setAttribute(this, "data-status", request.status);
    setText(this.#title, other ? `${planName(plans, request.plan)} with ${other}` : planName(plans, request.plan));
    setAttribute(this.#when, "datetime", request.created_at);
    setText(this.#when, dateAndTime(request.created_at, serverNow()));
    setText(this.#state, shortStatusAndMoney(request));
    this.#refund.hidden = !refund || side === "mechanic";
    setText(this.#refund, refund);
    this.#timeline.update(request, side);
    this.#add.hidden = !may_add;
    setText(this.#addText, `Add ${shortName(this.#mechanic?.name ?? "")} to favorites`);
    this.#report.hidden = side === "mechanic" || !isReportable(request, serverNow());
    this.#reported.hidden = side === "mechanic" || !isReported(request);
  }
}
customElements.define("recent-request", RecentRequest);

/** What stands where "Report a problem" was. */
export const reportedMark = () =>
  h("span", { class: "reported", "data-testid": "reported" }, glyph("check"), " ", "Reported");

/** @fires load-more */
export class RecentRequests extends Part {
  #list = h("div", { class: "recents" });
  #more = h("button", { type: "button", class: "quiet" }, "Show more");
  #section = h("section", { "aria-labelledby": "recent-title" });

  build() {
    const title = this.dataset.title ?? "Recent requests";
    this.#section.append(h("h2", { id: "recent-title" }, title), h("div", { class: "panel" }, this.#list, this.#more));
    this.append(this.#section);
    this.#more.addEventListener("click", () => this.say("load-more"));
  }

  /**
   * @param {RecentProps[]} recents
   * @param {boolean} more  there are older ones to load
   */
  update(recents, more) {
    this.hidden = recents.length === 0;
    this.#more.hidden = !more;
    keyed(
      this.#list,
      recents,
      ({ request }) => request.id,
      () => new RecentRequest(),
      (line, props) => line.update(props),
    );
  }

  /**
   * What opens the line of one request, if it is shown.
   * @param {string} request_id
   * @returns {HTMLElement | null}
   */
  line(request_id) {
    return this.#list.querySelector(`[data-request-id="${CSS.escape(request_id)}"] summary`);
  }
}
customElements.define("recent-requests", RecentRequests);
