/** The session the mechanic has accepted: start it, complete it, or give it back. */

import { Part, h, setAttribute, setText } from "./elements.js";
import { RequestTimeline } from "./request-timeline.js";
import { keepFocus } from "./steady.js";
import { money, planLength, planName } from "./words.js";

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
  #customer = h("h3", {});
  #state = h("p", { class: "active-state" });
  #what = h("p", { class: "offer-what" });
  #trouble = h("p", { class: "trouble", "data-testid": "customer-note" });
  #start = button("primary", "start");
  #complete = button("primary", "complete");
  #release = button("secondary", "release");
  #problem = h("p", { class: "tracker-problem", role: "alert" });
  #timeline = new RequestTimeline();
  #card = h("article", { class: "panel active" });

  build() {
    this.#card.append(
      this.#state,
      this.#customer,
      this.#what,
      this.#trouble,
      this.#problem,
      h("div", { class: "offer-actions" }, this.#start, this.#complete, this.#release),
      h("details", {}, h("summary", {}, "What happened so far"), this.#timeline),
    );
    setAttribute(this.#card, "data-testid", "active-request");
    setAttribute(this.#card, "tabindex", "-1");
    this.append(
      h("section", { "aria-labelledby": "active-title" }, h("h2", { id: "active-title" }, "Your session"), this.#card),
    );
    this.#start.addEventListener("click", () => this.say("start-request", this.#id));
    this.#complete.addEventListener("click", () => this.say("complete-request", this.#id));
    this.#release.addEventListener("click", () => this.say("release-request", this.#id));
    this.hidden = true;
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
    if (!request) return;
    const plan = plans?.find((one) => one.id === request.plan);
    this.#id = request.id;
    setAttribute(this.#card, "data-request-id", request.id);
    setAttribute(this.#card, "data-status", request.status);
    setText(this.#customer, request.customer_name);
    setText(this.#state, request.status === "accepted" ? "Accepted: ready when you are" : "In progress");
    const price = request.price_cents ? money(request.price_cents, request.currency) : "";
    setText(
      this.#what,
      [planName(plans, request.plan), plan ? planLength(plan) : "", price].filter(Boolean).join(" · "),
    );
    this.#trouble.hidden = !request.note;
    setText(this.#trouble, request.note ?? "");
    this.#start.hidden = this.#release.hidden = request.status !== "accepted";
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
  return h("button", { type: "button", class: look, "data-testid": name, "data-steady": true });
}
