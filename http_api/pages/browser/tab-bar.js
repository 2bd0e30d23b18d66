/** The app's three screens, within reach of the thumb. They are links: the way back is the browser's own. */

import { Part, glyph, h, setAttribute, setText } from "./elements.js";

/** @typedef {"offers" | "days" | "settings"} Screen */

/** @type {readonly [Screen, icon: string, name: string][]} */
const TABS = [
  ["offers", "bell", "Offers"],
  ["days", "clock", "Your days"],
  ["settings", "wrench", "Settings"],
];

/**
 * The screen that an address names; an address that names an offer means the offers.
 * @param {string} hash
 * @returns {Screen}
 */
export function screenOf(hash) {
  return TABS.map(([screen]) => screen).find((screen) => hash === `#${screen}`) ?? "offers";
}

/** @param {string} hash */
export const offerOf = (hash) => (hash.startsWith("#offer-") ? hash.slice("#offer-".length) : null);

export class TabBar extends Part {
  #count = h("span", { class: "count", "aria-hidden": "true" });
  #countSaid = h("span", { class: "sr-only" });
  #links = new Map(
    TABS.map(([screen, icon, name]) => [
      screen,
      h("a", { href: `#${screen}`, "data-testid": `tab-${screen}` }, glyph(icon), h("span", {}, name)),
    ]),
  );

  build() {
    this.#links.get("offers")?.append(this.#count, this.#countSaid);
    this.append(h("nav", { "aria-label": "Screens" }, ...this.#links.values()));
  }

  /** @param {{screen: Screen, offers: number}} props */
  update({ screen, offers }) {
    for (const [name, link] of this.#links) setAttribute(link, "aria-current", name === screen ? "page" : null);
    this.#count.hidden = offers === 0;
    setText(this.#count, String(offers));
    setText(this.#countSaid, offers ? `, ${offers} open` : "");
  }
}
customElements.define("tab-bar", TabBar);
