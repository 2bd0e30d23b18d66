/** Notifications on this device: how it stands in plain words, one button, and the devices that are woken. */

import { serverNow } from "./clock.js";
import { Part, h, keyed, setAttribute, setText } from "./elements.js";
import { dateAndTime } from "./words.js";

/**
 * @import {PushState} from "./push.js"
 * @import {PushSubscriptionView} from "./wire.js"
 */

/** @type {Record<PushState, [title: string, text: string]>} */
const STATES = {
  unsupported: [
    "This browser has no notifications",
    "Offers come up here while this page is open. For a phone in the pocket use a current Chrome, Edge, Firefox or Safari.",
  ],
  insecure: [
    "Notifications need a secure address",
    "Browsers allow them only where the address begins with https. Ask whoever runs this server.",
  ],
  home_screen: [
    "Add Pitlane to your home screen first",
    "On an iPhone or iPad only apps on the home screen may notify: touch Share, then “Add to Home Screen”, and open Pitlane from there.",
  ],
  blocked: [
    "Notifications are blocked",
    "This browser was told not to show any from Pitlane. Touch the sign left of the address (or hold the app's icon, then “App info”), open Permissions or Notifications, allow them, and come back.",
  ],
  off: ["Notifications are off", "Turned on, offers reach you with the page closed and the phone locked, and you can answer from there."],
  on: ["Notifications are on", "Offers reach this device with the page closed and the phone locked."],
};

/**
 * @typedef {object} PushSettingsProps
 * @property {PushState | null} state  null: not known yet
 * @property {boolean} busy
 * @property {string | null} problem
 * @property {readonly PushSubscriptionView[] | null} devices
 * @property {string | null} own_hash  which of the devices this is
 */

/** @fires remove-device  subscription id */
class PushDevice extends Part {
  #id = "";
  #name = h("span", { class: "device-name" });
  #when = h("span", { class: "hint" });
  #remove = h("button", { type: "button", class: "secondary small" }, "Remove");

  build() {
    setAttribute(this, "role", "listitem");
    setAttribute(this, "data-testid", "push-device");
    this.append(h("div", {}, this.#name, this.#when), this.#remove);
    this.#remove.addEventListener("click", () => this.say("remove-device", this.#id));
  }

  /** @param {{device: PushSubscriptionView, is_this: boolean}} props */
  update({ device, is_this }) {
    const name = device.label ?? device.endpoint_host;
    this.#id = device.id;
    setText(this.#name, is_this ? `${name} (this device)` : name);
    const used = device.last_used_at ? `, last reached ${dateAndTime(device.last_used_at, serverNow())}` : "";
    setText(this.#when, `Since ${dateAndTime(device.created_at, serverNow())}${used}`);
    setAttribute(this.#remove, "aria-label", `Remove ${name}`);
  }
}
customElements.define("push-device", PushDevice);

/**
 * @fires turn-on-push
 * @fires turn-off-push
 * @fires test-push
 */
export class PushSettings extends Part {
  #title = h("p", { class: "setting-title", "data-testid": "push-state" });
  #text = h("p", { class: "hint" });
  #problem = h("p", { class: "tracker-problem", role: "alert", "data-testid": "push-problem" });
  #on = h("button", { type: "button", class: "primary", "data-testid": "push-on" });
  #test = h("button", { type: "button", class: "secondary", "data-testid": "push-test" }, "Send a test");
  #off = h("button", { type: "button", class: "quiet", "data-testid": "push-off" }, "Turn off here");
  #actions = h("div", { class: "offer-actions" }, this.#on, this.#test, this.#off);
  #devices = h("div", { class: "devices", role: "list", "aria-labelledby": "devices-title" });
  #list = h("div", {}, h("h3", { id: "devices-title" }, "Devices that are notified"), this.#devices);

  build() {
    setText(this.#on, "Turn on notifications");
    this.append(
      h(
        "section",
        { "aria-labelledby": "push-title" },
        h("h2", { id: "push-title", tabindex: "-1" }, "Notifications"),
        h(
          "div",
          { class: "panel settings" },
          h("div", { role: "status" }, this.#title, this.#text),
          this.#problem,
          this.#actions,
          this.#list,
        ),
      ),
    );
    const unlessBusy = (/** @type {HTMLElement} */ button, /** @type {() => void} */ act) =>
      button.addEventListener("click", () => button.getAttribute("aria-disabled") !== "true" && act());
    unlessBusy(this.#on, () => this.say("turn-on-push"));
    unlessBusy(this.#test, () => this.say("test-push"));
    unlessBusy(this.#off, () => this.say("turn-off-push"));
  }

  /** @param {PushSettingsProps} props */
  update({ state, busy, problem, devices, own_hash }) {
    const [title, text] = state ? (STATES[state] ?? STATES.unsupported) : ["One moment…", ""];
    setAttribute(this, "data-state", state);
    setText(this.#title, title);
    setText(this.#text, text);
    this.#problem.hidden = !problem;
    setText(this.#problem, problem ?? "");
    this.#on.hidden = state !== "off";
    this.#test.hidden = this.#off.hidden = state !== "on";
    this.#actions.hidden = state !== "off" && state !== "on";
    for (const button of [this.#on, this.#test, this.#off]) setAttribute(button, "aria-disabled", busy ? "true" : null);
    this.#list.hidden = !devices?.length;
    keyed(
      this.#devices,
      [...(devices ?? [])],
      ({ id }) => id,
      () => new PushDevice(),
      (line, device) => line.update({ device, is_this: device.endpoint_hash === own_hash }),
    );
  }
}
customElements.define("push-settings", PushSettings);
