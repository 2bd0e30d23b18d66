/**
 * For whoever has forgotten the password: asks for the address, or, opened by the link in the mail, for a new password.
 *
 * The link carries its token behind the `#`, which browsers send to no server and write into no Referer.
 */

import * as api from "./api.js";
import { ForgotForm, ResetForm } from "./account-forms.js";
import { problemsOf } from "./account.js";
import { found } from "./elements.js";
import { carryOut } from "./verbs.js";

/** @import {FormPanel} from "./form-panel.js" */

const forgot = found("forgot-form", ForgotForm);
const reset = found("reset-form", ResetForm);
const sent = found("#sent", HTMLElement);

let reset_token = location.hash.slice(1);
// Neither the history nor whoever looks over a shoulder keeps it.
history.replaceState(null, "", location.pathname);
forgot.hidden = reset_token !== "";
reset.hidden = reset_token === "";

/**
 * @param {FormPanel} form
 * @param {() => Promise<void>} act
 */
async function submit(form, act) {
  form.busy = true;
  form.show([]);
  try {
    await act();
  } catch (error) {
    form.show(problemsOf(error));
  } finally {
    form.busy = false;
  }
}

carryOut(document, {
  "forgot-password": (body) =>
    submit(forgot, async () => {
      await api.forgotPassword(body);
      forgot.hidden = true;
      sent.hidden = false;
      sent.focus();
    }),
  "reset-password": (new_password) =>
    submit(reset, async () => {
      try {
        const { account } = await api.resetPassword({ reset_token, new_password });
        location.assign(account.role === "mechanic" ? "/mechanic" : "/");
      } catch (error) {
        if (!(error instanceof api.ApiError) || error.code !== "bad_reset_token") throw error;
        // Used, or too old: only a fresh one helps.
        reset_token = "";
        reset.hidden = true;
        forgot.hidden = false;
        forgot.show([{ field: null, text: "That link has been used or is too old. Ask for a fresh one." }]);
      }
    }),
});
window.addEventListener("hashchange", () => location.hash && location.reload());
