/** Fetching what the pages start from, into the store. Both pages load the same way; only what they ask for differs. */

import { ApiError, getAvailability, getFavorites, getHours, getMe, getPastOffers, getPlans, getPreferences, getRequest, getRequests, messageOf } from "./api.js";
import { serverNow } from "./clock.js";
import { dayOf } from "./day-words.js";
import { howEnded, howEndedIn } from "./endings.js";
import { newestFirst } from "./requests.js";
import { tookMe, whyEnded } from "./session.js";

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
    if (!(error instanceof ApiError) || !error.isSignedOut) return false;
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

  /**
   * Ask for who is here now. Once somebody else is, or nobody, the answer is not theirs to see, nor is a refusal about them.
   * @template Answer
   * @param {() => Promise<Answer>} call
   * @param {(answer: Answer) => void} took
   * @param {(error: unknown) => void} failed
   */
  async function ask(call, took, failed) {
    const isStillHere = store.whoIsHere();
    try {
      const answer = await call();
      if (isStillHere()) took(answer);
    } catch (error) {
      if (isStillHere()) failed(error);
    }
  }

  const load = {
    signedOutBy,

    /**
     * Notice that the session has ended, where only REST can tell.
     * @returns {Promise<boolean>}  true as long as nobody has said that it has
     */
    async stillSignedIn() {
      const isStillHere = store.whoIsHere();
      if (!store.state.me) return false;
      // Another tab may have renewed it, or signed in somebody else.
      await ask(getMe, (me) => tookMe(store, me), signedOutBy);
      return isStillHere();
    },

    favorites: () =>
      ask(
        getFavorites,
        (answer) => store.dispatch({ type: "favorites_loaded", ...answer }),
        (error) => {
          if (!signedOutBy(error)) store.dispatch({ type: "favorites_failed", problem: messageOf(error) });
        },
      ),

    plans: () =>
      ask(
        getPlans,
        (answer) => store.dispatch({ type: "plans_loaded", ...answer }),
        (error) => {
          if (!store.state.plans) store.dispatch({ type: "plans_failed", problem: messageOf(error) });
        },
      ),

    /** @param {string | null} [cursor]  null: the newest */
    requests: (cursor = null) =>
      ask(
        () => getRequests(cursor),
        (answer) => store.dispatch({ type: "requests_loaded", ...answer, received_ms: performance.now() }),
        (error) => missed("Past requests", error),
      ),

    /** @param {string} request_id */
    request: (request_id) =>
      ask(
        () => getRequest(request_id),
        (request) => store.dispatch({ type: "request_loaded", request, received_ms: performance.now() }),
        (error) => {
          // No longer ours: a mechanic's, given back or taken away while they were offline.
          if (error instanceof ApiError && error.isNotFound) store.dispatch({ type: "request_lost", request_id });
          else missed("A request", error);
        },
      ),

    /**
     * How a session ended of which nobody has told.
     * @param {string} request_id
     */
    ending(request_id) {
      const me = store.state.me?.id;
      return ask(
        async () => {
          try {
            return howEnded(await getRequest(request_id), me);
          } catch (error) {
            if (!(error instanceof ApiError) || !error.isNotFound) throw error;
            return howEndedIn(request_id, (await getPastOffers(null)).offers);
          }
        },
        (how) => store.dispatch({ type: "ending_found", request_id, how }),
        // It is asked again when there is a connection again.
        (error) => missed("How a session ended", error),
      );
    },

    days() {
      const today_ms = serverNow();
      return ask(
        () => getHours(dayOf(today_ms - HOURS_SHOWN_MS), dayOf(today_ms)),
        (answer) => store.dispatch({ type: "days_loaded", ...answer }),
        (error) => {
          if (!signedOutBy(error)) store.dispatch({ type: "days_failed", problem: messageOf(error) });
        },
      );
    },

    /** @param {string | null} [cursor]  null: the newest */
    pastOffers: (cursor = null) =>
      ask(
        () => getPastOffers(cursor),
        ({ offers, next_cursor }) => store.dispatch({ type: "past_offers_loaded", offers, next_cursor, cursor }),
        (error) => {
          if (!signedOutBy(error)) store.dispatch({ type: "past_offers_failed", problem: messageOf(error) });
        },
      ),

    preferences: () =>
      ask(
        getPreferences,
        (preferences) => store.dispatch({ type: "preferences_loaded", preferences }),
        (error) => {
          if (!signedOutBy(error)) store.dispatch({ type: "preferences_failed", problem: messageOf(error) });
        },
      ),

    /** Of those who take what is being asked for, or would be: the request that is broadcast, else the chosen plan. */
    availableCount() {
      const { requests, booking } = store.state;
      const asked = newestFirst(Object.values(requests)).find(({ status }) => status === "broadcasting");
      const turn = (counts += 1);
      return ask(
        () => getAvailability(asked?.plan ?? booking.plan),
        (counted) => {
          // Of another plan, and overtaken by the answer that counts.
          if (turn === counts) store.dispatch({ type: "availability_counted", ...counted });
        },
        (error) => missed("The number of available mechanics", error),
      );
    },

    /** Ask again for what could not be loaded: the server can be reached again. */
    missing() {
      const { state } = store;
      if (state.plans_problem) void load.plans();
      if (state.favorites_problem) void load.favorites();
      if (state.days_problem) void load.days();
      if (state.past_problem) void load.pastOffers(state.past_cursor);
      if (state.preferences_problem) void load.preferences();
    },
  };
  return load;
}

/** @typedef {ReturnType<typeof createLoader>} Loader */
