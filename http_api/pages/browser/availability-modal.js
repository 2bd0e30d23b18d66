/** "Book with John Smith": what can be promised right now, and the three choices. Lives over the page, never leaves it. */

import { Part, glyph, h, setAttribute, setText } from "./elements.js";
import { StatusLine } from "./status-line.js";
import { availableText, notificationNotes, shortName, span, usualAnswerText } from "./words.js";

/**
 * @import {PublicConfig, StatusView, ProviderType} from "./wire.js"
 * @import {AvailabilityModalState} from "./state.js"
 */

/**
 * @fires choose-priority
 * @fires choose-broadcast
 * @fires choose-cancel
 * @fires retry-status
 */
export class AvailabilityModal extends Part {
  #title = h("h2", { id: "availability-title", tabindex: "-1", autofocus: true });
  #status = new StatusLine();
  #skeleton = h("div", { class: "skeleton status-skeleton", "aria-hidden": "true" });
  #problemText = h("p", {});
  #retry = h("button", { type: "button", class: "secondary" }, "Try again");
  #problem = h("div", { class: "notice notice-bad" }, this.#problemText, this.#retry);
  #priorityText = h("span", {});
  #priority = h(
    "button",
    { type: "button", class: "primary wide", "data-testid": "choose-priority" },
    glyph("bolt", "⚡"),
    " ",
    this.#priorityText,
  );
  #count = h("p", { class: "choice-hint", id: "availability-count" });
  #broadcast = h(
    "button",
    {
      type: "button",
      class: "secondary wide",
      "aria-describedby": "availability-count",
      "data-testid": "choose-broadcast",
    },
    "Find Available Mechanic Now",
  );
  #cancel = h("button", { type: "button", class: "quiet wide", "data-testid": "choose-cancel" }, "Cancel");
  #notes = h("div", { class: "modal-notes", id: "availability-notes" });
  #dialog = h("dialog", {
    class: "modal",
    "aria-labelledby": "availability-title",
    "data-testid": "availability-modal",
  });
  /** @type {HTMLElement | null} */
  #opener = null;

  build() {
    setAttribute(this.#status, "data-testid", "modal-status");
    this.#dialog.append(
      h(
        "div",
        { class: "modal-inner" },
        this.#title,
        // A live region of its own: while a dialog is open, the one of the page behind it is silent.
        h("div", { class: "modal-status", role: "status" }, this.#skeleton, this.#status, this.#problem),
        h("div", { class: "choices" }, this.#priority, this.#broadcast, this.#count, this.#cancel),
        h("div", { class: "modal-info" }, glyph("info", "ℹ"), this.#notes),
      ),
    );
    this.append(this.#dialog);
    this.#priority.addEventListener("click", () => this.say("choose-priority"));
    this.#broadcast.addEventListener("click", () => this.say("choose-broadcast"));
    this.#cancel.addEventListener("click", () => this.say("choose-cancel"));
    this.#retry.addEventListener("click", () => this.say("retry-status"));
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.say("choose-cancel");
    });
    // A browser may close the dialog without asking (a second Esc); the state must hear of it all the same. The event comes
    // a moment later: by then the dialog may have been opened again, and is not to be closed.
    this.#dialog.addEventListener("close", () => this.#dialog.open || this.say("choose-cancel"));
    closeOnBackdrop(this.#dialog, () => this.say("choose-cancel"));
  }

  /**
   * @param {object} props
   * @param {AvailabilityModalState | null} props.modal  null: closed
   * @param {{name: string, type: ProviderType} | null} props.mechanic
   * @param {StatusView | undefined} props.status
   * @param {number | null} props.available_count
   * @param {PublicConfig | null} props.config
   */
  update({ modal, mechanic, status, available_count, config }) {
    if (!modal || !mechanic) {
      // What it says stays while it fades.
      if (this.#dialog.open) this.#close();
      return;
    }
    const short = shortName(mechanic.name, mechanic.type);
    const shown = modal.phase === "known" ? status : undefined;
    setText(this.#title, `Book with ${mechanic.name}`);
    this.#skeleton.hidden = modal.phase !== "checking";
    this.#problem.hidden = modal.phase !== "failed";
    setText(this.#problemText, modal.problem ?? "");
    this.#status.hidden = !shown;
    this.#status.update(shown);
    const available = !shown || shown.availability === "available";
    setText(this.#priorityText, available ? `Continue with ${mechanic.name}` : `Notify & Wait for ${short}`);
    this.#priority.disabled = !shown;
    setText(this.#count, available_count === null ? "\u00a0" : availableText(available_count));
    const window = span(config?.priority_window_s ?? 600);
    const notes = shown
      ? [...notificationNotes(short, shown, window), usualAnswerText(short, shown.response)].filter(Boolean)
      : [modal.phase === "checking" ? "Checking…" : "Without their status you can still find another mechanic."];
    this.#notes.replaceChildren(...notes.map((note) => h("p", {}, note)));
    if (!this.#dialog.open) {
      this.#opener = document.activeElement instanceof HTMLElement ? document.activeElement : null;
      this.#dialog.showModal();
    }
  }

  #close() {
    this.#dialog.close();
    // Not every browser focuses a clicked button, so not every browser returns the focus to it.
    this.#opener?.focus({ preventScroll: true });
    this.#opener = null;
  }
}
customElements.define("availability-modal", AvailabilityModal);

/**
 * Call `close` when the visitor presses and releases outside the dialog's content.
 * @param {HTMLDialogElement} dialog  whose content fills it, so that only the backdrop is the dialog itself
 * @param {() => void} close
 */
export function closeOnBackdrop(dialog, close) {
  let pressed_outside = false;
  dialog.addEventListener("pointerdown", (event) => (pressed_outside = event.target === dialog));
  // A drag that starts on text inside and ends outside is a selection, not a wish to leave.
  dialog.addEventListener("click", (event) => pressed_outside && event.target === dialog && close());
}
