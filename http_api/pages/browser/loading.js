/** Fetching what the pages start from, into the store. Both pages load the same way; only what they ask for differs. */

import { ApiError, getAvailability, getFavorites, getHours, getMe, getPastOffers, getPlans, getPreferences, getRequest, getRequests, messageOf } from "./api.js";

import { serverNow } from "./clock.js";
import { dayOf } from "./day-words.js";
import { newestFirst } from "./requests.js";
import { sessionOf, whyEnded } from "./session.js";

/** @import {Store} from "./store.js" */

/** Three weeks: this one, and two to compare it with. */
const HOURS_SHOWN_MS = 20 * 86_400_000;

/** @param {Store} store */
export function createLoader(store) {
  let counts = 0;

  /**
   * True if the failure is that nobody is signed in any more; then the page goes to the sign-in.
   * @param {unknown} error
   */
  function signedOutBy(error) {
    if (!(error instanceof ApiError) || error.status !== 401) return false;
    store.dispatch({ type: "signed_out", ended: whyEnded(store.state.session) });
    return true;
  }

  /**
   * For what the page can do without for a while: the socket brings what matters, and the next change asks again.
   * @param {string} what
   * @param {unknown} error
   */
  function missed(what, error) {
    if (!signedOutBy(error)) console.warn(`${what} could not be loaded:`, messageOf(error));
  }

  return {
    signedOutBy,

    /**
     * Notice that the session has ended, where only REST can tell.
     * @returns {Promise<boolean>}  true as long as nobody has said that it has
     */
    async stillSignedIn() {
      try {
        // Another tab may have renewed it.
        store.dispatch({ type: "session_renewed", session: sessionOf(await getMe()) });
      } catch (error) {
        return !signedOutBy(error);
      }
      return true;
    },

    async favorites() {
      try {
        store.dispatch({ type: "favorites_loaded", ...(await getFavorites()) });
      } catch (error) {
        if (!signedOutBy(error)) store.dispatch({ type: "favorites_failed", problem: messageOf(error) });
      }
    },

    async plans() {
      try {
        store.dispatch({ type: "plans_loaded", ...(await getPlans()) });
      } catch (error) {
        if (!store.state.plans) store.dispatch({ type: "plans_failed", problem: messageOf(error) });
      }
    },

    /** @param {string | null} [cursor]  null: the newest */
    async requests(cursor = null) {
      try {
        const answer = await getRequests(cursor);
        store.dispatch({ type: "requests_loaded", ...answer, received_ms: performance.now() });
      } catch (error) {
        missed("Past requests", error);
      }
    },

    /** @param {string} request_id */
    async request(request_id) {
      try {
        const request = await getRequest(request_id);
        store.dispatch({ type: "request_loaded", request, received_ms: performance.now() });
      } catch (error) {
        // No longer ours: a mechanic's, given back or taken away while they were offline.
        if (error instanceof ApiError && error.status === 404) store.dispatch({ type: "request_lost", request_id });
        else missed("A request", error);
      }
    },

    /** Of those who take what is being asked for, or would be: the request that is broadcast, else the chosen plan. */
    async days() {
      const today_ms = serverNow();
      try {
        store.dispatch({ type: "days_loaded", ...(await getHours(dayOf(today_ms - HOURS_SHOWN_MS), dayOf(today_ms))) });
      } catch (error) {
        if (!signedOutBy(error)) store.dispatch({ type: "days_failed", problem: messageOf(error) });
      }
    },

    /** @param {string | null} [cursor]  null: the newest */
    async pastOffers(cursor = null) {
      try {
        const { offers, next_cursor } = await getPastOffers(cursor);
        store.dispatch({ type: "past_offers_loaded", offers, next_cursor, goes_on: cursor !== null });
      } catch (error) {
        if (!signedOutBy(error)) store.dispatch({ type: "past_offers_failed", problem: messageOf(error) });
      }
    },

    async preferences() {
      try {
        store.dispatch({ type: "preferences_loaded", preferences: await getPreferences() });
      } catch (error) {
        if (!signedOutBy(error)) store.dispatch({ type: "preferences_failed", problem: messageOf(error) });
      }
    },

    async availableCount() {
      const { requests, booking } = store.state;
      const asked = newestFirst(Object.values(requests)).find(({ status }) => status === "broadcasting");
      const turn = (counts += 1);
      try {
        const counted = await getAvailability(asked?.plan ?? booking.plan);
        // Of another plan, and overtaken by the answer that counts.
        if (turn === counts) store.dispatch({ type: "availability_counted", ...counted });
      } catch (error) {
        missed("The number of available mechanics", error);
      }
    },
  };
}

/** @typedef {ReturnType<typeof createLoader>} Loader */
