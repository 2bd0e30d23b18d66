/** A mechanic's live status: a dot and always the words, so that colour is never the only sign. */

import { onTick, serverNow } from "./clock.js";
import { Part, h, setAttribute, setText } from "./elements.js";
import { availabilityText, lastSeenText } from "./words.js";

/** @import {StatusView} from "./wire.js" */

export class StatusLine extends Part {
  /** @type {StatusView | null} */
  #status = null;
  #text = h("span", { class: "status-text" });
  #seen = h("span", { class: "status-seen", "aria-live": "off" });

  build() {
    this.append(h("span", { class: "dot", "aria-hidden": "true" }), this.#text, " ", this.#seen);
    this.update(null);
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    onTick(signal, () => setText(this.#seen, lastSeenText(this.#status, serverNow())));
  }

  /** @param {StatusView | null | undefined} status */
  update(status) {
    this.#status = status ?? null;
    setAttribute(this, "data-availability", status?.availability ?? "unknown");
    setText(this.#text, availabilityText(status));
    setText(this.#seen, lastSeenText(this.#status, serverNow()));
  }
}
customElements.define("status-line", StatusLine);
