/** The top of both pages: whose page it is, whether it is live, and the way out. */

import { Part, glyph, h, setAttribute, setText } from "./elements.js";

/**
 * @import {AccountView} from "./wire.js"
 * @import {ConnectionState} from "../../../clients/javascript/connection.js"
 */

/** @type {Record<ConnectionState, string>} */
const CONNECTION = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting…",
  offline: "Offline",
  polling: "Every few seconds",
  closed: "Not connected",
};

/** Quietly, for whoever wonders: everything works, a little later. */
const POLLING = "Your network lets no live connection through, so this page asks for news every few seconds.";

/** @fires sign-out */
export class PageHeader extends Part {
  #name = h("span", { class: "who-name" });
  /** On a phone there is no room for a name. */
  #own = h("a", { class: "who-link", href: "/account", "data-testid": "own-account" }, this.#name, h("span", { class: "who-short" }, "Account"));
  #state = h("span", { class: "connection-text" });
  #connection = h(
    "span",
    { class: "connection", "data-testid": "connection-state" },
    h("span", { class: "dot", "aria-hidden": "true" }),
    this.#state,
  );
  #signOut = h("button", { type: "button", class: "quiet", "data-testid": "sign-out" }, "Sign out");
  #stale = h(
    "p",
    { class: "stale" },
    "No live connection just now. What you see may be out of date; we are reconnecting.",
  );
  #account = h("div", { class: "who" }, this.#connection, this.#own, this.#signOut);

  build() {
    const home = h("a", { class: "brand", href: location.pathname }, glyph("logo"), h("span", {}, "Pitlane"));
    if (this.dataset.role) home.append(h("span", { class: "brand-role" }, this.dataset.role));
    this.append(h("div", { class: "bar" }, home, this.#account), this.#stale);
    this.#signOut.addEventListener("click", () => this.say("sign-out"));
  }

  /** @param {{me: AccountView | null | undefined, connection: ConnectionState | null}} props  null: the page has none */
  update({ me, connection }) {
    this.#account.hidden = !me;
    setText(this.#name, me?.name ?? "");
    setAttribute(this.#own, "aria-label", me ? `Your account: ${me.name}` : null);
    this.#connection.hidden = connection === null;
    if (connection === null) return;
    // Shown late, by a transition: most interruptions are over before anybody has read it.
    this.#stale.classList.toggle("shown", !!me && (connection === "reconnecting" || connection === "offline"));
    setText(this.#state, CONNECTION[connection]);
    setAttribute(this.#connection, "title", connection === "polling" ? POLLING : "Connection to Pitlane");
    setAttribute(this.#connection, "data-state", connection);
  }
}
customElements.define("page-header", PageHeader);
