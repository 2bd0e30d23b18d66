/** To the payment page and back: making the checkout, and finding out afterwards what became of it. */

import { ApiError, getCheckout, getRequest, makeCheckout, messageOf } from "./api.js";
import { CheckoutKey } from "./booking.js";

/**
 * @import {CheckoutBody} from "./wire.js"
 * @import {CheckoutReturnState} from "./state.js"
 * @import {Store} from "./store.js"
 * @import {Loader} from "./loading.js"
 */

/** After payment: ask often at first, then ever less, for about two minutes in all. */
const POLL_FIRST_MS = 400;
const POLL_MAX_MS = 8_000;
const POLL_FOR_MS = 120_000;

/**
 * @param {Store} store
 * @param {Loader} load
 * @param {(request_id: string) => void} onBooked  a request has come of it
 */
export function createCheckout(store, load, onBooked) {
  const key = new CheckoutKey();
  /** Who asks about which checkout, so that two events do not start two polls. @type {string | null} */
  let following = null;

  /** "Continue to Checkout", or where nothing is to pay "Book Free Session". Clicks while one is under way do nothing. */
  async function pay() {
    const { booking, checkout } = store.state;
    if (checkout.phase !== "idle" || !booking.plan) return;
    /** @type {CheckoutBody} */
    const choice = {
      plan: booking.plan,
      routing_type: booking.routing_type,
      preferred_mechanic_id: booking.favorite?.id ?? null,
    };
    const note = booking.note.trim();
    if (note) choice.note = note;
    store.dispatch({ type: "checkout_moved", phase: "sending" });
    const isStillHere = store.whoIsHere();
    try {
      const made = await makeCheckout(choice, key.for(choice));
      key.spent();
      // Nobody pays for whoever was here before.
      if (!isStillHere()) return;
      if (made.kind === "stripe") {
        store.dispatch({ type: "checkout_moved", phase: "leaving" });
        location.assign(made.url);
        return;
      }
      store.dispatch({ type: "checkout_moved", phase: "idle" });
      store.dispatch({
        type: "request_loaded",
        request: made.request,
        received_ms: performance.now(),
        follow: true,
      });
      onBooked(made.request.id);
    } catch (error) {
      if (error instanceof ApiError && !error.mayRetry) key.spent();
      if (!isStillHere() || load.signedOutBy(error)) return;
      const is_unanswered = error instanceof ApiError && error.status === 0;
      store.dispatch({ type: "checkout_moved", phase: "idle", problem: problemText(error), is_unanswered });
    }
  }

  /** @param {unknown} error */
  function problemText(error) {
    switch (error instanceof ApiError ? error.code : "") {
      case "stripe_unavailable":
        return "The payment service does not answer just now. Nothing was charged; please try again.";
      case "checkout_refused":
        // Stripe's reason is for whoever keeps the plans; what helps the visitor is another one.
        return "This plan cannot be paid for just now. Nothing was charged; please choose another plan.";
      case "free_session_used":
        void load.plans();
        return "You have already used your free diagnostic. Please choose another plan.";
      case "plan_not_offered":
        // Their status says what they take; with it the plans are marked.
        void load.favorites();
        return "Your favorite does not take this kind of session any more. Please choose another plan.";
      case "unknown_plan":
        void load.plans();
        return "This plan is no longer offered. Please choose another.";
      case "mechanic_not_found":
      case "preferred_mechanic_required":
        store.dispatch({ type: "booking_chosen", routing_type: "broadcast", favorite: null });
        return "This mechanic can no longer be booked. Continue to ask any available mechanic instead.";
      case "idempotency_key_reused":
        return "Your choice changed on the way. Please try again.";
      default:
        return messageOf(error);
    }
  }

  /** Follow the checkout that the address names, if it names one: `?checkout=…`, with `&cancelled=1` after "back". */
  async function followReturn() {
    const address = new URL(location.href);
    const checkout_id = address.searchParams.get("checkout");
    const asked = `${store.state.me?.id} ${checkout_id}`;
    if (!checkout_id || following === asked) return;
    following = asked;
    const left = address.searchParams.has("cancelled");
    if (!left) store.dispatch({ type: "return_moved", returned: { checkout_id, phase: "confirming", problem: null } });
    try {
      await poll(checkout_id, left);
    } finally {
      if (following === asked) following = null;
    }
  }

  /**
   * Ask until the payment is settled, the time for asking is up, or nobody is signed in any more.
   * @param {string} checkout_id
   * @param {boolean} left  the visitor says they did not pay: asked all the same, for money is not a matter of belief
   */
  async function poll(checkout_id, left) {
    const until_ms = performance.now() + POLL_FOR_MS;
    const isStillHere = store.whoIsHere();
    for (let wait_ms = POLL_FIRST_MS; store.state.me && isStillHere(); wait_ms = Math.min(wait_ms * 1.6, POLL_MAX_MS)) {
      /** @type {string | null} */
      let problem = null;
      let asked_ms = 0;
      try {
        if (await settled(checkout_id, left, isStillHere)) return;
      } catch (error) {
        if (!isStillHere() || load.signedOutBy(error)) return;
        if (error instanceof ApiError && error.isNotFound) {
          settle(null);
          return;
        }
        problem = messageOf(error);
        if (error instanceof ApiError) asked_ms = (error.retry_after_s ?? 0) * 1_000;
      }
      if (performance.now() > until_ms) {
        store.dispatch({ type: "return_moved", returned: { checkout_id, phase: "slow", problem } });
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, Math.max(asked_ms, wait_ms * (0.75 + Math.random() / 2))));
    }
  }

  /**
   * Ask once. True if there is nothing left to wait for.
   * @param {string} checkout_id
   * @param {boolean} left
   * @param {() => boolean} isStillHere
   */
  async function settled(checkout_id, left, isStillHere) {
    const { status, request_id } = await getCheckout(checkout_id);
    if (!isStillHere()) return true;
    if (status === "expired" || status === "failed") {
      settle({ checkout_id, phase: status, problem: null });
      return true;
    }
    if (status === "paid" && request_id) {
      const request = await getRequest(request_id);
      if (!isStillHere()) return true;
      store.dispatch({ type: "request_loaded", request, received_ms: performance.now(), follow: true });
      settle(null);
      onBooked(request_id);
      return true;
    }
    if (status === "open" && left) {
      settle({ checkout_id, phase: "left", problem: null });
      return true;
    }
    return false;
  }

  /** @param {CheckoutReturnState | null} returned  null: nothing to say */
  function settle(returned) {
    store.dispatch({ type: "return_moved", returned });
    // A reload must not ask about this payment again.
    history.replaceState(null, "", location.pathname);
  }

  return { pay, followReturn, dismissReturn: () => settle(null) };
}
