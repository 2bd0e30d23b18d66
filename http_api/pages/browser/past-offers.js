/** What was offered to this mechanic, and what became of it: also what they missed, and why they lost it. */

import { serverNow } from "./clock.js";
import { Part, h, keyed, setAttribute, setText } from "./elements.js";
import { outcomeText } from "./day-words.js";
import { dateAndTime, planName, priceText } from "./words.js";

/**
 * @import {PastOffer, PlanView} from "./wire.js"
 */

class PastOfferLine extends Part {
  #what = h("span", { class: "past-what" });
  #price = h("span", { class: "past-price" });
  #outcome = h("span", { class: "past-outcome" });
  #when = h("time", { class: "hint" });

  build() {
    setAttribute(this, "role", "listitem");
    setAttribute(this, "data-testid", "past-offer");
    this.append(this.#what, this.#price, this.#outcome, this.#when);
  }

  /** @param {{offer: PastOffer, plans: readonly PlanView[] | null}} props */
  update({ offer, plans }) {
    setAttribute(this, "data-outcome", offer.outcome);
    setAttribute(this, "data-kind", offer.kind);
    setText(this.#what, `${planName(plans, offer.plan)} for ${offer.customer_name}`);
    setText(this.#price, priceText(offer));
    setText(this.#outcome, outcomeText(offer));
    setAttribute(this.#when, "datetime", offer.offered_at);
    setText(this.#when, dateAndTime(offer.offered_at, serverNow()));
  }
}
customElements.define("past-offer", PastOfferLine);

/** @fires load-past-offers */
export class PastOffers extends Part {
  #list = h("div", { class: "past-offers", role: "list", "aria-labelledby": "past-title" });
  #note = h("p", { class: "hint" });
  #more = h("button", { type: "button", class: "quiet", "data-testid": "more-past-offers" }, "Show more");

  build() {
    this.append(
      h(
        "section",
        { "aria-labelledby": "past-title" },
        h("h2", { id: "past-title" }, "Past offers"),
        h("div", { class: "panel" }, this.#note, this.#list, this.#more),
      ),
    );
    this.#more.addEventListener("click", () => this.say("load-past-offers"));
  }

  /** @param {{offers: readonly PastOffer[] | null, problem: string | null, more: boolean, plans: readonly PlanView[] | null}} props */
  update({ offers, problem, more, plans }) {
    setText(this.#note, problem ?? (offers === null ? "Loading…" : offers.length ? "" : "No offers have ended yet."));
    this.#note.hidden = !this.#note.textContent;
    this.#more.hidden = !more;
    keyed(
      this.#list,
      [...(offers ?? [])],
      ({ offer_id }) => offer_id,
      () => new PastOfferLine(),
      (line, offer) => line.update({ offer, plans }),
    );
  }
}
customElements.define("past-offers", PastOffers);
