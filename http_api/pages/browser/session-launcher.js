/** SessionLauncher: for whom, which plan, and on to the checkout. */

import { Part, bringIntoView, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { availableText, checkoutText, notTakenText, planLength, priceText, shortName, takesPlan } from "./words.js";

/**
 * @import {PlanView, RoutingType, StatusView} from "./wire.js"
 * @import {CheckoutProgress} from "./state.js"
 */

/** Of the server's, which counts no more than a browser does. */
const NOTE_LEN_MAX = 500;

/** One plan of the radio group. @fires plan-chosen */
class PlanOption extends Part {
  #radio = h("input", { type: "radio", name: "plan" });
  #name = h("span", { class: "plan-name" });
  #dash = h("span", { class: "sr-only" });
  #price = h("span", { class: "plan-price" });
  #length = h("span", { class: "plan-length" });
  #reason = h("span", { class: "plan-reason" });

  build() {
    setAttribute(this, "data-testid", "plan");
    // Read in order this is the flow's own line: "Quick Chat - $9.99 (10 min text)", "Free Diagnostic (First-time only)".
    this.append(
      h(
        "label",
        {},
        this.#radio,
        h("span", { class: "plan-words" }, this.#name, this.#dash, this.#price, " ", this.#length, " ", this.#reason),
      ),
    );
    this.#radio.addEventListener("change", () => this.say("plan-chosen", this.#radio.value));
  }

  /** @param {{plan: PlanView, chosen: boolean, locked: boolean, not_taken_by: string | null}} props */
  update({ plan, chosen, locked, not_taken_by }) {
    setAttribute(this, "data-plan-id", plan.id);
    this.#radio.value = plan.id;
    this.#radio.checked = chosen;
    const possible = plan.eligible && not_taken_by === null;
    this.#radio.disabled = !possible || locked;
    setAttribute(this, "data-unavailable", !possible);
    setText(this.#name, plan.name);
    const free = plan.price_cents === 0;
    setText(this.#dash, free ? "" : " - ");
    setText(this.#price, free ? "" : priceText(plan));
    setAttribute(this.#price, "data-free", free);
    setText(this.#length, plan.first_time_only ? `(First-time only) ${planLength(plan)}` : `(${planLength(plan)})`);
    const not_taken = not_taken_by === null ? "" : notTakenText(not_taken_by, plan);
    setText(this.#reason, plan.eligible ? not_taken : "You have already used your free diagnostic.");
  }
}
customElements.define("plan-option", PlanOption);

/**
 * @fires plan-chosen  plan id
 * @fires note-written  text
 * @fires clear-favorite
 * @fires checkout
 * @fires reload-plans
 */
export class SessionLauncher extends Part {
  #bannerText = h("span", {});
  #clear = h("button", { type: "button", class: "quiet small", "data-testid": "favorite-clear" }, "Clear");
  #banner = h(
    "div",
    { class: "favorite-banner", "data-testid": "favorite-banner" },
    glyph("heart", "❤"),
    " ",
    this.#bannerText,
    this.#clear,
  );
  #anyone = h("p", { class: "anyone" });
  #heading = h("h2", { id: "launcher-title", tabindex: "-1" }, "Book a session");
  #plans = h("div", { class: "plans" });
  #fieldset = h("fieldset", {}, h("legend", {}, "Choose Your Service Plan:"), this.#plans);
  #note = h("textarea", { id: "booking-note", rows: "2", maxlength: String(NOTE_LEN_MAX), "data-testid": "note" });
  #noteField = h(
    "p",
    { class: "field note-field" },
    h("label", { for: "booking-note" }, "What is it about? Car, trouble ", h("span", { class: "optional" }, "(optional)")),
    this.#note,
  );
  #skeleton = h(
    "div",
    { class: "plans", "aria-hidden": "true" },
    ...[1, 2, 3, 4].map(() => h("div", { class: "skeleton plan-skeleton" })),
  );
  #loadProblemText = h("p", {});
  #reload = h("button", { type: "button", class: "secondary" }, "Try again");
  #loadProblem = h("div", { class: "notice notice-bad", role: "alert" }, this.#loadProblemText, this.#reload);
  #summary = h("p", { class: "checkout-summary" });
  #checkout = h("button", { type: "submit", class: "primary", "data-testid": "checkout" });
  #problem = h("p", { class: "checkout-problem", role: "alert", "data-testid": "checkout-problem" });
  #form = h("form", { novalidate: true });

  build() {
    setAttribute(this, "data-testid", "session-launcher");
    this.#form.append(
      this.#loadProblem,
      this.#skeleton,
      this.#fieldset,
      this.#noteField,
      h("div", { class: "checkout-row" }, this.#summary, this.#checkout),
      this.#problem,
    );
    this.append(
      h(
        "section",
        { class: "panel", "aria-labelledby": "launcher-title" },
        this.#heading,
        this.#banner,
        this.#anyone,
        this.#form,
      ),
    );
    this.#clear.addEventListener("click", () => {
      this.say("clear-favorite");
      this.#heading.focus({ preventScroll: true });
    });
    this.#reload.addEventListener("click", () => this.say("reload-plans"));
    this.#note.addEventListener("input", () => this.say("note-written", this.#note.value));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.say("checkout");
    });
    this.addEventListener("animationend", () => this.classList.remove("pulse"));
  }

  /**
   * The props of the flow, and how far the checkout is.
   * @param {object} props
   * @param {string | null} props.preferredMechanicName  null: nobody in particular
   * @param {StatusView | undefined} props.preferredStatus  which sessions they take, if that is known
   * @param {RoutingType} props.routingType
   * @param {number | null} props.availableMechanics
   * @param {readonly PlanView[] | null} props.plans
   * @param {string | null} props.plans_problem
   * @param {string | null} props.chosen
   * @param {string} props.note
   * @param {CheckoutProgress} props.checkout
   */
  update({
    preferredMechanicName,
    preferredStatus,
    routingType,
    availableMechanics,
    plans,
    plans_problem,
    chosen,
    note,
    checkout,
  }) {
    const priority = routingType === "priority_broadcast" && preferredMechanicName !== null;
    this.#banner.hidden = !priority;
    setText(this.#bannerText, `Booking with ${preferredMechanicName} (Priority)`);
    setAttribute(this.#clear, "aria-label", `Clear: book any mechanic instead of ${preferredMechanicName}`);
    this.#anyone.hidden = priority;
    const count = availableMechanics === null ? "" : ` ${availableText(availableMechanics)}.`;
    setText(this.#anyone, `Any available mechanic: the first to accept takes your session.${count}`);

    const name = priority ? shortName(preferredMechanicName) : null;
    const busy = checkout.phase !== "idle";
    this.#skeleton.hidden = plans !== null || plans_problem !== null;
    this.#fieldset.hidden = plans === null;
    this.#noteField.hidden = plans === null;
    // Only where it differs: setting it moves the caret of whoever is writing.
    if (this.#note.value !== note) this.#note.value = note;
    this.#note.readOnly = busy;
    this.#loadProblem.hidden = plans_problem === null;
    setText(this.#loadProblemText, plans_problem ?? "");
    keyed(
      this.#plans,
      [...(plans ?? [])],
      (plan) => plan.id,
      () => new PlanOption(),
      (option, plan) => {
        const not_taken_by = name && !takesPlan(preferredStatus, plan) ? name : null;
        option.update({ plan, chosen: plan.id === chosen, locked: busy, not_taken_by });
      },
    );

    const plan = plans?.find((one) => one.id === chosen);
    const nothing = name ? `${name} takes none of these sessions now. Clear the choice to book any mechanic.` : "";
    setText(this.#summary, plan ? summaryText(plan) : (plans && nothing) || "\u00a0");
    this.#checkout.disabled = !plan;
    // Not `disabled` while it works: that would throw the keyboard's focus away. The page ignores further clicks.
    setAttribute(this.#checkout, "aria-disabled", busy ? "true" : null);
    setText(this.#checkout, checkoutText(plan, checkout.phase));
    setText(this.#problem, checkout.problem ?? "");
  }

  /** Scroll here, take the focus and pulse once, so that the eye finds where to go on. */
  callAttention() {
    bringIntoView(this, this.#heading);
    this.classList.remove("pulse");
    // Reading a layout property lets the removal take effect, so that the animation starts anew.
    void this.offsetWidth;
    this.classList.add("pulse");
  }
}
customElements.define("session-launcher", SessionLauncher);

/** @param {PlanView} plan */
function summaryText(plan) {
  return plan.price_cents === 0
    ? `${plan.name}: nothing to pay.`
    : `${plan.name}: ${priceText(plan)}, paid securely with Stripe.`;
}
