/** "Are you sure?", answered by a promise. */

import { closeOnBackdrop } from "./availability-modal.js";
import { Part, h, setAttribute, setText } from "./elements.js";

export class ConfirmDialog extends Part {
  #title = h("h2", { id: "confirm-title" });
  #text = h("p", { id: "confirm-text" });
  #yes = h("button", { type: "button", "data-testid": "confirm-yes", "data-steady": true });
  #no = h("button", {
    type: "button",
    class: "secondary wide",
    autofocus: true,
    "data-testid": "confirm-no",
    "data-steady": true,
  });
  #dialog = h("dialog", {
    class: "modal",
    "aria-labelledby": "confirm-title",
    "aria-describedby": "confirm-text",
    "data-testid": "confirm-dialog",
  });
  /** @type {((answer: boolean) => void) | null} */
  #answer = null;

  build() {
    this.#dialog.append(
      h("div", { class: "modal-inner" }, this.#title, this.#text, h("div", { class: "choices" }, this.#yes, this.#no)),
    );
    this.append(this.#dialog);
    this.#yes.addEventListener("click", () => this.#settle(true));
    this.#no.addEventListener("click", () => this.#settle(false));
    // It comes a moment after the closing: by then the next question may be open.
    this.#dialog.addEventListener("close", () => this.#dialog.open || this.#settle(false));
    closeOnBackdrop(this.#dialog, () => this.#settle(false));
  }

  /**
   * @param {object} question
   * @param {string} question.title
   * @param {string} question.text
   * @param {string} question.yes
   * @param {string} question.no
   * @param {boolean} [question.takes_away]  whether a yes ends what was wanted; it then looks like it
   * @returns {Promise<boolean>}
   */
  ask({ title, text, yes, no, takes_away = true }) {
    this.#settle(false);
    setAttribute(this.#yes, "class", takes_away ? "danger wide" : "primary wide");
    setText(this.#title, title);
    setText(this.#text, text);
    setText(this.#yes, yes);
    setText(this.#no, no);
    this.#dialog.showModal();
    return new Promise((resolve) => (this.#answer = resolve));
  }

  /** Take the question back: what it asked about has changed. */
  dismiss() {
    this.#settle(false);
  }

  /** @param {boolean} answer */
  #settle(answer) {
    const settle = this.#answer;
    this.#answer = null;
    if (this.#dialog.open) this.#dialog.close();
    settle?.(answer);
  }
}
customElements.define("confirm-dialog", ConfirmDialog);
