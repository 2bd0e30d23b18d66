/** Installing the app, where the browser offers that; how to, where it only can be done by hand. */

import { Part, h, setText } from "./elements.js";

/**
 * Not in the types of pages: Chromium's word for "this can be installed".
 * @typedef {Event & {prompt(): Promise<{outcome: string}>}} InstallOffer
 */

export class InstallHint extends Part {
  /** @type {InstallOffer | null} */
  #offer = null;
  #text = h("p", { class: "hint" });
  #button = h("button", { type: "button", class: "secondary", "data-testid": "install" }, "Install the app");

  build() {
    this.append(
      h(
        "section",
        { "aria-labelledby": "install-title" },
        h("h2", { id: "install-title" }, "On your phone"),
        h("div", { class: "panel settings" }, this.#text, this.#button),
      ),
    );
    this.#button.addEventListener("click", () => void this.#install());
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    window.addEventListener(
      "beforeinstallprompt",
      (event) => {
        // Asked for by us, when the person wants it.
        event.preventDefault();
        this.#offer = /** @type {InstallOffer} */ (event);
        this.#draw();
      },
      { signal },
    );
    window.addEventListener("appinstalled", () => ((this.#offer = null), this.#draw()), { signal });
    this.#draw();
  }

  async #install() {
    const offer = this.#offer;
    // It may be used once.
    this.#offer = null;
    await offer?.prompt();
    this.#draw();
  }

  #draw() {
    const installed = matchMedia("(display-mode: standalone)").matches;
    this.#button.hidden = this.#offer === null;
    setText(
      this.#text,
      installed
        ? "This is the installed app."
        : this.#offer
          ? "Installed, Pitlane has its own icon with the number of offers on it, and opens without the browser around it."
          : "Your browser's menu can put Pitlane on the home screen: “Install app” or “Add to Home Screen”.",
    );
  }
}
customElements.define("install-hint", InstallHint);
