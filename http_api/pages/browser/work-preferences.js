/** What this mechanic takes, and whether open requests may wake them. */

import { Part, h, setText } from "./elements.js";
import { settingRow } from "./setting-row.js";

/** @import {PreferencesView, SessionType} from "./wire.js" */

/** @type {readonly [SessionType, label: string, hint: string][]} */
const KINDS = [
  ["video", "Video sessions", "You see the car while you talk."],
  ["text", "Text chats", "Questions and answers in writing."],
  ["diagnostic", "Free diagnostics", "A first look for new customers, ten minutes."],
];

/** @fires set-preferences */
export class WorkPreferences extends Part {
  /** @type {PreferencesView | null} */
  #kept = null;
  #kinds = KINDS.map(([kind, label, hint]) => ({ kind, ...settingRow(`takes-${kind}`, label, hint) }));
  #wake = settingRow(
    "push-broadcasts",
    "Wake me for open requests",
    "Those that go to every mechanic. Customers who ask for you can always wake you.",
  );
  #problem = h("p", { class: "tracker-problem", role: "alert", "data-testid": "preferences-problem" });

  build() {
    this.append(
      h(
        "section",
        { "aria-labelledby": "preferences-title" },
        h("h2", { id: "preferences-title" }, "What you take"),
        h(
          "div",
          { class: "panel settings" },
          ...this.#kinds.map(({ row }) => row),
          this.#wake.row,
          this.#problem,
        ),
      ),
    );
    for (const { box } of [...this.#kinds, this.#wake]) box.addEventListener("change", () => this.#changed());
  }

  /** @param {{preferences: PreferencesView | null, problem: string | null}} props */
  update({ preferences, problem }) {
    this.#kept = preferences;
    for (const { kind, box } of this.#kinds) {
      box.checked = preferences?.session_types.includes(kind) ?? true;
      box.disabled = preferences === null;
    }
    this.#wake.box.checked = preferences?.push_broadcasts ?? false;
    this.#wake.box.disabled = preferences === null;
    this.#problem.hidden = !problem;
    setText(this.#problem, problem ?? "");
  }

  #changed() {
    const session_types = this.#kinds.filter(({ box }) => box.checked).map(({ kind }) => kind);
    if (session_types.length === 0) {
      this.update({
        preferences: this.#kept,
        problem: "At least one kind stays on. To get no offers at all, go off duty.",
      });
      return;
    }
    this.say("set-preferences", { session_types, push_broadcasts: this.#wake.box.checked });
  }
}
customElements.define("work-preferences", WorkPreferences);
