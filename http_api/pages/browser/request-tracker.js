/** The live card of a request: what is happening in words, how long it may take, and what the customer can do. */

import { msLeft, onTick, serverNow } from "./clock.js";
import { CountdownRing } from "./countdown-ring.js";
import { Part, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { reportedMark } from "./recent-requests.js";
import { customerStory } from "./request-story.js";
import { RequestTimeline } from "./request-timeline.js";
import { isCancellable, isOpen, isReportable, isReported, limitLengthMs } from "./requests.js";
import { keepFocus } from "./steady.js";
import { countdown, planLength, planName, priceText, refundText } from "./words.js";

/**
 * @import {PublicConfig, StatusView, PlanView} from "./wire.js"
 * @import {TrackedRequest} from "./requests.js"
 */

/**
 * @typedef {object} TrackerProps
 * @property {TrackedRequest} request
 * @property {readonly PlanView[] | null} plans
 * @property {PublicConfig | null} config
 * @property {StatusView | undefined} status  of the favourite
 * @property {number | null} available_count
 * @property {string} preferred  short name of the favourite, or ""
 * @property {string} assigned  short name of whoever has the request, or ""
 * @property {boolean | null} is_there  whether they are connected; null: nobody knows
 * @property {string | undefined} acting  the action on its way
 * @property {string | undefined} problem
 */

/**
 * @fires skip-wait  request id
 * @fires find-another  request id
 * @fires complete-request  request id
 * @fires cancel-request  `{request_id, paid}`
 * @fires report-problem  request id
 * @fires close-request  request id
 */
class RequestTracker extends Part {
  #id = "";
  #paid = true;
  /** @type {TrackerProps | null} */
  #props = null;
  /** The offer of a favourite for whom the customer waits although they are busy. @type {string | null} */
  #waits_for = null;
  #plan = h("p", { class: "tracker-plan" });
  #note = h("p", { class: "tracker-note", "data-testid": "tracker-note" });
  #headline = h("span", {});
  #left = h("span", { class: "tracker-left", role: "timer", "aria-live": "off" });
  #presenceText = h("span", {});
  #presence = h(
    "p",
    { class: "tracker-presence", "data-testid": "tracker-presence" },
    h("span", { class: "dot", "aria-hidden": "true" }),
    this.#presenceText,
  );
  #detail = h("p", { class: "tracker-detail", "data-testid": "tracker-detail" });
  #refund = h("p", { class: "tracker-refund" });
  #ring = new CountdownRing();
  #mark = h("div", { class: "tracker-mark", "aria-hidden": "true" });
  #join = h(
    "a",
    { class: "button primary", target: "_blank", rel: "noopener", "data-testid": "join" },
    "Join",
    h("span", { class: "sr-only" }, " the session (opens in a new tab)"),
  );
  #skip = button("skip-wait");
  #wait = button("keep-waiting", "Keep waiting");
  #another = button("find-another");
  #complete = button("complete-session");
  #cancel = button("cancel-request");
  #report = button("report-problem", "Report a problem", "quiet");
  #reported = reportedMark();
  #close = button("close-request", "Close");
  #problem = h("p", { class: "tracker-problem", role: "alert" });
  #timeline = new RequestTimeline();
  #actions = h(
    "div",
    { class: "tracker-actions" },
    this.#join,
    this.#skip,
    this.#wait,
    this.#another,
    this.#complete,
    this.#cancel,
    this.#close,
    this.#report,
    this.#reported,
  );

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
            this.#presence,
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
    this.#wait.addEventListener("click", () => {
      this.#waits_for = this.#props?.request.offer?.id ?? null;
      if (this.#props) this.update(this.#props);
    });
    this.#another.addEventListener("click", () => this.say("find-another", this.#id));
    this.#complete.addEventListener("click", () => this.say("complete-request", this.#id));
    this.#cancel.addEventListener("click", () =>
      this.say("cancel-request", { request_id: this.#id, paid: this.#paid }),
    );
    this.#report.addEventListener("click", () => this.say("report-problem", this.#id));
    this.#close.addEventListener("click", () => this.say("close-request", this.#id));
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    onTick(signal, () => this.#props && this.#drawStory(this.#props));
  }

  /** @param {TrackerProps} props */
  update(props) {
    this.#props = props;
    // Buttons come and go with the state; whoever pressed one that has gone reads on at the card.
    keepFocus(
      this,
      () => this.#update(props),
      () => this,
    );
  }

  /** @param {TrackerProps} props */
  #update(props) {
    const { request, plans, config, acting, problem } = props;
    const plan = plans?.find((one) => one.id === request.plan);
    this.#id = request.id;
    // What was bought, and not what the plan has become since; that is for a server of an earlier version, which does not tell.
    const priced = request.price_cents === undefined ? plan : request;
    this.#paid = priced?.price_cents !== 0;
    setAttribute(this, "data-request-id", request.id);
    setAttribute(this, "data-status", request.status);

    const what = [planName(plans, request.plan), plan ? planLength(plan) : "", priced ? priceText(priced) : ""];
    setText(this.#plan, what.filter(Boolean).join(" · "));
    this.#note.hidden = !request.note;
    setText(this.#note, request.note ?? "");
    this.#drawRing(request, config);
    this.#drawStory(props);

    const is_waiting = request.status === "priority_offered";
    const is_busy = is_waiting && request.offer?.preferred_is_busy === true;
    this.#join.hidden = !request.join_url;
    setAttribute(this.#join, "href", request.join_url ?? null);
    this.#skip.hidden = !is_waiting;
    this.#wait.hidden = !is_busy || this.#waits_for === request.offer?.id;
    this.#another.hidden = request.status !== "accepted";
    this.#complete.hidden = request.status !== "in_progress";
    this.#cancel.hidden = !isCancellable(request);
    this.#report.hidden = !isReportable(request, serverNow());
    this.#reported.hidden = !isReported(request);
    this.#close.hidden = isOpen(request);
    const skip = is_busy ? ["Ask everyone", "Asking everyone…"] : ["Skip the wait", "Skipping…"];
    setText(this.#skip, skip[acting === "skip-wait" ? 1 : 0] ?? "");
    setText(this.#another, acting === "find-another" ? "Asking everyone…" : "Find another mechanic");
    setText(this.#complete, acting === "complete" ? "Completing…" : "Complete session");
    setText(this.#cancel, acting === "cancel" ? "Cancelling…" : this.#paid ? "Cancel and refund" : "Cancel request");
    for (const one of [this.#skip, this.#another, this.#complete, this.#cancel])
      setAttribute(one, "aria-disabled", acting ? "true" : null);
    this.#problem.hidden = !problem;
    setText(this.#problem, problem ?? "");
    this.#timeline.update(request, "customer");
  }

  /**
   * @param {TrackedRequest} request
   * @param {PublicConfig | null} config
   */
  #drawRing(request, config) {
    const { deadline_ms, limit_ms, offer } = request;
    const ends_ms = deadline_ms ?? limit_ms;
    this.#ring.hidden = ends_ms === null;
    this.#mark.hidden = ends_ms !== null;
    setAttribute(this.#mark, "data-status", request.status);
    if (ends_ms === null) return;
    const window_s = offer?.kind === "priority" ? config?.priority_window_s : config?.broadcast_window_s;
    const offered_ms = window_s ? window_s * 1000 : (offer?.expires_in_ms ?? 0);
    this.#ring.update(ends_ms, deadline_ms === null ? (limitLengthMs(request) ?? msLeft(ends_ms)) : offered_ms);
  }

  /** What changes with time alone, too. @param {TrackerProps} props */
  #drawStory({ request, ...know }) {
    const { deadline_ms, limit_ms, offer } = request;
    const story = customerStory(request, {
      ...know,
      left_ms: limit_ms === null ? null : msLeft(limit_ms),
      keeps_waiting: !!offer && this.#waits_for === offer.id,
    });
    setAttribute(this, "data-tone", story.tone);
    setText(this.#headline, story.headline);
    const left_ms = deadline_ms === null ? null : msLeft(deadline_ms);
    // At zero the server decides what comes next, and says so within moments.
    setText(this.#left, left_ms === null ? "" : left_ms > 0 ? ` — ${countdown(left_ms)} left` : " — any moment now");
    this.#presence.hidden = !story.presence;
    setAttribute(this.#presence, "data-there", know.is_there === true ? "yes" : "no");
    setText(this.#presenceText, story.presence);
    this.#detail.hidden = !story.detail;
    setText(this.#detail, story.detail);
    // Where the story already tells of the money, once is enough.
    const refund = refundText(request);
    this.#refund.hidden = !refund || story.detail.endsWith(refund);
    setText(this.#refund, refund);
  }
}
customElements.define("request-tracker", RequestTracker);

/**
 * @param {string} name
 * @param {string} [text]
 * @param {string} [look]
 */
function button(name, text = "", look = "secondary") {
  return h("button", { type: "button", class: look, "data-testid": name }, text);
}

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
