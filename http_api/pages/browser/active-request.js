/** The session the mechanic has accepted: until when to start it, where it takes place, complete it, or give it back. */

import { msLeft, onTick } from "./clock.js";
import { Part, h, setAttribute, setText } from "./elements.js";
import { RequestTimeline } from "./request-timeline.js";
import { isReminded, limitRoom, limitSaid, limitText } from "./session-words.js";
import { keepFocus } from "./steady.js";
import { planLength, planName, priceText } from "./words.js";

/**
 * @import {PlanView} from "./wire.js"
 * @import {TrackedRequest} from "./requests.js"
 */

/**
 * @fires start-request  request id
 * @fires complete-request  request id
 * @fires release-request  request id
 */
export class ActiveRequest extends Part {
  #id = "";
  /** @type {TrackedRequest | null} */
  #request = null;
  #customer = h("h3", {});
  #state = h("p", { class: "active-state" });
  #price = h("span", { class: "offer-price" });
  #what = h("span", {});
  #left = h("span", { "aria-hidden": "true", "data-testid": "session-left" });
  #leftSaid = h("span", { class: "sr-only", id: "active-limit" });
  /** As tall as whatever it may say until somebody presses a button. */
  #limit = h("div", { class: "active-limit" }, this.#left);
  #trouble = h("p", { class: "trouble", "data-testid": "customer-note" });
  #start = button("primary", "start");
  #complete = button("primary", "complete");
  #release = button("secondary", "release");
  #join = h(
    "a",
    { class: "button secondary", target: "_blank", rel: "noopener", "data-testid": "join", "data-steady": true },
    "Join",
    h("span", { class: "sr-only" }, " the session, in a new tab"),
  );
  /** A row of its own: Complete takes the place of two others, and this stays where it is. */
  #place = h("div", { class: "offer-actions" }, this.#join);
  #problem = h("p", { class: "tracker-problem", role: "alert" });
  #timeline = new RequestTimeline();
  #card = h("article", { class: "panel active" });

  build() {
    this.#card.append(
      this.#state,
      this.#customer,
      h("p", { class: "offer-what" }, this.#price, this.#what),
      this.#limit,
      this.#leftSaid,
      this.#problem,
      h("div", { class: "offer-actions" }, this.#start, this.#complete, this.#release),
      this.#place,
      // Below the buttons, where however long it is they are on the screen.
      this.#trouble,
      h("details", {}, h("summary", {}, "What happened so far"), this.#timeline),
    );
    setAttribute(this.#card, "data-testid", "active-request");
    setAttribute(this.#card, "tabindex", "-1");
    this.append(
      h("section", { "aria-labelledby": "active-title" }, h("h2", { id: "active-title" }, "Your session"), this.#card),
    );
    setAttribute(this.#start, "aria-describedby", "active-limit");
    this.#start.addEventListener("click", () => this.say("start-request", this.#id));
    this.#complete.addEventListener("click", () => this.say("complete-request", this.#id));
    this.#release.addEventListener("click", () => this.say("release-request", this.#id));
    this.hidden = true;
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    onTick(signal, () => this.#drawLeft());
  }

  /**
   * @typedef {object} ActiveProps
   * @property {TrackedRequest | null} request
   * @property {readonly PlanView[] | null} plans
   * @property {string | undefined} acting
   * @property {string | undefined} problem
   */

  /** @param {ActiveProps} props */
  update(props) {
    // Start gives way to Complete; whoever pressed it reads on at the card and not at the other button.
    keepFocus(
      this,
      () => this.#update(props),
      () => (props.request ? this.#card : null),
    );
  }

  /** @param {ActiveProps} props */
  #update({ request, plans, acting, problem }) {
    this.hidden = !request;
    this.#request = request;
    if (!request) return;
    const plan = plans?.find((one) => one.id === request.plan);
    this.#id = request.id;
    setAttribute(this.#card, "data-request-id", request.id);
    setAttribute(this.#card, "data-status", request.status);
    setText(this.#customer, request.customer_name);
    const reminded = isReminded(request);
    setAttribute(this.#card, "data-reminded", reminded);
    const accepted = reminded ? "Start now: they wait" : "Accepted: yours to start";
    setText(this.#state, request.status === "accepted" ? accepted : "In progress");
    setAttribute(this.#limit, "data-room", limitRoom(request));
    this.#drawLeft();
    setText(this.#price, priceText(request));
    setText(this.#what, [planName(plans, request.plan), plan ? planLength(plan) : ""].filter(Boolean).join(" · "));
    this.#trouble.hidden = !request.note;
    setText(this.#trouble, request.note ?? "");
    this.#start.hidden = this.#release.hidden = request.status !== "accepted";
    this.#place.hidden = !request.join_url;
    setAttribute(this.#join, "href", request.join_url ?? null);
    this.#complete.hidden = request.status !== "in_progress";
    setText(this.#start, acting === "start" ? "Starting…" : "Start");
    setText(this.#complete, acting === "complete" ? "Completing…" : "Complete");
    setText(this.#release, acting === "release" ? "Giving back…" : "Give back");
    for (const button of [this.#start, this.#complete, this.#release])
      setAttribute(button, "aria-disabled", acting ? "true" : null);
    this.#problem.hidden = !problem;
    setText(this.#problem, problem ?? "");
    this.#timeline.update(request, "mechanic");
  }

  #drawLeft() {
    const limit_ms = this.#request?.limit_ms ?? null;
    // A server of an earlier version sets no limit.
    this.#limit.hidden = this.#leftSaid.hidden = limit_ms === null;
    if (this.#request === null || limit_ms === null) return;
    const left_ms = msLeft(limit_ms);
    setText(this.#left, limitText(this.#request, left_ms));
    setText(this.#leftSaid, limitSaid(this.#request, left_ms));
    setAttribute(this.#limit, "data-soon", left_ms < 60_000);
  }

  /** Take the focus: what had it, the offer's button, is gone. */
  focusCard() {
    this.#card.focus();
  }
}
customElements.define("active-request", ActiveRequest);

/**
 * @param {string} look
 * @param {string} name
 */
function button(look, name) {
  // What it does to a session that is paid for cannot be undone.
  return h("button", { type: "button", class: look, "data-testid": name, "data-steady": "long" });
}
