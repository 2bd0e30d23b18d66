/** A titled form of a few fields. What was typed stays until it has been accepted. */

import { Part, h, setAttribute, setText } from "./elements.js";
import { showProblems } from "./fields.js";

/** @import {Field, FormProblem} from "./fields.js" */

/** For subclasses, which say what they ask for and what they do with it. */
export class FormPanel extends Part {
  #busy = false;
  #summary = h("div", { class: "notice notice-bad", role: "alert", tabindex: "-1", hidden: true });
  #submit = h("button", { type: "submit" });

  /** By the names that the server has for them. @type {Record<string, Field>} */
  fields = {};
  name = "";
  title = "";
  text = "";
  submit = "Save";
  submitClass = "primary";

  build() {
    const id = `${this.name}-title`;
    const form = h(
      "form",
      { novalidate: true, class: "panel form-panel", "data-testid": `${this.name}-form` },
      ...(this.text ? [h("p", { class: "hint" }, this.text)] : []),
      this.#summary,
      ...Object.values(this.fields).map(({ row }) => row),
      h("div", {}, this.#submit),
    );
    setAttribute(this.#summary, "data-testid", `${this.name}-problem`);
    setAttribute(this.#submit, "class", this.submitClass);
    this.append(h("section", { "aria-labelledby": id }, h("h2", { id, tabindex: "-1" }, this.title), form));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#busy) return;
      const problems = this.check();
      this.show(problems);
      if (!problems.length) this.send();
    });
    this.#draw();
  }

  /**
   * What is wrong already here.
   * @returns {FormProblem[]}
   */
  check() {
    return [];
  }

  /** Say what is wanted, with what was typed. */
  send() {}

  /** @param {string} name */
  value(name) {
    return this.fields[name]?.input.value ?? "";
  }

  /**
   * What was sent is on its way, or was answered.
   * @param {boolean} busy
   */
  set busy(busy) {
    this.#busy = busy;
    this.#draw();
  }

  /** @param {FormProblem[]} problems */
  show(problems) {
    showProblems(this.fields, this.#summary, problems);
  }

  /** It was accepted, or somebody else sits here: forget what was typed. */
  clear() {
    for (const { input } of Object.values(this.fields)) input.value = "";
    this.show([]);
  }

  #draw() {
    setText(this.#submit, this.#busy ? "One moment…" : this.submit);
    setAttribute(this.#submit, "aria-disabled", this.#busy ? "true" : null);
  }
}
