/** On duty or not: the one big switch of the mechanic's page. */

import { Part, h, setAttribute, setText } from "./elements.js";

/**
 * @import {ConnectionState} from "../../../clients/javascript/connection.js"
 */

const POLLING = /** @type {const} */ ([
  "No live connection",
  "Offers still come here, every few seconds. Customers see you as offline until your network lets a live connection through.",
]);

/** @fires set-duty  boolean */
export class DutySwitch extends Part {
  #on = false;
  #title = h("span", { class: "duty-title", id: "duty-title" });
  #text = h("p", { class: "duty-text", id: "duty-text" });
  #switch = h(
    "button",
    {
      type: "button",
      class: "switch",
      role: "switch",
      "aria-labelledby": "duty-label",
      "aria-describedby": "duty-text",
      "data-testid": "duty-switch",
    },
    h("span", { class: "switch-knob", "aria-hidden": "true" }),
  );

  build() {
    this.append(
      h(
        "section",
        { class: "panel duty" },
        h(
          "div",
          { class: "duty-words" },
          h("h2", {}, h("span", { class: "sr-only", id: "duty-label" }, "On duty"), this.#title),
          this.#text,
        ),
        this.#switch,
      ),
    );
    this.#switch.addEventListener(
      "click",
      () => this.#switch.getAttribute("aria-disabled") !== "true" && this.say("set-duty", !this.#on),
    );
  }

  /**
   * @param {object} props
   * @param {boolean | null} props.on_duty  null: not known yet
   * @param {boolean | null} props.duty_wanted  on its way to the server
   * @param {ConnectionState} props.connection
   * @param {boolean} props.in_session
   */
  update({ on_duty, duty_wanted, connection, in_session }) {
    const live = connection === "live";
    this.#on = on_duty ?? false;
    setAttribute(
      this,
      "data-availability",
      !live ? "offline" : in_session ? "busy" : on_duty ? "available" : "off_duty",
    );
    setAttribute(this.#switch, "aria-checked", String(duty_wanted ?? this.#on));
    setAttribute(this.#switch, "aria-disabled", !live || on_duty === null || duty_wanted !== null ? "true" : null);
    setAttribute(this.#switch, "aria-busy", duty_wanted !== null ? "true" : null);
    const [title, text] = connection === "polling" ? POLLING : words({ live, on_duty, in_session });
    setText(this.#title, title);
    setText(this.#text, text);
  }
}
customElements.define("duty-switch", DutySwitch);

/**
 * @param {{live: boolean, on_duty: boolean | null, in_session: boolean}} now
 * @returns {[title: string, text: string]}
 */
function words({ live, on_duty, in_session }) {
  if (on_duty === null) return ["One moment…", "Connecting you to Pitlane."];
  if (!live)
    return ["Not connected", "Customers see you as offline until the connection is back. We keep trying by ourselves."];
  if (in_session)
    return [
      "In a session",
      on_duty
        ? "Customers see you are busy. New offers come again when this session is done."
        : "You go off duty when this session is done.",
    ];
  if (on_duty)
    return ["On duty", "Customers see you as available."];
  return ["Off duty", "Only customers who picked you as a favorite can ask for you."];
}
