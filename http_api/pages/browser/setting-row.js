/** One line of the settings: what it is, what it does, and a switch. */

import { h } from "./elements.js";

/**
 * @param {string} id  of the switch, and the name by which tests find it
 * @param {string} label
 * @param {string} hint
 * @returns {{row: HTMLElement, box: HTMLInputElement}}
 */
export function settingRow(id, label, hint) {
  const box = h("input", {
    type: "checkbox",
    role: "switch",
    class: "toggle",
    id,
    "aria-describedby": `${id}-hint`,
    "data-testid": id,
  });
  const words = h("div", {}, h("label", { for: id }, label), h("p", { class: "hint", id: `${id}-hint` }, hint));
  return { row: h("div", { class: "setting" }, words, box), box };
}
