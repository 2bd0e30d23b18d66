/** What this device may do to be noticed: one switch each, and a button to hear and feel it. */

import { Part, h, setText } from "./elements.js";
import { settingRow } from "./setting-row.js";

/** @import {AlertSettings} from "./alert-settings.js" */

/** @type {readonly [name: keyof AlertSettings, label: string, hint: string][]} */
const SWITCHES = [
  ["sound", "Sound", "A tune for each offer; again and again when somebody asks for you."],
  ["vibration", "Vibration", "Where this device can vibrate."],
  ["awake", "Keep the screen on while on duty", "Uses more battery; handy on a charger in the workshop."],
];

/**
 * @fires set-alert  `{name, on}`
 * @fires try-alert
 */
export class AlertSwitches extends Part {
  #rows = SWITCHES.map(([name, label, hint]) => ({ name, ...settingRow(`alert-${name}`, label, hint) }));
  #try = h("button", { type: "button", class: "secondary", "data-testid": "try-alert" }, "Try it");
  #note = h("p", { class: "hint" });

  build() {
    this.append(
      h(
        "section",
        { "aria-labelledby": "alerts-title" },
        h("h2", { id: "alerts-title" }, "Sound and screen"),
        h(
          "div",
          { class: "panel settings" },
          ...this.#rows.map(({ row }) => row),
          h("div", { class: "setting" }, this.#note, this.#try),
        ),
      ),
    );
    for (const { name, box } of this.#rows)
      box.addEventListener("change", () => this.say("set-alert", { name, on: box.checked }));
    this.#try.addEventListener("click", () => this.say("try-alert"));
  }

  /** @param {AlertSettings} settings */
  update(settings) {
    for (const { name, box } of this.#rows) box.checked = settings[name];
    setText(
      this.#note,
      settings.sound || settings.vibration ? "Kept on this device." : "Offers come silently on this device.",
    );
  }
}
customElements.define("alert-switches", AlertSwitches);
