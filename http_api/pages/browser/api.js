/** What the pages ask by REST, with the session cookie. Every failure is an `ApiError`, which a person can be shown. */

import { PitlaneError as ApiError, Rest } from "../../../clients/javascript/pitlane.js";
import { serverClock } from "./clock.js";

/**
 * @import {AccountView, AvailableCount, CheckoutBody, CheckoutState, Devices, EraseBody, FavoriteAdded, Favorites, FindAnotherBody,
 *   ForgotBody, FreeCheckout, Hours, LoginBody, LogoutBody, NameBody, PasswordBody, PastOffers, Plans, PublicConfig, RegisterBody, Renewed, RequestAnswer, Requests, RequestView, ResetBody, SignedIn, StatusView,
 *   StripeCheckout, PreferencesBody, PreferencesView, PushKey, PushSubscribed, PushSubscriptions} from "./wire.js"
 */

/** Making a checkout waits for Stripe, which may retry. */
const CHECKOUT_TIMEOUT_MS = 25_000;

const rest = new Rest({ clock: serverClock });
const call = rest.call.bind(rest);
/** Asks who is signed in by now, whoever was. */
const whoever = new Rest({ clock: serverClock });

/**
 * From now on calls are for this account alone: once another tab has signed in somebody else, they are refused.
 * @param {string | null} account_id  null: for whoever is signed in
 */
export const callFor = (account_id) => void (rest.account_id = account_id);

export { ApiError };

/**
 * The message of anything thrown, for showing next to what was tried.
 * @param {unknown} error
 * @returns {string}
 */
export function messageOf(error) {
  if (error instanceof ApiError) return error.message;
  // Ours to fix, so leave the trace in the console as well as a sentence on the page.
  console.error(error);
  return "Something went wrong on this page. Please reload it.";
}

const encoded = encodeURIComponent;

/** @returns {Promise<PublicConfig>} */
export const getConfig = () => call("GET", "/api/config");
/** @returns {Promise<AccountView>} */
export const getMe = () => whoever.call("GET", "/api/me");

/**
 * @param {LoginBody} credentials
 * @returns {Promise<SignedIn>}
 */
export const login = (credentials) => call("POST", "/api/auth/login", { body: credentials });
/**
 * @param {RegisterBody} account
 * @returns {Promise<SignedIn>}
 */
export const register = (account) => call("POST", "/api/auth/register", { body: account });
/** @returns {Promise<Renewed>} */
export const renew = () => call("POST", "/api/auth/renew");
/**
 * @param {LogoutBody} [body]
 * @returns {Promise<null>}
 */
export const logout = (body) => call("POST", "/api/auth/logout", body ? { body } : {});
/**
 * @param {PasswordBody} change
 * @returns {Promise<SignedIn>}
 */
export const changePassword = (change) => call("POST", "/api/auth/password", { body: change });
/**
 * @param {ForgotBody} body
 * @returns {Promise<null>}
 */
export const forgotPassword = (body) => call("POST", "/api/auth/password/forgot", { body });
/**
 * @param {ResetBody} body
 * @returns {Promise<SignedIn>}
 */
export const resetPassword = (body) => call("POST", "/api/auth/password/reset", { body });
/**
 * @param {NameBody} change
 * @returns {Promise<AccountView>}
 */
export const changeName = (change) => call("PATCH", "/api/me", { body: change });
/**
 * @param {EraseBody} proof
 * @returns {Promise<null>}
 */
export const eraseMe = (proof) => call("DELETE", "/api/me", { body: proof });
/** @returns {Promise<Devices>} */
export const getDevices = () => call("GET", "/api/me/devices");
/**
 * @param {string} id
 * @returns {Promise<null>}
 */
export const signOutDevice = (id) => call("DELETE", `/api/me/devices/${encoded(id)}`);

/** @returns {Promise<Favorites>} */
export const getFavorites = () => call("GET", "/api/favorites");
/**
 * @param {string} mechanic_id
 * @returns {Promise<FavoriteAdded>}
 */
export const addFavorite = (mechanic_id) => call("PUT", `/api/favorites/${encoded(mechanic_id)}`);
/**
 * @param {string} mechanic_id
 * @returns {Promise<null>}
 */
export const removeFavorite = (mechanic_id) => call("DELETE", `/api/favorites/${encoded(mechanic_id)}`);

/**
 * @param {string} mechanic_id
 * @param {AbortSignal} signal
 * @returns {Promise<StatusView>}
 */
export const getStatus = (mechanic_id, signal) =>
  call("GET", `/api/mechanics/${encoded(mechanic_id)}/status`, { signal });
/**
 * @param {string | null} plan  null: of any kind
 * @returns {Promise<AvailableCount>}
 */
export const getAvailability = (plan) =>
  call("GET", `/api/mechanics/availability${plan ? `?plan=${encoded(plan)}` : ""}`);
/** @returns {Promise<Plans>} */
export const getPlans = () => call("GET", "/api/plans");

/**
 * @param {CheckoutBody} choice
 * @param {string} idempotency_key  the same for every try of one choice, so that retrying is safe
 * @returns {Promise<StripeCheckout | FreeCheckout>}
 */
export const makeCheckout = (choice, idempotency_key) =>
  call("POST", "/api/checkout", {
    body: choice,
    headers: { "idempotency-key": idempotency_key },
    timeout_ms: CHECKOUT_TIMEOUT_MS,
  });
/**
 * @param {string} checkout_id
 * @returns {Promise<CheckoutState>}
 */
export const getCheckout = (checkout_id) => call("GET", `/api/checkout/${encoded(checkout_id)}`);

/**
 * @param {string} offer_id
 * @returns {Promise<RequestAnswer>}
 */
export const acceptOffer = (offer_id) => call("POST", `/api/offers/${encoded(offer_id)}/accept`);
/**
 * @param {string} offer_id
 * @returns {Promise<null>}
 */
export const declineOffer = (offer_id) => call("POST", `/api/offers/${encoded(offer_id)}/decline`);

/**
 * Decline while the page goes away: the browser brings it to the server also when nothing of the page is left.
 * @param {string} offer_id
 * @param {string | null} reason
 */
export function declineInPassing(offer_id, reason) {
  const body = JSON.stringify(reason ? { reason } : {});
  const headers = { "content-type": "application/json", ...rest.ownHeaders };
  const sent = fetch(`/api/offers/${encoded(offer_id)}/decline`, { method: "POST", keepalive: true, headers, body });
  // Nobody is here to be told; if the page is, after all, the offer comes back with the next word of the server.
  sent.catch((error) => console.warn("A decline may not have arrived:", error));
}

/**
 * @param {string | null} cursor  null: the newest
 * @returns {Promise<Requests>}
 */
export const getRequests = (cursor) =>
  call("GET", `/api/requests?limit=10${cursor ? `&cursor=${encoded(cursor)}` : ""}`);
/**
 * @param {string} request_id
 * @returns {Promise<RequestView>}
 */
export const getRequest = (request_id) => call("GET", `/api/requests/${encoded(request_id)}`);
/**
 * @param {string} request_id
 * @param {"skip-wait" | "cancel" | "find-another" | "start" | "complete" | "release"} action
 * @param {FindAnotherBody} [body]
 * @returns {Promise<RequestAnswer>}
 */
export const actOnRequest = (request_id, action, body) =>
  call("POST", `/api/requests/${encoded(request_id)}/${action}`, { body });
/**
 * Say that something was wrong with a session; once.
 * @param {string} request_id
 * @param {string} reason
 * @returns {Promise<RequestAnswer>}
 */
export const reportSession = (request_id, reason) =>
  call("POST", `/api/requests/${encoded(request_id)}/report`, { body: { reason } });

/** @returns {Promise<PushKey>} */
export const getPushKey = () => call("GET", "/api/push/key");
/** @returns {Promise<PushSubscriptions>} */
export const getPushSubscriptions = () => call("GET", "/api/push/subscriptions");
/**
 * @param {PushSubscriptionJSON & {label?: string}} subscription
 * @returns {Promise<PushSubscribed>}
 */
export const addPushSubscription = (subscription) => call("POST", "/api/push/subscriptions", { body: subscription });
/**
 * @param {string} endpoint
 * @returns {Promise<null>}
 */
export const removePushSubscription = (endpoint) => call("DELETE", "/api/push/subscriptions", { body: { endpoint } });
/**
 * @param {string} id  of any browser of one's own
 * @returns {Promise<null>}
 */
export const removePushDevice = (id) => call("DELETE", `/api/push/subscriptions/${encoded(id)}`);
/**
 * @param {string | null} endpoint  null: to all of one's browsers
 * @returns {Promise<null>}
 */
export const testPush = (endpoint) => call("POST", "/api/push/test", { body: { endpoint } });

/**
 * @param {string} from  `2026-11-29`
 * @param {string} to
 * @returns {Promise<Hours>}
 */
export const getHours = (from, to) => call("GET", `/api/me/hours?from=${from}&to=${to}`);
/**
 * @param {string | null} cursor  null: the newest
 * @returns {Promise<PastOffers>}
 */
export const getPastOffers = (cursor) =>
  call("GET", `/api/offers/past?limit=20${cursor ? `&cursor=${encoded(cursor)}` : ""}`);

/** @returns {Promise<PreferencesView>} */
export const getPreferences = () => call("GET", "/api/me/preferences");
/**
 * @param {PreferencesBody} preferences
 * @returns {Promise<PreferencesView>}
 */
export const setPreferences = (preferences) => call("PUT", "/api/me/preferences", { body: preferences });
