/** What must outlive a trip to the payment page and back, and a lost answer. */

/**
 * @import {CheckoutBody} from "./wire.js"
 * @import {Booking} from "./state.js"
 */

const STORAGE_KEY = "pitlane.booking";

/** The choice made in this tab, remembered per account. A browser that refuses storage only forgets. */
export const bookingMemory = {
  /**
   * @param {string} account_id
   * @param {Booking} booking
   */
  keep(account_id, booking) {
    try {
      sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ account_id, booking }));
    } catch (error) {
      console.warn("The choice cannot be remembered:", error);
    }
  },

  /**
   * @param {string} account_id
   * @returns {Booking | null}
   */
  recall(account_id) {
    try {
      const kept = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "null");
      if (kept?.account_id !== account_id || !isBooking(kept.booking)) return null;
      // An older version of this page knew no notes.
      return { ...kept.booking, note: typeof kept.booking.note === "string" ? kept.booking.note : "" };
    } catch (error) {
      console.warn("The choice cannot be recalled:", error);
      return null;
    }
  },

  forget() {
    try {
      sessionStorage.removeItem(STORAGE_KEY);
    } catch (error) {
      console.warn("The choice cannot be forgotten:", error);
    }
  },
};

/**
 * @param {any} value  written by an older version of this page, perhaps
 * @returns {value is Booking}
 */
function isBooking(value) {
  const priority =
    value?.routing_type === "priority_broadcast" &&
    typeof value.favorite?.id === "string" &&
    typeof value.favorite.name === "string";
  const anyone = value?.routing_type === "broadcast" && value.favorite === null;
  return (priority || anyone) && (value.plan === null || typeof value.plan === "string");
}

/**
 * The idempotency key of the checkout being made: one for all tries of one choice, a new one once it was answered.
 * So a retry after a lost answer cannot make two checkouts, and booking the same again tomorrow can.
 */
export class CheckoutKey {
  #choice = "";
  #key = "";

  /**
   * @param {CheckoutBody} choice
   * @returns {string}
   */
  for(choice) {
    const text = JSON.stringify(choice);
    if (!this.#key || this.#choice !== text) {
      this.#choice = text;
      this.#key = newKey();
    }
    return this.#key;
  }

  /** The choice was answered, with a yes or a definite no. */
  spent() {
    this.#key = "";
  }
}

/** `crypto.randomUUID` exists on https and localhost only; a demo is also looked at over a plain local address. */
function newKey() {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
