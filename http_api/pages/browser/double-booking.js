/** Whoever has an open request with a favourite and books them again is asked whether that is meant, before they pay. */

import { isOpen, openWith } from "./requests.js";
import { onceMoreWords, overtakenText } from "./request-story.js";

/**
 * @import {OnceMoreDialog, Question} from "./once-more-dialog.js"
 * @import {TrackedRequest} from "./requests.js"
 * @import {Store} from "./store.js"
 * @import {Person} from "./wire.js"
 */

/**
 * @param {Store} store
 * @param {OnceMoreDialog} dialog
 * @param {object} ways
 * @param {(mechanic: Person | null) => string} ways.shortNameOf
 * @param {(request_id: string) => void} ways.openRequest
 */
export function createDoubleBooking(store, dialog, { shortNameOf, openRequest }) {
  /** Beside which requests another one is meant. @type {Set<string>} */
  const meant = new Set();
  /** What the open question is about. @type {{favorite: Person, request_id: string} | null} */
  let asked = null;

  /**
   * @param {Person} favorite
   * @param {TrackedRequest} request
   * @returns {Question}
   */
  const question = (favorite, request) =>
    onceMoreWords(request, {
      favorite: shortNameOf(favorite),
      preferred: shortNameOf(request.preferred_mechanic),
      assigned: shortNameOf(request.assigned_mechanic),
      is_theirs: request.assigned_mechanic?.id === favorite.id,
      plans: store.state.plans,
    });

  return {
    /**
     * Whether this favourite is to be booked: at once if nothing with them is open, else after a question.
     * @param {Person} favorite
     * @returns {Promise<boolean>}
     */
    async isMeant(favorite) {
      const request = openWith(favorite.id, store.state.requests);
      if (!request || meant.has(request.id)) return true;
      const answer = dialog.ask(question(favorite, request));
      const asking = (asked = { favorite, request_id: request.id });
      const wish = await answer;
      if (asked === asking) asked = null;
      if (wish === "again") meant.add(request.id);
      if (wish === "open") openRequest(request.id);
      return wish === "again";
    },

    /**
     * The request of an open question has moved on: ask in the words that are true now, or no longer.
     * @param {TrackedRequest} request  as it is now
     * @returns {string}  why nothing is asked any more; empty if something is, or nothing was
     */
    follow(request) {
      if (request.id !== asked?.request_id) return "";
      if (isOpen(request)) {
        dialog.update(question(asked.favorite, request));
        return "";
      }
      asked = null;
      dialog.dismiss();
      return overtakenText("book-again", request);
    },
  };
}
