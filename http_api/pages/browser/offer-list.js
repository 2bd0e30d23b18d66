/** Open offers, the priority ones first, each with the time that remains and two answers. */

import { msLeft, onTick } from "./clock.js";
import { CountdownRing } from "./countdown-ring.js";
import { Part, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { countdown, planLength, planName, withdrawnText } from "./words.js";

/**
 * @import {PublicConfig, PlanView} from "./wire.js"
 * @import {TrackedOffer} from "./requests.js"
 */

/**
 * @typedef {object} OfferProps
 * @property {TrackedOffer} offer
 * @property {readonly PlanView[] | null} plans
 * @property {PublicConfig | null} config
 * @property {boolean} live  answers can be sent
 */

/**
 * @fires accept-offer  offer id
 * @fires decline-offer  offer id
 */
class OfferCard extends Part {
  #id = "";
  #deadline_ms = 0;
  #kind = h("p", { class: "offer-kind" });
  #kindText = h("span", {});
  #customer = h("h3", {});
  #what = h("p", { class: "offer-what" });
  #ring = new CountdownRing();
  #left = h("span", { class: "sr-only" });
  #accept = h("button", { type: "button", class: "primary", "data-testid": "accept" });
  #decline = h("button", { type: "button", class: "secondary", "data-testid": "decline" });
  #actions = h("div", { class: "offer-actions" }, this.#accept, this.#decline);
  #note = h("p", { class: "offer-note", "data-testid": "offer-note" });

  build() {
    setAttribute(this, "data-testid", "offer-card");
    setAttribute(this, "role", "listitem");
    this.#kind.append(glyph("heart"), this.#kindText);
    this.append(
      h(
        "div",
        { class: "offer-top" },
        h("div", { class: "offer-words" }, this.#kind, this.#customer, this.#what, this.#left),
        this.#ring,
      ),
      this.#note,
      this.#actions,
    );
    this.#accept.addEventListener("click", () => this.say("accept-offer", this.#id));
    this.#decline.addEventListener("click", () => this.say("decline-offer", this.#id));
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    onTick(signal, () => this.#drawLeft());
  }

  /** @param {OfferProps} props */
  update({ offer, plans, config, live }) {
    this.#id = offer.offer_id;
    this.#deadline_ms = offer.deadline_ms;
    setAttribute(this, "data-offer-id", offer.offer_id);
    setAttribute(this, "data-kind", offer.kind);
    setAttribute(this, "data-ended", offer.ended);
    const priority = offer.kind === "priority";
    setText(this.#kindText, priority ? `Priority - ${offer.customer_name} asked for you` : "Open to every mechanic");
    setText(this.#customer, offer.customer_name);
    setText(this.#what, `${planName(plans, offer.plan)} · ${planLength(offer)}`);
    const window_s = priority ? config?.priority_window_s : config?.broadcast_window_s;
    this.#ring.hidden = offer.ended !== null;
    this.#ring.update(offer.deadline_ms, window_s ? window_s * 1000 : offer.expires_in_ms);
    this.#drawLeft();

    const busy = offer.pending !== null || !live;
    this.#actions.hidden = offer.ended !== null;
    for (const button of [this.#accept, this.#decline]) setAttribute(button, "aria-disabled", busy ? "true" : null);
    setText(this.#accept, offer.pending === "accept" ? "Accepting…" : "Accept");
    setText(this.#decline, offer.pending === "decline" ? "Declining…" : "Decline");
    const note = offer.ended ? (offer.problem ?? withdrawnText(offer.ended)) : offer.problem;
    this.#note.hidden = !note;
    setText(this.#note, note ?? "");
  }

  #drawLeft() {
    const left_ms = msLeft(this.#deadline_ms);
    // Minutes only, for those who listen: every second would be a new text for them to stumble over.
    setText(
      this.#left,
      left_ms > 60_000 ? `About ${Math.round(left_ms / 60_000)} min left` : `${countdown(left_ms)} left`,
    );
  }
}
customElements.define("offer-card", OfferCard);

export class OfferList extends Part {
  #list = h("div", { class: "offers", role: "list" });
  #empty = h("div", { class: "empty" });
  #emptyTitle = h("p", { class: "empty-title" });
  #emptyText = h("p", {});
  #count = h("span", { class: "count" });

  build() {
    this.#empty.append(glyph("bell"), this.#emptyTitle, this.#emptyText);
    this.append(
      h(
        "section",
        { "aria-labelledby": "offers-title" },
        h("h2", { id: "offers-title" }, "Offers ", this.#count),
        this.#empty,
        this.#list,
      ),
    );
  }

  /**
   * @param {OfferProps[]} offers
   * @param {{on_duty: boolean | null, in_session: boolean}} situation
   */
  update(offers, { on_duty, in_session }) {
    const open = offers.filter(({ offer }) => !offer.ended).length;
    this.#count.hidden = open === 0;
    setText(this.#count, String(open));
    this.#empty.hidden = offers.length > 0;
    this.#list.hidden = offers.length === 0;
    setText(
      this.#emptyTitle,
      in_session ? "You are in a session" : on_duty === false ? "You are off duty" : "Waiting for offers",
    );
    setText(
      this.#emptyText,
      in_session
        ? "Offers come again when it is completed."
        : on_duty === false
          ? "Go on duty to get offers from everyone."
          : "Keep this page open. Offers appear by themselves, and the first to accept gets the session.",
    );
    keyed(
      this.#list,
      offers,
      ({ offer }) => offer.offer_id,
      () => new OfferCard(),
      (card, props) => card.update(props),
    );
  }
}
customElements.define("offer-list", OfferList);
