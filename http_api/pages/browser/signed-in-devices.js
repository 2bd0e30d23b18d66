/** Where an account is signed in, and a way to end it: on one device, or on all. */

import { serverNow } from "./clock.js";
import { deviceName } from "./device-name.js";
import { Part, h, keyed, setAttribute, setText } from "./elements.js";
import { dateAndTime } from "./words.js";

/** @import {DeviceView} from "./wire.js" */

/** @fires sign-out-device  id of the device */
class SignedInDevice extends Part {
  #id = "";
  #name = h("span", { class: "device-name" });
  #when = h("span", { class: "hint" });
  #out = h("button", { type: "button", class: "secondary small" }, "Sign out");

  build() {
    setAttribute(this, "role", "listitem");
    setAttribute(this, "data-testid", "signed-in-device");
    this.append(h("div", {}, this.#name, this.#when), this.#out);
    this.#out.addEventListener("click", () => this.say("sign-out-device", this.#id));
  }

  /** @param {DeviceView} device */
  update({ id, user_agent, signed_in_at, is_this }) {
    this.#id = id;
    const name = user_agent ? deviceName(user_agent) : "A device without a name";
    setText(this.#name, is_this ? `${name} (this one)` : name);
    setText(this.#when, `Signed in ${dateAndTime(signed_in_at, serverNow())}`);
    // The way out of this one is at the top of every page.
    this.#out.hidden = is_this;
    setAttribute(this.#out, "aria-label", `Sign out ${name}`);
  }
}
customElements.define("signed-in-device", SignedInDevice);

/** @fires sign-out-everywhere */
export class SignedInDevices extends Part {
  #list = h("div", { class: "devices", role: "list", "aria-labelledby": "signed-in-title" });
  #problem = h("p", { class: "field-problem", role: "alert", hidden: true });
  #everywhere = h(
    "button",
    { type: "button", class: "secondary", "data-testid": "sign-out-everywhere" },
    "Sign out everywhere, here too",
  );

  build() {
    this.append(
      h(
        "section",
        { "aria-labelledby": "signed-in-title" },
        h("h2", { id: "signed-in-title", tabindex: "-1" }, "Devices signed in"),
        h(
          "div",
          { class: "panel form-panel" },
          h("p", { class: "hint" }, "Do you not know one of them? Sign it out, and change your password."),
          this.#list,
          this.#problem,
          h("div", {}, this.#everywhere),
        ),
      ),
    );
    this.#everywhere.addEventListener("click", () => this.say("sign-out-everywhere"));
  }

  /**
   * @param {readonly DeviceView[]} devices
   * @param {string | null} problem
   */
  update(devices, problem) {
    keyed(
      this.#list,
      [...devices],
      ({ id }) => id,
      () => new SignedInDevice(),
      (line, device) => line.update(device),
    );
    this.#problem.hidden = !problem;
    setText(this.#problem, problem ?? "");
  }

  /** Where to read on when the device that had the focus is gone. */
  get heading() {
    return this.querySelector("h2");
  }
}
customElements.define("signed-in-devices", SignedInDevices);
