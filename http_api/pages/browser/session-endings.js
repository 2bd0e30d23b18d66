/** How sessions ended that this mechanic had: in the place of the session, one after the other, until each has been read. */

import { Part, h, keyed, setAttribute, setText } from "./elements.js";
import { endingWords } from "./session-words.js";
import { planName } from "./words.js";

/**
 * @import {PlanView} from "./wire.js"
 * @import {SessionEnding} from "./endings.js"
 */

/** @fires read-ending  request id */
class EndedSession extends Part {
  #id = "";
  #title = h("h3", { "data-testid": "ending-title" });
  #text = h("p", { class: "ending-text" });
  #what = h("p", { class: "hint ending-what" });
  #more = h("p", { class: "hint ending-more", "data-testid": "more-endings" });
  #read = h("button", { type: "button", class: "secondary", "data-testid": "read-ending", "data-steady": "long" }, "OK");

  build() {
    setAttribute(this, "data-testid", "session-ending");
    setAttribute(this, "role", "listitem");
    setAttribute(this, "tabindex", "-1");
    this.append(this.#title, this.#text, this.#what, this.#more, this.#read);
    this.#read.addEventListener("click", () => this.say("read-ending", this.#id));
  }

  /** @param {{ending: SessionEnding, plans: readonly PlanView[] | null, more: number}} props  `more`: how many wait behind it */
  update({ ending, plans, more }) {
    const { title, text } = endingWords(ending);
    this.#id = ending.request_id;
    setAttribute(this, "data-request-id", ending.request_id);
    setAttribute(this, "data-how", ending.how);
    setText(this.#title, title);
    setAttribute(this.#title, "id", `ending-${ending.request_id}`);
    // Of several buttons that say "OK" each names what it is about.
    setAttribute(this.#read, "aria-describedby", `ending-${ending.request_id}`);
    setText(this.#text, text);
    setText(this.#what, planName(plans, ending.plan));
    this.#more.hidden = more === 0;
    setText(this.#more, `${more} more to read`);
  }
}
customElements.define("ended-session", EndedSession);

export class SessionEndings extends Part {
  #heading = h("h2", { id: "endings-title", tabindex: "-1" }, "Your last session");
  #list = h("div", { class: "endings", role: "list" });

  build() {
    this.append(h("section", { "aria-labelledby": "endings-title" }, this.#heading, this.#list));
    this.hidden = true;
  }

  /**
   * @param {readonly SessionEnding[]} endings  newest first
   * @param {readonly PlanView[] | null} plans
   */
  update(endings, plans) {
    this.hidden = endings.length === 0;
    if (this.hidden) this.style.minHeight = "";
    // However many wait, they take the room of one. The next gets a button of its own, which a second tap does not reach.
    keyed(
      this.#list,
      endings.slice(0, 1),
      ({ request_id }) => request_id,
      () => new EndedSession(),
      (one, ending) => one.update({ ending, plans, more: endings.length - 1 }),
    );
  }

  /** Whether only the title is seen, so that what is below is on the screen, too. @param {boolean} brief */
  set brief(brief) {
    setAttribute(this, "data-brief", brief);
    if (brief) this.style.minHeight = "";
  }

  /**
   * Take as much more room as has become free above what is below, until all is read: nobody touched anything, so nothing may
   * move under a hand.
   * @param {number} free_px
   */
  fill(free_px) {
    if (free_px > 0 && !this.hidden) this.style.minHeight = `${this.offsetHeight + free_px}px`;
  }

  /** Where to read on when the session has gone; null: there is nothing to read. */
  get first() {
    return this.hidden ? null : /** @type {HTMLElement | null} */ (this.#list.firstElementChild);
  }
}
customElements.define("session-endings", SessionEndings);
