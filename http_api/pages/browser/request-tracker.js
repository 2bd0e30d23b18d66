/** The live card of a request: what is happening in words, how long it may take, and what the customer can do. */

import { msLeft, onTick } from "./clock.js";
import { CountdownRing } from "./countdown-ring.js";
import { Part, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { RequestTimeline } from "./request-timeline.js";
import { isCancellable, isOpen } from "./requests.js";
import { countdown, customerStory, money, planLength, planName, refundText, shortName } from "./words.js";

/**
 * @import {PublicConfig, StatusView, PlanView, ProviderType} from "./wire.js"
 * @import {TrackedRequest} from "./requests.js"
 */

/**
 * @typedef {object} TrackerProps
 * @property {TrackedRequest} request
 * @property {readonly PlanView[] | null} plans
 * @property {PublicConfig | null} config
 * @property {StatusView | undefined} status  of the favourite
 * @property {number | null} available_count
 * @property {ProviderType | undefined} preferred_type
 * @property {string | undefined} acting  the action on its way
 * @property {string | undefined} problem
 */

/**
 * @fires skip-wait  request id
 * @fires cancel-request  `{request_id, paid}`
 * @fires close-request  request id
 */
class RequestTracker extends Part {
  #id = "";
  #paid = true;
  /** @type {number | null} */
  #deadline_ms = null;
  #plan = h("p", { class: "tracker-plan" });
  #note = h("p", { class: "tracker-note", "data-testid": "tracker-note" });
  #headline = h("span", {});
  #left = h("span", { class: "tracker-left", role: "timer", "aria-live": "off" });
  #detail = h("p", { class: "tracker-detail" });
  #refund = h("p", { class: "tracker-refund" });
  #ring = new CountdownRing();
  #mark = h("div", { class: "tracker-mark", "aria-hidden": "true" });
  #skip = h("button", { type: "button", class: "secondary", "data-testid": "skip-wait" }, "Skip the wait");
  #cancel = h("button", { type: "button", class: "secondary", "data-testid": "cancel-request" });
  #close = h("button", { type: "button", class: "secondary", "data-testid": "close-request" }, "Close");
  #problem = h("p", { class: "tracker-problem", role: "alert" });
  #timeline = new RequestTimeline();
  #actions = h("div", { class: "tracker-actions" }, this.#skip, this.#cancel, this.#close);

  build() {
    setAttribute(this, "data-testid", "tracker");
    setAttribute(this, "tabindex", "-1");
    this.append(
      h(
        "article",
        { class: "panel tracker" },
        h(
          "div",
          { class: "tracker-top" },
          h("div", { class: "tracker-dial" }, this.#ring, this.#mark),
          h(
            "div",
            { class: "tracker-words" },
            this.#plan,
            h("h3", { "data-testid": "tracker-headline" }, this.#headline, this.#left),
            this.#detail,
            this.#note,
            this.#refund,
            this.#problem,
            this.#actions,
          ),
        ),
        h("details", {}, h("summary", {}, "What happened so far"), this.#timeline),
      ),
    );
    this.#skip.addEventListener("click", () => this.say("skip-wait", this.#id));
    this.#cancel.addEventListener("click", () =>
      this.say("cancel-request", { request_id: this.#id, paid: this.#paid }),
    );
    this.#close.addEventListener("click", () => this.say("close-request", this.#id));
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    onTick(signal, () => this.#drawLeft());
  }

  /** @param {TrackerProps} props */
  update({ request, plans, config, status, available_count, preferred_type, acting, problem }) {
    const plan = plans?.find((one) => one.id === request.plan);
    const preferred = request.preferred_mechanic ? shortName(request.preferred_mechanic.name, preferred_type) : "";
    const story = customerStory(request, { preferred, config, status, available_count });
    this.#id = request.id;
    this.#paid = plan ? plan.price_cents > 0 : true;
    this.#deadline_ms = request.deadline_ms;
    setAttribute(this, "data-request-id", request.id);
    setAttribute(this, "data-status", request.status);
    setAttribute(this, "data-tone", story.tone);

    const price = plan ? (plan.price_cents ? money(plan.price_cents, plan.currency) : "Free") : "";
    setText(
      this.#plan,
      [planName(plans, request.plan), plan ? planLength(plan) : "", price].filter(Boolean).join(" · "),
    );
    setText(this.#headline, story.headline);
    setText(this.#detail, story.detail);
    this.#note.hidden = !request.note;
    setText(this.#note, request.note ?? "");
    // Where the story already tells of the money, once is enough.
    const refund = refundText(request);
    this.#refund.hidden = !refund || story.detail === refund;
    setText(this.#refund, refund);

    this.#ring.hidden = request.deadline_ms === null;
    this.#mark.hidden = request.deadline_ms !== null;
    setAttribute(this.#mark, "data-status", request.status);
    if (request.deadline_ms !== null && request.offer) {
      const window_s = request.offer.kind === "priority" ? config?.priority_window_s : config?.broadcast_window_s;
      this.#ring.update(request.deadline_ms, window_s ? window_s * 1000 : request.offer.expires_in_ms);
    }
    this.#drawLeft();

    this.#skip.hidden = request.status !== "priority_offered";
    this.#cancel.hidden = !isCancellable(request);
    this.#close.hidden = isOpen(request);
    setText(this.#skip, acting === "skip-wait" ? "Skipping…" : "Skip the wait");
    setText(this.#cancel, acting === "cancel" ? "Cancelling…" : this.#paid ? "Cancel and refund" : "Cancel request");
    for (const button of [this.#skip, this.#cancel]) setAttribute(button, "aria-disabled", acting ? "true" : null);
    this.#problem.hidden = !problem;
    setText(this.#problem, problem ?? "");
    this.#timeline.update(request, "customer");
  }

  #drawLeft() {
    const left_ms = this.#deadline_ms === null ? null : msLeft(this.#deadline_ms);
    // At zero the server decides what comes next, and says so within moments.
    setText(this.#left, left_ms === null ? "" : left_ms > 0 ? ` — ${countdown(left_ms)} left` : " — any moment now");
  }
}
customElements.define("request-tracker", RequestTracker);

export class TrackerList extends Part {
  #list = h("div", { class: "trackers" });
  #section = h(
    "section",
    { "aria-labelledby": "trackers-title" },
    h("h2", { id: "trackers-title" }, glyph("flag"), " ", "Your requests"),
    this.#list,
  );

  build() {
    this.append(this.#section);
  }

  /** @param {TrackerProps[]} trackers */
  update(trackers) {
    this.hidden = trackers.length === 0;
    keyed(
      this.#list,
      trackers,
      ({ request }) => request.id,
      () => new RequestTracker(),
      (tracker, props) => tracker.update(props),
    );
  }

  /**
   * The card of one request, if it is shown.
   * @param {string} request_id
   * @returns {HTMLElement | null}
   */
  tracker(request_id) {
    return this.#list.querySelector(`[data-request-id="${CSS.escape(request_id)}"]`);
  }
}
customElements.define("tracker-list", TrackerList);
