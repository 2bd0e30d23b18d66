/** What somebody may change of their own account: their name, their password, and whether it exists. */

import { PASSWORD_MIN, field } from "./fields.js";
import { FormPanel } from "./form-panel.js";

/** @import {FormProblem} from "./fields.js" */

const NAME_MAX = 100;

/** @fires change-name  `{name}` */
export class NameForm extends FormPanel {
  name = "name";
  title = "Your name";
  text = "As others see it: on offers, on sessions and among favorites.";
  submit = "Save name";
  fields = { name: field("name", "Name", { type: "text", autocomplete: "name", maxlength: NAME_MAX }, "own-name") };

  check() {
    return this.value("name").trim() ? [] : [{ field: "name", text: "Enter your name." }];
  }

  send() {
    this.say("change-name", { name: this.value("name").trim() });
  }

  /** @param {string} name  as it is kept */
  update(name) {
    // What is being typed is nobody else's to change.
    if (document.activeElement !== this.fields.name.input) this.fields.name.input.value = name;
  }
}
customElements.define("name-form", NameForm);

/** @fires change-password  `{current_password, new_password}` */
export class PasswordForm extends FormPanel {
  name = "password";
  title = "Password";
  text = "All other devices are signed out when it changes.";
  submit = "Change password";
  fields = {
    current_password: field("current_password", "Current password", currentPassword(), "current-password"),
    new_password: field("new_password", "New password", newPassword(), "new-password"),
  };

  check() {
    return [...missing(this.value("current_password")), ...tooShort(this.value("new_password"))];
  }

  send() {
    this.say("change-password", {
      current_password: this.value("current_password"),
      new_password: this.value("new_password"),
    });
  }
}
customElements.define("password-form", PasswordForm);

/** @fires erase-account  `{current_password}` */
export class EraseForm extends FormPanel {
  name = "erase";
  title = "Delete your account";
  text =
    "Your name, your email address, what you wrote and your favorites are erased for good. Past bookings stay without your name, because money hangs on them.";
  submit = "Delete my account";
  submitClass = "danger";
  fields = {
    current_password: field("current_password", "Current password", currentPassword(), "erase-password"),
  };

  check() {
    return missing(this.value("current_password"));
  }

  send() {
    this.say("erase-account", { current_password: this.value("current_password") });
  }
}
customElements.define("erase-form", EraseForm);

/** @fires forgot-password  `{email}` */
export class ForgotForm extends FormPanel {
  name = "forgot";
  title = "Forgot your password?";
  text = "Tell us your email address, and we send you a link with which you can choose a new one.";
  submit = "Send me a link";
  fields = {
    email: field("email", "Email", { type: "email", autocomplete: "username", inputmode: "email", maxlength: 254 }),
  };

  check() {
    const { input } = this.fields.email;
    return input.validity.valid && input.value.trim()
      ? []
      : [{ field: "email", text: "Enter an email address, such as jo@example.com." }];
  }

  send() {
    this.say("forgot-password", { email: this.value("email").trim() });
  }
}
customElements.define("forgot-form", ForgotForm);

/** @fires reset-password  the new password */
export class ResetForm extends FormPanel {
  name = "reset";
  title = "Choose a new password";
  text = "You are signed in with it here, and signed out everywhere else.";
  submit = "Save and sign in";
  fields = { new_password: field("new_password", "New password", newPassword(), "reset-password") };

  check() {
    return tooShort(this.value("new_password"));
  }

  send() {
    this.say("reset-password", this.value("new_password"));
  }
}
customElements.define("reset-form", ResetForm);

// Functions that are there from the beginning: an element of the page is made as soon as its class is defined.

function currentPassword() {
  return { type: "password", autocomplete: "current-password" };
}

function newPassword() {
  return { type: "password", autocomplete: "new-password" };
}

/**
 * @param {string} password
 * @returns {FormProblem[]}
 */
function missing(password) {
  return password ? [] : [{ field: "current_password", text: "Enter your current password." }];
}

/**
 * @param {string} password
 * @returns {FormProblem[]}
 */
function tooShort(password) {
  return password.length >= PASSWORD_MIN
    ? []
    : [{ field: "new_password", text: `Use at least ${PASSWORD_MIN} characters.` }];
}
