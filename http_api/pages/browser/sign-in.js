/** Sign in or, for customers, make an account. Errors are summed up above the form and tied to their fields. */

import { Part, glyph, h, setAttribute, setText } from "./elements.js";
import { PASSWORD_MIN, field, showProblems } from "./fields.js";

/**
 * @import {FormProblem} from "./fields.js"
 * @import {Ended} from "./session.js"
 */

/** @type {Record<Ended, string>} */
const ENDED = {
  expired: "Your session has expired. Please sign in again.",
  elsewhere: "You have been signed out, in another window or on another device. Please sign in again.",
};

const CUSTOMER_PITCH = {
  claim: "Back on the road with a mechanic you already trust.",
  points: [
    "See who is available this minute",
    "Your favorite is asked first, alone",
    "Served, or refunded in full by itself",
  ],
};
const MECHANIC_PITCH = {
  claim: "Your regulars, one tap away.",
  points: [
    "Priority offers from customers who chose you",
    "You decide when you are on duty",
    "First to accept gets the session",
  ],
};

/**
 * @fires sign-in  `{email, password}`
 * @fires register  `{email, password, name}`
 */
export class SignIn extends Part {
  /** @type {"sign-in" | "register"} */
  #mode = "sign-in";
  #busy = false;
  #name = field("name", "Your name", { type: "text", autocomplete: "name", maxlength: 100 });
  #email = field("email", "Email", { type: "email", autocomplete: "username", inputmode: "email", maxlength: 254 });
  #password = field("password", "Password", { type: "password" });
  #summary = h("div", { class: "notice notice-bad", role: "alert", tabindex: "-1", "data-testid": "sign-in-error" });
  #submit = h("button", { type: "submit", class: "primary wide" });
  #title = h("h1", {});
  #swap = h("button", { type: "button", class: "link" });
  #swapText = h("span", {});
  #demo = h("p", { class: "notice", hidden: true });
  #ended = h("p", { class: "notice", role: "status", hidden: true, "data-testid": "sign-in-ended" });
  #forgot = h("p", { class: "swap" }, h("a", { href: "/reset", "data-testid": "forgot-password" }, "Forgot your password?"));

  build() {
    const form = h(
      "form",
      { novalidate: true, "data-testid": "sign-in-form" },
      this.#summary,
      this.#name.row,
      this.#email.row,
      this.#password.row,
      this.#submit,
    );
    const aside = this.dataset.audience === "mechanic" ? MECHANIC_PITCH : CUSTOMER_PITCH;
    const swap = h("p", { class: "swap" }, this.#swapText, " ", this.#swap);
    swap.hidden = this.dataset.audience === "mechanic";
    const or_else = swap.hidden ? "" : " Or create an account of your own.";
    setText(this.#demo, `This is a demo: open one of the links it printed to come in as one of its people.${or_else}`);
    this.append(
      h(
        "div",
        { class: "door" },
        h(
          "div",
          { class: "door-pitch" },
          glyph("logo"),
          h("p", { class: "door-claim" }, aside.claim),
          points(aside.points),
        ),
        h("div", { class: "door-form" }, this.#title, this.#ended, this.#demo, form, this.#forgot, swap),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#swap.addEventListener("click", () => {
      this.#mode = this.#mode === "sign-in" ? "register" : "sign-in";
      this.show([]);
      this.#draw();
      (this.#mode === "register" ? this.#name : this.#email).input.focus();
    });
    this.show([]);
    this.#draw();
  }

  /**
   * The sign-in is on its way, or was answered.
   * @param {boolean} busy
   */
  set busy(busy) {
    this.#busy = busy;
    this.#draw();
  }

  /**
   * Why the form is there, for somebody who was signed in.
   * @param {Ended | null} why
   */
  set ended(why) {
    setText(this.#ended, why ? ENDED[why] : "");
    this.#ended.hidden = why === null;
  }

  /**
   * In a demo people come in by links, and would look in vain for a password.
   * @param {boolean} is_demo
   */
  set demo(is_demo) {
    this.#demo.hidden = !is_demo;
  }

  /** Forget what was typed, for the next visitor. */
  clear() {
    this.#password.input.value = "";
    this.show([]);
  }

  /**
   * Show what is wrong; nothing clears it.
   * @param {FormProblem[]} problems
   */
  show(problems) {
    showProblems({ name: this.#name, email: this.#email, password: this.#password }, this.#summary, problems);
  }

  #draw() {
    const registering = this.#mode === "register";
    this.#name.row.hidden = !registering;
    this.#forgot.hidden = registering;
    setAttribute(this.#password.input, "autocomplete", registering ? "new-password" : "current-password");
    setText(this.#title, registering ? "Create your account" : "Sign in");
    setText(this.#submit, this.#busy ? "One moment…" : registering ? "Create account" : "Sign in");
    setText(this.#swapText, registering ? "Already have an account?" : "New to Pitlane?");
    setText(this.#swap, registering ? "Sign in instead" : "Create an account");
    setAttribute(this.#submit, "aria-disabled", this.#busy ? "true" : null);
  }

  #send() {
    if (this.#busy) return;
    const email = this.#email.input.value.trim();
    const password = this.#password.input.value;
    const name = this.#name.input.value.trim();
    const registering = this.#mode === "register";
    /** @type {FormProblem[]} */
    const problems = [];
    if (registering && !name) problems.push({ field: "name", text: "Enter your name." });
    if (!this.#email.input.validity.valid || !email)
      problems.push({ field: "email", text: "Enter an email address, such as jo@example.com." });
    if (!password) problems.push({ field: "password", text: "Enter your password." });
    else if (registering && password.length < PASSWORD_MIN)
      problems.push({ field: "password", text: `Use at least ${PASSWORD_MIN} characters.` });
    this.show(problems);
    if (problems.length) return;
    if (registering) this.say("register", { email, password, name });
    else this.say("sign-in", { email, password });
  }
}
customElements.define("sign-in", SignIn);

/** @param {string[]} texts */
function points(texts) {
  return h("ul", {}, ...texts.map((text) => h("li", {}, glyph("check"), h("span", {}, text))));
}
