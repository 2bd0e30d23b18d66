/** On duty or not: the one big switch of the mechanic's page. */

import { msLeft, onTick, serverNow } from "./clock.js";
import { backText } from "./day-words.js";
import { Part, h, setAttribute, setText } from "./elements.js";
import { settingRow } from "./setting-row.js";
import { keepFocus } from "./steady.js";
import { timeOfDay } from "./words.js";

/**
 * @import {ConnectionState} from "../../../clients/javascript/connection.js"
 */

const POLLING = /** @type {const} */ ([
  "No live connection",
  "Offers still come here, every few seconds. Customers see you as offline until your network lets a live connection through.",
]);

const BREAKS_MIN = [15, 30, 60];

/**
 * @fires set-duty  boolean
 * @fires plan-duty  a break, or the end of the day with this session
 */
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

  #breaks = h("div", { class: "reasons" });
  #break = h("details", { class: "break", "data-testid": "break" }, h("summary", {}, "Take a break"), this.#breaks);
  #off = settingRow("off-after-session", "Off after this one", "No more offers when this session is done.");
  /** @type {number | null} */
  #back_ms = null;

  build() {
    this.append(
      h(
        "section",
        { class: "panel" },
        h(
          "div",
          { class: "duty" },
          h(
            "div",
            { class: "duty-words" },
            h("h2", {}, h("span", { class: "sr-only", id: "duty-label" }, "On duty"), this.#title),
            this.#text,
          ),
          this.#switch,
        ),
        this.#break,
        this.#off.row,
      ),
    );
    for (const minutes of BREAKS_MIN) {
      const choice = h("button", { type: "button", class: "secondary small" }, `Back in ${minutes} minutes`);
      choice.addEventListener("click", () => {
        this.#break.open = false;
        this.say("plan-duty", { on_duty: false, back_in_s: minutes * 60 });
      });
      this.#breaks.append(choice);
    }
    this.#off.box.addEventListener("change", () =>
      this.say("plan-duty", { on_duty: true, off_after_session: this.#off.box.checked }),
    );
    this.#switch.addEventListener(
      "click",
      () => this.#switch.getAttribute("aria-disabled") !== "true" && this.say("set-duty", !this.#on),
    );
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    onTick(signal, () => this.#drawBack());
  }

  /**
   * @param {object} props
   * @param {boolean | null} props.on_duty  null: not known yet
   * @param {boolean | null} props.duty_wanted  on its way to the server
   * @param {ConnectionState} props.connection
   * @param {boolean} props.in_session
   * @param {number | null} props.back_ms  when a break ends
   * @param {boolean} props.off_after_session
   */
  update({ on_duty, duty_wanted, connection, in_session, back_ms, off_after_session }) {
    const live = connection === "live";
    const may_plan = live && on_duty === true && duty_wanted === null;
    keepFocus(
      this,
      () => {
        this.#break.hidden = !may_plan || in_session;
        this.#off.row.hidden = !may_plan || !in_session;
      },
      () => this.#switch,
    );
    this.#off.box.checked = off_after_session;
    this.#on = on_duty ?? false;
    setAttribute(
      this,
      "data-availability",
      !live ? "offline" : in_session ? "busy" : on_duty ? "available" : "off_duty",
    );
    setAttribute(this.#switch, "aria-checked", String(duty_wanted ?? this.#on));
    setAttribute(this.#switch, "aria-disabled", !live || on_duty === null || duty_wanted !== null ? "true" : null);
    setAttribute(this.#switch, "aria-busy", duty_wanted !== null ? "true" : null);
    const [title, text] = connection === "polling" ? POLLING : words({ live, on_duty, in_session, off_after_session });
    this.#back_ms = live && !on_duty && !in_session ? back_ms : null;
    setText(this.#title, this.#back_ms === null ? title : "On a break");
    if (this.#back_ms === null) setText(this.#text, text);
    else this.#drawBack();
  }

  #drawBack() {
    if (this.#back_ms === null) return;
    const left_ms = msLeft(this.#back_ms);
    setText(this.#text, backText(left_ms, timeOfDay(new Date(serverNow() + left_ms).toISOString())));
  }
}
customElements.define("duty-switch", DutySwitch);

/**
 * @param {{live: boolean, on_duty: boolean | null, in_session: boolean, off_after_session: boolean}} now
 * @returns {[title: string, text: string]}
 */
function words({ live, on_duty, in_session, off_after_session }) {
  if (on_duty === null) return ["One moment…", "Connecting you to Pitlane."];
  if (!live)
    return ["Not connected", "Customers see you as offline until the connection is back. We keep trying by ourselves."];
  if (in_session)
    return [
      "In a session",
      on_duty && !off_after_session
        ? "Customers see you are busy. New offers come again when this session is done."
        : "You go off duty when this session is done.",
    ];
  if (on_duty)
    return ["On duty", "Customers see you as available."];
  return ["Off duty", "Only customers who picked you as a favorite can ask for you."];
}
