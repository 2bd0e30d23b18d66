/** What became of the payment, for somebody who has just come back from the payment page. */

import { Part, glyph, h, setAttribute, setText } from "./elements.js";

/** @import {CheckoutReturnState} from "./state.js" */

/** @type {Record<CheckoutReturnState["phase"], [title: string, text: string]>} */
const WORDS = {
  confirming: ["Confirming your payment…", "This usually takes a moment. You can stay on this page."],
  slow: [
    "Your payment is not confirmed yet",
    "Some ways of paying take longer. Your request starts by itself as soon as the payment arrives.",
  ],
  expired: ["That checkout has expired", "Nothing was charged. Choose a plan to start again."],
  failed: [
    "The payment did not go through",
    "No session was booked. Choose a plan to try again, or another way of paying.",
  ],
  left: ["You left the checkout", "Nothing was charged. Your choice is still here, whenever you want to go on."],
};

/**
 * @fires check-again
 * @fires dismiss-return
 */
export class CheckoutReturn extends Part {
  #title = h("p", { class: "prompt-title" });
  #text = h("p", {});
  #again = h("button", { type: "button", class: "secondary", "data-testid": "checkout-check" }, "Check again");
  #close = h("button", { type: "button", class: "quiet" }, "Close");
  #glyph = glyph("clock");

  build() {
    setAttribute(this, "data-testid", "checkout-return");
    this.append(
      h(
        "div",
        { class: "prompt" },
        this.#glyph,
        h("div", { class: "prompt-words" }, this.#title, this.#text),
        h("div", { class: "prompt-actions" }, this.#again, this.#close),
      ),
    );
    this.#again.addEventListener("click", () => this.say("check-again"));
    this.#close.addEventListener("click", () => this.say("dismiss-return"));
    this.hidden = true;
  }

  /** @param {CheckoutReturnState | null} returned */
  update(returned) {
    this.hidden = !returned;
    if (!returned) return;
    const [title, text] = WORDS[returned.phase];
    setAttribute(this, "data-phase", returned.phase);
    setAttribute(
      this.#glyph,
      "class",
      `glyph glyph-${returned.phase === "confirming" ? "spinner" : returned.phase === "failed" ? "info" : "clock"}`,
    );
    setText(this.#title, title);
    setText(this.#text, returned.problem ?? text);
    this.#again.hidden = returned.phase !== "slow";
    this.#close.hidden = returned.phase === "confirming";
  }
}
customElements.define("checkout-return", CheckoutReturn);
