/** What the mechanic answers to offers, on its way to the server: at once, or once it can no longer be taken back. */

import { declineInPassing } from "./api.js";
import { announce, tell } from "./announcer.js";

/**
 * @import {MechanicClient} from "../../../clients/javascript/pitlane.js"
 * @import {Store} from "./store.js"
 * @import {TrackedOffer} from "./offers.js"
 */

/** How long a decline can be taken back before the server is told. */
const UNDO_MS = 5_000;

/**
 * @param {Store} store
 * @param {MechanicClient} client  it brings an answer home, over the socket or by REST
 * @param {() => {accept: string, decline: string}} refusals  why an answer cannot be given now; empty if it can
 */
export function createAnswers(store, client, refusals) {
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
   * @param {"accept" | "decline"} answer
   * @param {string | null} [reason]
   */
  async function give(offer_id, answer, reason = null) {
    store.dispatch({ type: "offer_answered", offer_id, answer });
    const said = await (answer === "accept" ? client.accept(offer_id) : client.decline(offer_id, reason));
    // Of every other outcome the client's messages have told the store.
    if (said.outcome === "unknown") store.dispatch({ type: "offer_unanswered", offer_id, problem: said.message });
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
    void give(offer_id, "decline", declining.reason);
  }

  return {
    /** @param {string} offer_id */
    accept(offer_id) {
      if (!answerable(offer_id)) return;
      const { accept: refusal } = refusals();
      if (refusal) tell(refusal);
      else void give(offer_id, "accept");
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
        // Also in the usual way, which is safe to repeat: the page may stay, and then wants to know what came of it.
        void give(offer_id, "decline", declining.reason);
      }
    },
  };
}
