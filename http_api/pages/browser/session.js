/**
 * Staying signed in: a session is renewed while the page is used, and one that has ended says why.
 *
 * So somebody who opens the page every day never signs in again. An open socket goes on with the token that it was opened with;
 * when that ends, the socket is opened anew (see `resume`), and the snapshot after it has whatever was missed.
 */

import { ApiError, getMe, renew } from "./api.js";
import { serverNow } from "./clock.js";

/**
 * @import {AccountView} from "./wire.js"
 * @import {Store} from "./store.js"
 * @import {Loader} from "./loading.js"
 */

/**
 * When a session ends, and from when on it is worth renewing; the server's time.
 * @typedef {{expires_ms: number, renew_ms: number}} Session
 */
/** Why somebody has to sign in again. @typedef {"expired" | "elsewhere"} Ended */

const STORAGE_KEY = "pitlane.session";
/** What is known of the server's time may be of an answer's `Date`, which has whole seconds. */
const CLOCKS_APART_MS = 2_000;
/** A page that is left open is looked at by nobody for days. */
const LOOK_AGAIN_MS = 3_600_000;

/**
 * @param {AccountView} me  as `/api/me` tells it
 * @returns {Session | null}  null: the server does not say
 */
export function sessionOf({ session_expires_at, session_renew_at }) {
  const expires_ms = Date.parse(session_expires_at ?? "");
  const renew_ms = Date.parse(session_renew_at ?? "");
  return Number.isFinite(expires_ms) && Number.isFinite(renew_ms) ? { expires_ms, renew_ms } : null;
}

/**
 * Why a session is over that was good until `expires_ms`.
 * @param {{expires_ms: number} | null} session  null: nobody was signed in, as far as we know
 * @returns {Ended | null}
 */
export function whyEnded(session) {
  if (!session) return null;
  return session.expires_ms <= serverNow() + CLOCKS_APART_MS ? "expired" : "elsewhere";
}

/**
 * Take in what the server says of who is signed in, where somebody was: they still are, or somebody else is by now.
 * @param {Store} store
 * @param {AccountView} me
 */
export function tookMe(store, me) {
  if (me.id === store.state.me?.id) store.dispatch({ type: "session_renewed", session: sessionOf(me) });
  else store.dispatch({ type: "signed_out", ended: "elsewhere" });
}

/**
 * Renew the session when it is worth it: at the start, when the page is looked at again, and once an hour.
 * @param {Store} store
 */
export function keepSignedIn(store) {
  let renewing = false;

  async function look() {
    const { me, session } = store.state;
    if (!me || !session || renewing || serverNow() < session.renew_ms) return;
    renewing = true;
    const isStillHere = store.whoIsHere();
    try {
      await renew();
      const me = await getMe();
      if (isStillHere()) tookMe(store, me);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Half of its life is left for trying again; whether it has ended, the next thing that is asked for tells.
      console.warn("The session could not be renewed:", error.message);
    } finally {
      renewing = false;
    }
  }

  store.subscribe((state, before) => {
    if (state.session !== before.session) keptSession.keep(state.session);
    if (state.me !== before.me) void look();
  });
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && void look());
  setInterval(() => void look(), LOOK_AGAIN_MS);
}

/**
 * The socket's token has ended. The page's session may have been renewed since; then the socket is opened anew.
 * @param {{start: () => void}} socket
 * @param {Loader} load
 */
export async function resume(socket, load) {
  if (await load.stillSignedIn()) socket.start();
}

/**
 * Another tab has signed somebody in or out, or renewed the session: find out who is here, before anything more is shown.
 * @param {Loader} load
 */
export function heedOtherTabs(load) {
  window.addEventListener("storage", ({ key }) => key === STORAGE_KEY && void load.stillSignedIn());
}

/** The session of this browser, remembered so that the next visit can say why it is over. */
export const keptSession = {
  /** @param {Session | null} session  null: forget it */
  keep(session) {
    try {
      if (session) localStorage.setItem(STORAGE_KEY, JSON.stringify(session));
      else localStorage.removeItem(STORAGE_KEY);
    } catch (error) {
      console.warn("The session cannot be remembered:", error);
    }
  },

  /** @returns {{expires_ms: number} | null} */
  recall() {
    try {
      const kept = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "null");
      return typeof kept?.expires_ms === "number" ? kept : null;
    } catch (error) {
      console.warn("The session cannot be recalled:", error);
      return null;
    }
  },
};
