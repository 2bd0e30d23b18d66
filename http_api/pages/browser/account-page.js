/** The account's own page, for customers and mechanics alike: name, password, devices, and the way out for good. */

import * as api from "./api.js";
import { handleSignIn, loadConfig, problemsOf, recognise, signOut } from "./account.js";
import { EraseForm, NameForm, PasswordForm } from "./account-forms.js";
import { tell } from "./announcer.js";
import { ConfirmDialog } from "./confirm-dialog.js";
import { focusIfNowhere, found, setText } from "./elements.js";
import { createLoader } from "./loading.js";
import { PageHeader } from "./page-header.js";
import { SignedInDevices } from "./signed-in-devices.js";
import { heedOtherTabs, keepSignedIn } from "./session.js";
import { SignIn } from "./sign-in.js";
import { createStore } from "./store.js";
import { carryOut } from "./verbs.js";

/**
 * @import {FormPanel} from "./form-panel.js"
 * @import {State} from "./state.js"
 */

const store = createStore();
const load = createLoader(store);
const page = {
  header: found("page-header", PageHeader),
  boot: found("#boot", HTMLElement),
  bootText: found("#boot-text", HTMLElement),
  erased: found("#erased", HTMLElement),
  signIn: found("sign-in", SignIn),
  account: found("#account", HTMLElement),
  email: found("#email", HTMLElement),
  back: found("#back a", HTMLAnchorElement),
  name: found("name-form", NameForm),
  password: found("password-form", PasswordForm),
  devices: found("signed-in-devices", SignedInDevices),
  erase: found("erase-form", EraseForm),
  confirm: found("confirm-dialog", ConfirmDialog),
};
/** Nobody is here any more, and on purpose. */
let is_erased = false;

/** @param {State} state */
function render(state) {
  const { me } = state;
  page.boot.hidden = me !== undefined;
  page.erased.hidden = !is_erased;
  page.signIn.hidden = me !== null || is_erased;
  page.signIn.demo = state.config?.demo ?? false;
  page.account.hidden = !me;
  page.header.update({ me, connection: null });
  if (!me) return;
  setText(page.email, `Signed in as ${me.email}`);
  page.back.href = me.role === "mechanic" ? "/mechanic" : "/";
  page.name.update(me.name);
  // Whoever runs this place erases operators at the command line.
  page.erase.hidden = me.role === "admin";
}

/**
 * @param {State} state
 * @param {State} before
 */
function react(state, before) {
  if (state.me?.id === before.me?.id) return;
  api.callFor(state.me?.id ?? null);
  for (const form of [page.password, page.erase]) form.clear();
  page.devices.update([], null);
  if (state.me) void showDevices();
}

async function showDevices() {
  const isStillHere = store.whoIsHere();
  try {
    const { devices } = await api.getDevices();
    if (isStillHere()) page.devices.update(devices, null);
  } catch (error) {
    if (isStillHere() && !load.signedOutBy(error)) page.devices.update([], api.messageOf(error));
  }
}

/**
 * Carry out what a form asks for; what is wrong with it is shown there.
 * @param {FormPanel} form
 * @param {() => Promise<unknown>} act
 * @param {() => void} done
 */
async function submit(form, act, done) {
  const isStillHere = store.whoIsHere();
  form.busy = true;
  form.show([]);
  try {
    await act();
    if (isStillHere()) done();
  } catch (error) {
    const is_wrong = error instanceof api.ApiError && error.code === "bad_credentials";
    if (!isStillHere()) return;
    if (is_wrong) form.show([{ field: "current_password", text: "That is not your current password." }]);
    else if (!load.signedOutBy(error)) form.show(problemsOf(error));
  } finally {
    form.busy = false;
  }
}

/** @param {{name: string}} change */
const changeName = (change) =>
  submit(
    page.name,
    async () => store.dispatch({ type: "signed_in", me: { ...(await api.getMe()), ...(await api.changeName(change)) } }),
    () => tell("Your name is saved."),
  );

/** @param {{current_password: string, new_password: string}} change */
const changePassword = (change) =>
  submit(
    page.password,
    async () => {
      await api.changePassword(change);
      store.dispatch({ type: "signed_in", me: await api.getMe() });
    },
    () => {
      page.password.clear();
      tell("Your password is changed. All other devices are signed out.");
      void showDevices();
    },
  );

/** @param {{current_password: string}} proof */
async function erase(proof) {
  const sure = await page.confirm.ask({
    title: "Delete your account?",
    text: "Nobody can bring it back, not even us.",
    yes: "Yes, delete it",
    no: "Keep it",
  });
  if (!sure) return;
  await submit(
    page.erase,
    () => api.eraseMe(proof),
    () => {
      is_erased = true;
      store.dispatch({ type: "signed_out" });
      page.erased.focus();
    },
  );
}

/** @param {string} id */
async function signOutDevice(id) {
  const isStillHere = store.whoIsHere();
  try {
    await api.signOutDevice(id);
    if (!isStillHere()) return;
    await showDevices();
    tell("That device is signed out.");
    focusIfNowhere(page.devices.heading);
  } catch (error) {
    if (isStillHere() && !load.signedOutBy(error)) tell(api.messageOf(error));
  }
}

carryOut(document, {
  "sign-out": () => signOut(store),
  "sign-out-everywhere": () => signOut(store, { everywhere: true }),
  "sign-out-device": signOutDevice,
  "change-name": changeName,
  "change-password": changePassword,
  "erase-account": erase,
});
store.subscribe((state, before) => {
  render(state);
  react(state, before);
});
handleSignIn(page.signIn, store);
keepSignedIn(store);
heedOtherTabs(load);
render(store.state);
void loadConfig(store);
void recognise(store, (problem) => (page.bootText.textContent = problem));
