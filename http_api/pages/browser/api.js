/** REST, with the session cookie. Every failure becomes one typed error that a person can be shown. */

import { hearServerTime } from "./clock.js";

/**
 * @import {AccountView, AvailableCount, CheckoutBody, CheckoutState, FavoriteAdded, Favorites, FieldError, FreeCheckout,
 *   LoginBody, Plans, Problem, PublicConfig, RegisterBody, Renewed, RequestAnswer, Requests, RequestView, SignedIn, StatusView,
 *   StripeCheckout} from "./wire.js"
 */

const TIMEOUT_MS = 10_000;
/** Making a checkout waits for Stripe, which may retry. */
const CHECKOUT_TIMEOUT_MS = 25_000;

/**
 * A call that did not succeed. `code` is the server's stable word, or one of ours: `network`, `timeout`, `unreadable`.
 */
export class ApiError extends Error {
  /**
   * @param {string} code
   * @param {string} message  fit to be shown
   * @param {{status?: number, retry_after_s?: number | null, errors?: FieldError[]}} [more]  status 0: no answer
   */
  constructor(code, message, { status = 0, retry_after_s = null, errors = [] } = {}) {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.status = status;
    this.retry_after_s = retry_after_s;
    this.errors = errors;
  }

  /** True when the same call may simply be made again: nobody knows, or nothing has been decided. */
  get mayRetry() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

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

/**
 * @param {string} method
 * @param {string} path
 * @param {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal, timeout_ms?: number}} [options]
 * @returns {Promise<any>}  null for 204
 * @throws {ApiError}
 */
async function call(method, path, { body, headers = {}, signal, timeout_ms = TIMEOUT_MS } = {}) {
  const timeout = AbortSignal.timeout(timeout_ms);
  /** @type {Response} */
  let response;
  /** @type {string} */
  let text;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      cache: "no-store",
      headers: {
        accept: "application/json",
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (timeout.aborted) throw new ApiError("timeout", "The server is taking too long to answer. Please try again.");
    throw new ApiError("network", "We cannot reach the server. Check your connection and try again.");
  }
  hearServerTime(response.headers.get("date"));
  if (!response.ok) throw refusal(response, text);
  const data = parsed(text);
  if (data === undefined) throw new ApiError("unreadable", "The server's answer could not be read. Please try again.");
  return data;
}

/**
 * @param {string} text
 * @returns {any}  null for an empty text, undefined for one that is not JSON
 */
function parsed(text) {
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * @param {Response} response
 * @param {string} text
 */
function refusal({ status, headers }, text) {
  // Anything else is not our server's: a proxy's page.
  const is_ours = headers.get("content-type")?.startsWith("application/problem+json");
  /** @type {Problem | undefined} */
  const problem = is_ours ? parsed(text) : undefined;
  const unexplained =
    status >= 500 ? "The server has a problem just now. Please try again." : `The server refused this (${status}).`;
  const retry_after_s = Number.parseInt(headers.get("retry-after") ?? "", 10);
  return new ApiError(problem?.code ?? `http_${status}`, problem?.detail ?? unexplained, {
    status,
    retry_after_s: Number.isFinite(retry_after_s) ? retry_after_s : null,
    errors: problem?.errors ?? [],
  });
}

const encoded = encodeURIComponent;

/** @returns {Promise<PublicConfig>} */
export const getConfig = () => call("GET", "/api/config");
/** @returns {Promise<AccountView>} */
export const getMe = () => call("GET", "/api/me");

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
/** @returns {Promise<null>} */
export const logout = () => call("POST", "/api/auth/logout");

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
 * Decline while the page goes away: the browser brings it to the server also when nothing of the page is left.
 * @param {string} offer_id
 * @param {string | null} reason
 */
export function declineInPassing(offer_id, reason) {
  const body = JSON.stringify(reason ? { reason } : {});
  const headers = { "content-type": "application/json" };
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
 * @param {"skip-wait" | "cancel" | "start" | "complete" | "release"} action
 * @returns {Promise<RequestAnswer>}
 */
export const actOnRequest = (request_id, action) => call("POST", `/api/requests/${encoded(request_id)}/${action}`);
