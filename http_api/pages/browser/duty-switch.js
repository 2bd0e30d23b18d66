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

// No longer than what is said while there is one: see `data-room`. Customers see them until the server has missed them for a while.
const LOST = /** @type {const} */ (["Not connected", "You will soon appear offline."]);
const POLLING = /** @type {const} */ (["Not live", "Customers see you as offline."]);

const BREAKS_MIN = [15, 30, 60];

/**
 * @fires set-duty  boolean
 * @fires plan-duty  a break, or the end of the day with this session
 */
export class DutySwitch extends Part {
  #on = false;
  #title = h("span", { class: "duty-title", id: "duty-title" });
  #text = h("p", { class: "duty-text", id: "duty-text" });
  /** As tall as what it says while there is a connection, so that nothing below moves when that is lost. */
  #room = h("div", { class: "duty-room" }, this.#text);
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
  #live = false;

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
            h(
              "h2",
              {},
              h("span", { class: "sr-only", id: "duty-label" }, "On duty"),
              h("span", { "data-room": LOST[0] }, this.#title),
            ),
            this.#room,
          ),
          this.#switch,
        ),
        this.#break,
        this.#off.row,
      ),
    );
    for (const minutes of BREAKS_MIN) {
      const name = `Back in ${minutes} minutes`;
      const choice = h("button", { type: "button", class: "secondary small", "aria-label": name }, `${minutes} min`);
      choice.addEventListener("click", () => {
        // Before it closes over what has the focus.
        this.#switch.focus();
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
    this.#live = live;
    keepFocus(
      this,
      () => {
        // Whether there is a connection or not: what is below keeps its place.
        this.#break.hidden = on_duty !== true || in_session;
        this.#off.row.hidden = on_duty !== true || !in_session;
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
    setAttribute(this, "data-duty", in_session ? "busy" : on_duty ? "available" : "off_duty");
    setAttribute(this.#switch, "aria-checked", String(duty_wanted ?? this.#on));
    setAttribute(this.#switch, "aria-disabled", !live || on_duty === null || duty_wanted !== null ? "true" : null);
    setAttribute(this.#switch, "aria-busy", duty_wanted !== null ? "true" : null);
    this.#back_ms = !on_duty && !in_session ? back_ms : null;
    const usual = this.#back_ms === null ? words({ on_duty, in_session, off_after_session }) : ["On a break", ""];
    const [title = "", text = ""] = connection === "polling" ? POLLING : live || on_duty === null ? usual : LOST;
    setText(this.#title, title);
    setText(this.#text, text);
    const tallest = on_duty === null ? LOST : words({ on_duty, in_session, off_after_session: false });
    setAttribute(this.#room, "data-room", tallest[1]);
    this.#drawBack();
  }

  #drawBack() {
    if (this.#back_ms === null) return;
    const left_ms = msLeft(this.#back_ms);
    const text = backText(left_ms, timeOfDay(new Date(serverNow() + left_ms).toISOString()));
    setAttribute(this.#room, "data-room", text);
    if (this.#live) setText(this.#text, text);
  }
}
customElements.define("duty-switch", DutySwitch);

/**
 * While there is a connection.
 * @param {{on_duty: boolean | null, in_session: boolean, off_after_session: boolean}} now
 * @returns {[title: string, text: string]}
 */
function words({ on_duty, in_session, off_after_session }) {
  if (on_duty === null) return ["One moment…", "Connecting you to Pitlane."];
  if (in_session)
    return [
      "In a session",
      on_duty && !off_after_session
        ? "Customers see you are busy. Open requests come again when this session is done."
        : "You go off duty when this session is done.",
    ];
  if (on_duty)
    return ["On duty", "Customers see you as available."];
  return ["Off duty", "Only customers who picked you as a favorite can ask for you."];
}
