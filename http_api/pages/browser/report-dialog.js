/** "Report a problem": what was wrong with a session, in the customer's words. */

import { closeOnBackdrop } from "./availability-modal.js";
import { Part, focusIfNowhere, h, setAttribute, setText } from "./elements.js";

/** Of the server's, which counts no more than a browser does. */
const REASON_LEN_MAX = 200;

/** @fires send-report  `{request_id, reason}` */
export class ReportDialog extends Part {
  #id = "";
  #busy = false;
  /** @type {() => HTMLElement | null} */
  #home = () => null;
  #text = h("p", { id: "report-text" });
  #reason = h("textarea", {
    id: "report-reason",
    rows: "4",
    maxlength: String(REASON_LEN_MAX),
    autofocus: true,
    "aria-describedby": "report-left report-problem",
    "data-testid": "report-reason",
  });
  #left = h("span", { id: "report-left", class: "report-left" });
  #problem = h("p", { id: "report-problem", class: "field-problem", role: "alert", "data-testid": "report-problem-text" });
  #send = h("button", { type: "submit", class: "primary wide", "data-testid": "report-send" });
  #cancel = h("button", { type: "button", class: "quiet wide", "data-testid": "report-cancel" }, "Cancel");
  #dialog = h("dialog", {
    class: "modal",
    "aria-labelledby": "report-title",
    "aria-describedby": "report-text",
    "data-testid": "report-dialog",
  });

  build() {
    const form = h(
      "form",
      { class: "modal-inner", novalidate: true },
      h("h2", { id: "report-title" }, "Report a problem"),
      this.#text,
      h(
        "div",
        { class: "field" },
        h("label", { for: "report-reason" }, "What was wrong?"),
        this.#reason,
        this.#left,
        this.#problem,
      ),
      h("div", { class: "choices" }, this.#send, this.#cancel),
    );
    this.#dialog.append(form);
    this.append(this.#dialog);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#reason.addEventListener("input", () => this.#draw(""));
    this.#cancel.addEventListener("click", () => this.dismiss());
    closeOnBackdrop(this.#dialog, () => this.dismiss());
    // The button that would get the focus back may have gone meanwhile.
    this.#dialog.addEventListener("close", () => this.#dialog.open || focusIfNowhere(this.#home()));
  }

  /**
   * @param {string} request_id
   * @param {string} mechanic  the name
   * @param {() => HTMLElement | null} home  where to read on when it is closed
   */
  ask(request_id, mechanic, home) {
    this.#home = home;
    // What was written and not sent is still there when the dialog is opened again for the same session.
    if (request_id !== this.#id) this.#reason.value = "";
    this.#id = request_id;
    this.#busy = false;
    setText(this.#text, `Our team reads what you write about your session with ${mechanic}; ${mechanic} does not.`);
    this.#draw("");
    this.#dialog.showModal();
  }

  /**
   * It did not get through: say why, and let it be tried again.
   * @param {string} request_id
   * @param {string} problem
   */
  fail(request_id, problem) {
    if (request_id !== this.#id) return;
    this.#busy = false;
    this.#draw(problem);
  }

  /** It is done, or no longer wanted. */
  dismiss() {
    if (this.#dialog.open) this.#dialog.close();
  }

  /** Nobody is to read what somebody else has written. */
  forget() {
    this.dismiss();
    this.#id = "";
  }

  #submit() {
    if (this.#busy) return;
    const reason = this.#reason.value.trim();
    if (!reason) {
      this.#draw("Please write a few words: without them nobody can help.");
      this.#reason.focus();
      return;
    }
    this.#busy = true;
    this.#draw("");
    this.say("send-report", { request_id: this.#id, reason });
  }

  /** @param {string} problem */
  #draw(problem) {
    const left = REASON_LEN_MAX - this.#reason.value.length;
    setText(this.#left, left === 1 ? "1 character left" : `${left} characters left`);
    setText(this.#problem, problem);
    setAttribute(this.#reason, "aria-invalid", problem ? "true" : null);
    this.#reason.readOnly = this.#busy;
    setText(this.#send, this.#busy ? "Sending…" : "Send report");
    setAttribute(this.#send, "aria-disabled", this.#busy ? "true" : null);
  }
}
customElements.define("report-dialog", ReportDialog);
