/** One offer: what, for whom, how long it stays, and two answers. Large for those who asked for this mechanic. */

import { msLeft, onTick } from "./clock.js";
import { CountdownRing } from "./countdown-ring.js";
import { Part, glyph, h, setAttribute, setText } from "./elements.js";
import { keepFocus } from "./steady.js";
import { DECLINE_REASONS, countdown, planLength, planName, priceText, withdrawnText } from "./words.js";

/**
 * @import {PublicConfig, PlanView} from "./wire.js"
 * @import {TrackedOffer} from "./offers.js"
 */

/**
 * @typedef {object} OfferProps
 * @property {TrackedOffer} offer
 * @property {readonly PlanView[] | null} plans
 * @property {PublicConfig | null} config
 * @property {boolean} may_accept
 * @property {boolean} may_decline
 * @property {boolean} in_session
 */

/**
 * @fires accept-offer  offer id
 * @fires decline-offer  `{offer_id, reason}`
 * @fires undo-decline  offer id
 */
export class OfferCard extends Part {
  #id = "";
  #deadline_ms = 0;
  #kind = h("p", { class: "offer-kind" });
  #kindText = h("span", {});
  #title = h("h3", {});
  #price = h("span", { class: "offer-price", "data-testid": "offer-price" });
  #who = h("span", { class: "offer-who" });
  #ring = new CountdownRing();
  #left = h("span", { class: "offer-left", "aria-hidden": "true" });
  #leftSaid = h("span", { class: "sr-only" });
  #accept = button("primary", "accept");
  #decline = button("secondary", "decline");
  #actions = h("div", { class: "offer-actions" }, this.#accept, this.#decline);
  #undo = button("secondary", "undo-decline");
  #reasons = h("div", { class: "reasons", role: "group", "aria-label": "Why? You need not say" });
  #declined = h(
    "div",
    { class: "offer-declined", "data-testid": "declined" },
    // Where the buttons were that it replaces: below the reasons it would be under the tabs, and there is little time.
    h("div", { class: "declined-head" }, h("p", {}, "Declined."), this.#undo),
    h("p", {}, "Five seconds to undo. You may say why: the customer does not see it."),
    this.#reasons,
  );
  /** In the customer's words. */
  #trouble = h("p", { class: "trouble", "data-testid": "customer-note" });
  #note = h("p", { class: "offer-note", "data-testid": "offer-note" });
  #later = h(
    "p",
    { class: "offer-later", "data-testid": "offer-later", hidden: true },
    "You can take it when your session is done; its time runs on.",
  );

  build() {
    setAttribute(this, "data-testid", "offer-card");
    setAttribute(this, "role", "listitem");
    setAttribute(this, "tabindex", "-1");
    setText(this.#undo, "Undo");
    this.#kind.append(glyph("heart"), this.#kindText);
    for (const reason of DECLINE_REASONS) {
      const choice = h("button", { type: "button", class: "secondary small", "data-steady": true }, reason);
      choice.addEventListener("click", () => this.say("decline-offer", { offer_id: this.#id, reason }));
      this.#reasons.append(choice);
    }
    this.append(
      h(
        "div",
        { class: "offer-top" },
        h(
          "div",
          { class: "offer-words" },
          this.#kind,
          this.#title,
          h("p", { class: "offer-what" }, this.#price, this.#who, this.#left, this.#leftSaid),
        ),
        this.#ring,
      ),
      this.#actions,
      // In the place of the buttons once the offer has ended, and below them before: they keep their place.
      this.#note,
      this.#later,
      this.#declined,
      // Below the buttons, where however long it is they are on the screen.
      this.#trouble,
    );
    this.#accept.addEventListener("click", () => this.say("accept-offer", this.#id));
    this.#decline.addEventListener("click", () => this.say("decline-offer", { offer_id: this.#id, reason: null }));
    this.#undo.addEventListener("click", () => this.say("undo-decline", this.#id));
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    onTick(signal, () => this.#drawLeft());
  }

  /** @param {OfferProps} props */
  update(props) {
    // What answers is replaced by what takes the answer back, and the other way round.
    keepFocus(
      this,
      () => this.#update(props),
      () => (this.#declined.hidden ? (this.#actions.hidden ? this : this.#decline) : this.#undo),
    );
  }

  /** @param {OfferProps} props */
  #update({ offer, plans, config, may_accept, may_decline, in_session }) {
    this.#id = offer.offer_id;
    this.#deadline_ms = offer.deadline_ms;
    const priority = offer.kind === "priority";
    setAttribute(this, "data-offer-id", offer.offer_id);
    setAttribute(this, "data-request-id", offer.request_id);
    setAttribute(this, "data-kind", offer.kind);
    setAttribute(this, "data-ended", offer.ended);
    setAttribute(this, "data-declining", offer.declining !== null);
    this.#kind.hidden = !priority;
    setText(this.#kindText, "Asked for you");
    const what = `${planName(plans, offer.plan)} · ${planLength(offer)}`;
    setText(this.#title, priority ? offer.customer_name : what);
    // Of twenty buttons that say "Accept" each names its offer.
    setAttribute(this.#title, "id", `title-${offer.offer_id}`);
    setAttribute(this.#who, "id", `who-${offer.offer_id}`);
    const named = `title-${offer.offer_id} who-${offer.offer_id}`;
    // What is on its way needs no reason why it could not be.
    setAttribute(this.#accept, "aria-describedby", offer.pending ? named : `${named} offers-reason`);
    setAttribute(this.#decline, "aria-describedby", named);
    setText(this.#who, priority ? what : offer.customer_name);
    setText(this.#price, priceText(offer));
    this.#trouble.hidden = !offer.note;
    setText(this.#trouble, offer.note ?? "");
    this.#price.hidden = !this.#price.textContent;
    const window_s = priority ? config?.priority_window_s : config?.broadcast_window_s;
    const is_open = offer.ended === null;
    const is_declining = offer.declining !== null && is_open;
    // What is left of the offer is not what is left to undo.
    this.#ring.hidden = !priority || is_declining;
    this.#left.hidden = priority;
    this.#leftSaid.hidden = !is_open;
    this.#ring.update(offer.deadline_ms, window_s ? window_s * 1000 : offer.expires_in_ms);
    this.#drawLeft();

    this.#actions.hidden = !is_open || is_declining;
    this.#declined.hidden = !is_declining;
    setAttribute(this.#accept, "aria-disabled", offer.pending || !may_accept ? "true" : null);
    setAttribute(this.#decline, "aria-disabled", offer.pending || !may_decline ? "true" : null);
    setText(this.#accept, offer.pending === "accept" ? "Accepting…" : "Accept");
    setText(this.#decline, offer.pending === "decline" ? "Declining…" : "Decline");
    for (const choice of this.#reasons.children)
      setAttribute(choice, "aria-pressed", String(choice.textContent === offer.declining?.reason));
    // It keeps its place afterwards: a session may end while a hand is on another card.
    if (in_session) this.#later.hidden = false;
    setAttribute(this.#later, "data-past", !in_session || !is_open);
    const note = offer.ended ? (offer.problem ?? withdrawnText(offer.ended, offer.by_you)) : offer.problem;
    this.#note.hidden = !note;
    setText(this.#note, note ?? "");
  }

  #drawLeft() {
    const left_ms = msLeft(this.#deadline_ms);
    setText(this.#left, `${countdown(left_ms)} left`);
    setAttribute(this.#left, "data-soon", left_ms < 60_000);
    // Minutes only, for those who listen: every second would be a new text for them to stumble over.
    setText(
      this.#leftSaid,
      left_ms > 60_000 ? `About ${Math.round(left_ms / 60_000)} min left` : "Less than a minute left",
    );
  }
}
customElements.define("offer-card", OfferCard);

/**
 * @param {string} look
 * @param {string} name
 */
function button(look, name) {
  return h("button", { type: "button", class: look, "data-testid": name, "data-steady": true });
}
