/** Fields of forms, and what is wrong with them: summed up above the form, and tied to each field. */

import { h, setAttribute, setText } from "./elements.js";

/**
 * What is wrong with what was typed; `field` null: with no field in particular.
 * @typedef {{field: string | null, text: string}} FormProblem
 */
/** @typedef {{row: HTMLElement, input: HTMLInputElement, hint: HTMLElement}} Field */

/** Of the server's; it has more to say of a password than its length. */
export const PASSWORD_MIN = 8;

/**
 * @param {string} name
 * @param {string} label
 * @param {Record<string, string | number>} attributes
 * @param {string} [id]  of the field, where a page has several of the name
 * @returns {Field}
 */
export function field(name, label, attributes, id = name) {
  const hint = h("p", { class: "field-problem", id: `${id}-problem`, hidden: true });
  const input = h("input", { id: `field-${id}`, name, required: true, "aria-describedby": hint.id, ...attributes });
  return { input, hint, row: h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint) };
}

/**
 * Show what is wrong, and bring the visitor to the first of it; nothing clears it.
 * @param {Record<string, Field>} fields
 * @param {HTMLElement} summary
 * @param {FormProblem[]} problems
 */
export function showProblems(fields, summary, problems) {
  summary.hidden = problems.length === 0;
  summary.replaceChildren(...problems.map(({ text }) => h("p", {}, text)));
  for (const [name, { input, hint }] of Object.entries(fields)) {
    const problem = problems.find((one) => one.field === name);
    setText(hint, problem?.text ?? "");
    hint.hidden = !problem;
    setAttribute(input, "aria-invalid", problem ? "true" : null);
  }
  const first = problems.map((one) => fields[one.field ?? ""]).find((one) => one !== undefined);
  if (first) first.input.focus();
  else if (problems.length) summary.focus();
}
