/** Open offers. Those who asked for this mechanic come first; but nothing moves under a hand. */

import { Part, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { OfferCard } from "./offer-card.js";
import { steadyOrder } from "./offer-order.js";
import { OutOfSight } from "./seen-offers.js";
import { NearHand, keepFocus } from "./steady.js";

/** @import {OfferProps} from "./offer-card.js" */

/**
 * @typedef {object} Situation
 * @property {boolean | null} on_duty
 * @property {boolean} in_session
 * @property {boolean} live
 * @property {boolean} on_break
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
  /** @type {OutOfSight | null} */
  #outOfSight = null;
  #list = h("div", { class: "offers", role: "list" });
  #empty = h("div", { class: "empty" });
  #emptyTitle = h("p", { class: "empty-title" });
  #emptyText = h("p", {});
  #count = h("span", { class: "count" });
  #heading = h("h2", { id: "offers-title", tabindex: "-1" }, "Offers ", this.#count);
  #hintCount = h("span", {});
  #hintWord = h("span", { class: "hint-word" });
  #hint = h(
    "button",
    { type: "button", class: "primary small", "data-testid": "new-offers", hidden: true },
    this.#hintCount,
    this.#hintWord,
  );
  #reason = h("p", { id: "offers-reason", class: "offers-reason", "data-testid": "offers-reason" });

  build() {
    this.#empty.append(glyph("bell"), this.#emptyTitle, this.#emptyText);
    this.append(
      h(
        "section",
        { "aria-labelledby": "offers-title" },
        h("div", { class: "offers-head" }, this.#heading),
        this.#reason,
        this.#empty,
        this.#list,
      ),
    );
    this.#hint.addEventListener("click", () => this.#showNext());
    this.#outOfSight = new OutOfSight(this.#list, () => this.#drawHint());
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    this.#hand = new NearHand(this.#list, [this, this.#hint], signal, () => this.#draw(false));
  }

  /**
   * @param {readonly OfferProps[]} offers  in the right order
   * @param {Situation} situation
   */
  update(offers, situation) {
    const { reason, in_session } = situation;
    const open = offers.filter(({ offer }) => !offer.ended).length;
    this.#count.hidden = open === 0;
    setText(this.#count, String(open));
    // That the connection is lost, the header says where it moves nothing; here it is only what the buttons are described by.
    this.#reason.hidden = !in_session || open === 0;
    setText(this.#reason, reason);
    const [title, text] = emptyWords(situation);
    setText(this.#emptyTitle, title);
    setText(this.#emptyText, text);
    this.#offers = offers;
    this.#draw(this.#hand?.isNear ?? false);
  }

  /** Put everything where it belongs, and go to the first offer that the hint speaks of. */
  #showNext() {
    const { fresh, more } = this.#unseen();
    this.#draw(false);
    const next = fresh[0] ?? more[0];
    if (next) this.showOffer(next);
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

  /** The button that leads to what is out of sight; it has its place where it is always seen. */
  get hint() {
    return this.#hint;
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
    this.#drawHint();
  }

  /** Ids of open offers, in the right order. `fresh`: nobody has looked at them; `more`: they are only out of sight. */
  #unseen() {
    const open = this.#offers.filter(({ offer }) => !offer.ended).map(({ offer }) => offer.offer_id);
    const sights = new Map(open.map((id) => [id, this.#outOfSight?.of(this.#card(id)) ?? null]));
    return {
      fresh: open.filter((id) => this.#late.has(id) || sights.get(id) === "never seen"),
      more: open.filter((id) => sights.get(id) !== null),
    };
  }

  #drawHint() {
    const { fresh, more } = this.#unseen();
    setAttribute(this.#hint, "class", fresh.length ? "primary small" : "secondary small");
    const count = fresh.length || more.length;
    setText(this.#hintCount, `${count} ${fresh.length ? "new" : "more"}`);
    setText(this.#hintWord, count === 1 ? " offer" : " offers");
    keepFocus(
      this.#hint,
      () => (this.#hint.hidden = count === 0),
      () => this.#heading,
    );
  }
}
customElements.define("offer-list", OfferList);

/**
 * @param {Situation} now
 * @returns {[title: string, text: string]}
 */
function emptyWords({ on_duty, in_session, live, on_break }) {
  if (!live) return ["No connection", "Offers appear here as soon as it is back."];
  if (in_session)
    return ["You are in a session", "Open requests come again when it is done. Whoever asks for you reaches you all the same."];
  if (on_break) return ["You are on a break", "Offers come again by themselves when it ends."];
  if (on_duty === false) return ["You are off duty", "Go on duty to get offers from everyone."];
  return ["Waiting for offers", "Offers appear by themselves. The first to accept gets the session."];
}

/**
 * What has left the page's state, as it stays until nothing is near it.
 * @param {OfferProps} props
 * @returns {OfferProps}
 */
const gone = ({ offer, ...props }) => ({ ...props, offer: { ...offer, ended: offer.ended ?? "answered" } });
