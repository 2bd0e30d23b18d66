/** What the mechanic answers to offers, on its way to the server: at once, or once it can no longer be taken back. */

import { declineInPassing } from "./api.js";
import { announce, tell } from "./announcer.js";

/**
 * @import {Store} from "./store.js"
 * @import {TrackedOffer} from "./requests.js"
 */

/** How long an answer to an offer may take before the mechanic may try again. */
export const ANSWER_TIMEOUT_MS = 8_000;
/** How long a decline can be taken back before the server is told. */
const UNDO_MS = 5_000;

/**
 * @typedef {{type: "accept", offer_id: string} | {type: "decline", offer_id: string, reason?: string}} Answer
 */

/**
 * @param {Store} store
 * @param {(answer: Answer) => boolean} send  false: there is no connection
 * @param {() => {accept: string, decline: string}} refusals  why an answer cannot be given now; empty if it can
 */
export function createAnswers(store, send, refusals) {
  /** One per offer: a second try must not be cut short by the first one's timer. @type {Map<string, ReturnType<typeof setTimeout>>} */
  const unanswered = new Map();
  /** Declines that may still be taken back. @type {Map<string, ReturnType<typeof setTimeout>>} */
  const undoable = new Map();

  /**
   * @param {string} offer_id
   * @returns {TrackedOffer | null}  null: it cannot be answered any more, or is being answered
   */
  function answerable(offer_id) {
    const offer = store.state.offers[offer_id];
    return offer && !offer.pending && !offer.ended ? offer : null;
  }

  /**
   * @param {string} offer_id
   * @param {"accept" | "decline"} answer  that has just been sent
   */
  function awaitAnswer(offer_id, answer) {
    store.dispatch({ type: "offer_answered", offer_id, answer });
    clearTimeout(unanswered.get(offer_id));
    const giveUp = () => {
      unanswered.delete(offer_id);
      store.dispatch({
        type: "offer_unanswered",
        offer_id,
        problem: "No answer from the server yet. Please try again.",
      });
    };
    unanswered.set(offer_id, setTimeout(giveUp, ANSWER_TIMEOUT_MS));
  }

  /** @param {string} offer_id */
  function takeOffTheClock(offer_id) {
    clearTimeout(undoable.get(offer_id));
    undoable.delete(offer_id);
  }

  /** @param {string} offer_id */
  function sendDecline(offer_id) {
    takeOffTheClock(offer_id);
    const { declining } = answerable(offer_id) ?? {};
    if (!declining) return;
    const because = declining.reason ? { reason: declining.reason } : {};
    if (send({ type: "decline", offer_id, ...because })) {
      awaitAnswer(offer_id, "decline");
      return;
    }
    store.dispatch({
      type: "offer_unanswered",
      offer_id,
      problem: "There was no connection, so this is not declined yet. Please try again.",
    });
  }

  return {
    /** @param {string} offer_id */
    accept(offer_id) {
      if (!answerable(offer_id)) return;
      const { accept: refusal } = refusals();
      if (refusal) tell(refusal);
      else if (send({ type: "accept", offer_id })) awaitAnswer(offer_id, "accept");
    },

    /**
     * Decline, unless it is taken back within the next seconds. Said again, it only changes the reason.
     * @param {{offer_id: string, reason: string | null}} decline
     */
    decline({ offer_id, reason }) {
      const offer = answerable(offer_id);
      const { decline: refusal } = refusals();
      if (!offer) return;
      if (refusal) {
        tell(refusal);
        return;
      }
      store.dispatch({ type: "decline_begun", offer_id, reason });
      if (offer.declining) return;
      announce(`Declined. You can undo this for ${UNDO_MS / 1000} seconds.`);
      undoable.set(
        offer_id,
        setTimeout(() => sendDecline(offer_id), UNDO_MS),
      );
    },

    /** @param {string} offer_id */
    undo(offer_id) {
      takeOffTheClock(offer_id);
      store.dispatch({ type: "decline_undone", offer_id });
    },

    /** Send what could still be taken back: whoever closes the page, or puts the phone away, meant it. */
    settle() {
      for (const offer_id of [...undoable.keys()]) {
        takeOffTheClock(offer_id);
        const { declining } = answerable(offer_id) ?? {};
        if (!declining) continue;
        declineInPassing(offer_id, declining.reason);
        awaitAnswer(offer_id, "decline");
      }
    },
  };
}
