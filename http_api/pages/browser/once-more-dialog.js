/** "You are already waiting for John": see to the request that there is, or book once more? Answered by a promise. */

import { closeOnBackdrop } from "./availability-modal.js";
import { Part, h, setText } from "./elements.js";

/**
 * @typedef {object} Question
 * @property {string} title
 * @property {string} text
 * @property {string} again  what the button says that books once more
 */
/** null: neither of both. @typedef {"open" | "again" | null} Wish */

export class OnceMoreDialog extends Part {
  #title = h("h2", { id: "once-more-title" });
  #text = h("p", { id: "once-more-text" });
  #open = h(
    "button",
    { type: "button", class: "primary wide", autofocus: true, "data-testid": "once-more-open", "data-steady": true },
    "Open that request",
  );
  #again = h("button", {
    type: "button",
    class: "secondary wide",
    "data-testid": "once-more-again",
    "data-steady": true,
  });
  #cancel = h(
    "button",
    { type: "button", class: "quiet wide", "data-testid": "once-more-cancel", "data-steady": true },
    "Cancel",
  );
  #dialog = h("dialog", {
    class: "modal",
    "aria-labelledby": "once-more-title",
    "aria-describedby": "once-more-text",
    "data-testid": "once-more-dialog",
  });
  /** @type {((wish: Wish) => void) | null} */
  #answer = null;

  build() {
    this.#dialog.append(
      h(
        "div",
        { class: "modal-inner" },
        // A live region of its own: the request may move on while it is being read about, and behind a dialog the page is silent.
        h("div", { class: "modal-words", role: "status" }, this.#title, this.#text),
        h("div", { class: "choices" }, this.#open, this.#again, this.#cancel),
      ),
    );
    this.append(this.#dialog);
    this.#open.addEventListener("click", () => this.#settle("open"));
    this.#again.addEventListener("click", () => this.#settle("again"));
    this.#cancel.addEventListener("click", () => this.#settle(null));
    // It comes a moment after the closing: by then the next question may be open.
    this.#dialog.addEventListener("close", () => this.#dialog.open || this.#settle(null));
    closeOnBackdrop(this.#dialog, () => this.#settle(null));
  }

  /**
   * @param {Question} question
   * @returns {Promise<Wish>}
   */
  ask(question) {
    this.#settle(null);
    this.update(question);
    this.#dialog.showModal();
    return new Promise((resolve) => (this.#answer = resolve));
  }

  /** Ask the same in other words: what it is about has changed. @param {Question} question */
  update({ title, text, again }) {
    setText(this.#title, title);
    setText(this.#text, text);
    setText(this.#again, again);
  }

  /** Take the question back. */
  dismiss() {
    this.#settle(null);
  }

  /** @param {Wish} wish */
  #settle(wish) {
    const settle = this.#answer;
    this.#answer = null;
    // Before the answer is heard, so that the focus is back where it was before it goes on from there.
    if (this.#dialog.open) this.#dialog.close();
    settle?.(wish);
  }
}
customElements.define("once-more-dialog", OnceMoreDialog);
