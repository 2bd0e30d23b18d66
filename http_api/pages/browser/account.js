/** Signing in and out, the same on both pages. */

import { ApiError, getConfig, getMe, login, logout, messageOf, register } from "./api.js";
import { tell } from "./announcer.js";
import { keptSession, whyEnded } from "./session.js";
import { carryOut } from "./verbs.js";

/**
 * @import {FormProblem} from "./fields.js"
 * @import {SignIn} from "./sign-in.js"
 * @import {Store} from "./store.js"
 */

const RETRY_FIRST_MS = 1_000;
const RETRY_MAX_MS = 15_000;

/**
 * Find out who is here; keeps asking, slower and slower, while the server cannot be reached.
 * @param {Store} store
 * @param {(problem: string) => void} onWaiting  told why it takes longer
 */
export async function recognise(store, onWaiting) {
  for (let wait_ms = RETRY_FIRST_MS; ; wait_ms = Math.min(wait_ms * 2, RETRY_MAX_MS)) {
    try {
      store.dispatch({ type: "signed_in", me: await getMe() });
      return;
    } catch (error) {
      if (error instanceof ApiError && !error.mayRetry) {
        const ended = whyEnded(keptSession.recall());
        // Said once: whoever opens the page again knows.
        keptSession.keep(null);
        store.dispatch({ type: "signed_out", ended });
        return;
      }
      onWaiting(messageOf(error));
      const asked_ms = error instanceof ApiError ? (error.retry_after_s ?? 0) * 1_000 : 0;
      await new Promise((resolve) => setTimeout(resolve, Math.max(asked_ms, wait_ms * (0.5 + Math.random() / 2))));
    }
  }
}

/**
 * Load the public settings; the page falls back to the flow's own numbers until they are known.
 * @param {Store} store
 */
export async function loadConfig(store) {
  try {
    store.dispatch({ type: "config_loaded", config: await getConfig() });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    console.warn("The settings could not be loaded:", error.message);
  }
}

/**
 * Let the form sign people in, and say why they have to.
 * @param {SignIn} form
 * @param {Store} store
 */
export function handleSignIn(form, store) {
  carryOut(form, {
    "sign-in": (credentials) => enter(() => login(credentials)),
    register: (account) => enter(() => register(account)),
  });
  store.subscribe((state) => (form.ended = state.ended));

  /** @param {() => Promise<unknown>} knock */
  async function enter(knock) {
    form.busy = true;
    form.show([]);
    try {
      await knock();
      // `/api/me` and not the answer itself: it knows more about the account, and proves that the cookie was kept.
      store.dispatch({ type: "signed_in", me: await getMe() });
      form.clear();
    } catch (error) {
      form.show(problemsOf(error));
    } finally {
      form.busy = false;
    }
  }
}

/**
 * End the session here and on the server.
 * @param {Store} store
 * @param {{everywhere?: boolean}} [where]
 */
export async function signOut(store, { everywhere = false } = {}) {
  try {
    await (everywhere ? logout({ everywhere }) : logout());
  } catch (error) {
    if (!(error instanceof ApiError) || !error.isSignedOut) {
      // Pretending would leave the session open on a shared machine.
      tell(`You are still signed in. ${messageOf(error)}`);
      return;
    }
  }
  store.dispatch({ type: "signed_out" });
}

/**
 * What is wrong with what a form has sent.
 * @param {unknown} error
 * @returns {FormProblem[]}
 */
export function problemsOf(error) {
  if (!(error instanceof ApiError)) return [{ field: null, text: messageOf(error) }];
  if (error.code === "bad_credentials")
    return [{ field: null, text: "That email and password do not belong together." }];
  if (error.code === "email_taken")
    return [{ field: "email", text: "There is an account with this email already. Sign in instead." }];
  if (error.status === 429) {
    const wait = error.retry_after_s ? `in ${error.retry_after_s} s` : "in a minute";
    return [{ field: null, text: `Too many attempts. Please try again ${wait}.` }];
  }
  const fields = error.errors.map(({ field, message }) => ({ field, text: message }));
  return fields.length ? fields : [{ field: null, text: error.message }];
}
