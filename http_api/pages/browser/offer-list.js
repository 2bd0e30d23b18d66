/** Open offers. Those who asked for this mechanic come first; but nothing moves under a hand. */

import { Part, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { OfferCard } from "./offer-card.js";
import { steadyOrder } from "./offer-order.js";
import { NearHand, keepFocus } from "./steady.js";

/** @import {OfferProps} from "./offer-card.js" */

/**
 * @typedef {object} Situation
 * @property {boolean | null} on_duty
 * @property {boolean} in_session
 * @property {string} reason  why offers cannot be accepted now; empty if they can
 */

export class OfferList extends Part {
  /** In the right order. @type {readonly OfferProps[]} */
  #offers = [];
  /** What is on the screen, in its order; also what has gone and only waits for the hand to leave. @type {Map<string, OfferProps>} */
  #shown = new Map();
  /** Ids that came while a hand was near. @type {Set<string>} */
  #late = new Set();
  /** @type {NearHand | null} */
  #hand = null;
  #list = h("div", { class: "offers", role: "list" });
  #empty = h("div", { class: "empty" });
  #emptyTitle = h("p", { class: "empty-title" });
  #emptyText = h("p", {});
  #count = h("span", { class: "count" });
  #heading = h("h2", { id: "offers-title", tabindex: "-1" }, "Offers ", this.#count);
  #news = h("button", { type: "button", class: "primary small", "data-testid": "new-offers" });
  #reason = h("p", { id: "offers-reason", class: "offers-reason", "data-testid": "offers-reason" });

  build() {
    this.#empty.append(glyph("bell"), this.#emptyTitle, this.#emptyText);
    this.append(
      h(
        "section",
        { "aria-labelledby": "offers-title" },
        h("div", { class: "offers-head" }, this.#heading, this.#news),
        this.#reason,
        this.#empty,
        this.#list,
      ),
    );
    this.#news.addEventListener("click", () => this.showNews());
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    this.#hand = new NearHand(this.#list, this, signal, () => this.#draw(false));
  }

  /**
   * @param {readonly OfferProps[]} offers  in the right order
   * @param {Situation} situation
   */
  update(offers, { on_duty, in_session, reason }) {
    const open = offers.filter(({ offer }) => !offer.ended).length;
    this.#count.hidden = open === 0;
    setText(this.#count, String(open));
    this.#reason.hidden = !reason || open === 0;
    setText(this.#reason, reason);
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
          : "Offers appear by themselves. The first to accept gets the session.",
    );
    this.#offers = offers;
    this.#draw(this.#hand?.isNear ?? false);
  }

  /** Put everything where it belongs, and go to what has come while nothing could move. */
  showNews() {
    const first = this.#offers.find(({ offer }) => this.#late.has(offer.offer_id));
    this.#draw(false);
    if (first) this.showOffer(first.offer.offer_id);
    else this.heading.focus({ preventScroll: true });
  }

  /**
   * Bring one offer before the eyes; false if it is not here.
   * @param {string} offer_id
   */
  showOffer(offer_id) {
    const card = this.#card(offer_id);
    card?.scrollIntoView({ block: "center" });
    card?.focus({ preventScroll: true });
    return card !== null;
  }

  /** Where to read on when a card has gone. */
  get heading() {
    return this.#heading;
  }

  /** The cards, for whoever watches what is seen. */
  get cards() {
    return this.#list;
  }

  /** @param {string} offer_id */
  #card(offer_id) {
    return /** @type {HTMLElement | null} */ (this.#list.querySelector(`[data-offer-id="${CSS.escape(offer_id)}"]`));
  }

  /** @param {boolean} hand_near */
  #draw(hand_near) {
    const now = new Map(this.#offers.map((props) => [props.offer.offer_id, props]));
    const order = steadyOrder([...this.#shown.keys()], [...now.keys()], hand_near);
    if (!hand_near) this.#late.clear();
    else for (const id of now.keys()) if (!this.#shown.has(id)) this.#late.add(id);
    this.#shown = new Map(order.map((id) => [id, now.get(id) ?? gone(/** @type {OfferProps} */ (this.#shown.get(id)))]));
    const place = [...this.#list.children].findIndex((card) => card.contains(document.activeElement));
    keepFocus(
      this.#list,
      () =>
        keyed(
          this.#list,
          [...this.#shown.values()],
          ({ offer }) => offer.offer_id,
          () => new OfferCard(),
          (card, props) => card.update(props),
        ),
      () => /** @type {HTMLElement | undefined} */ (this.#list.children[place] ?? this.#list.lastElementChild) ?? this.#heading,
    );
    this.#empty.hidden = this.#shown.size > 0;
    this.#list.hidden = this.#shown.size === 0;
    const news = [...this.#late].filter((id) => now.get(id)?.offer.ended === null).length;
    // Its place is kept: it must not push away what it speaks of.
    setAttribute(this.#news, "data-empty", news === 0);
    setText(this.#news, news === 1 ? "1 new offer" : `${news} new offers`);
  }
}
customElements.define("offer-list", OfferList);

/**
 * What has left the page's state, as it stays until nothing is near it.
 * @param {OfferProps} props
 * @returns {OfferProps}
 */
const gone = ({ offer, ...props }) => ({ ...props, offer: { ...offer, ended: offer.ended ?? "answered" } });
