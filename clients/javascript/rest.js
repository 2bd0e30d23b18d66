/** REST with the session cookie or a bearer token. Every failure becomes one typed error that a person can be shown. */

import { ServerClock } from "./clock.js";

/** @import {FieldError, Problem, Ticket} from "./wire.js" */

/**
 * A JWT, or what gives one, asked before every call: so it may be refreshed. It is asked once more when the server refuses
 * the one that it gave; if it gives the same, nobody is signed in any more.
 * @typedef {string | (() => string | Promise<string>)} Token
 */
/**
 * @typedef {object} CallOptions
 * @property {unknown} [body]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]  when it aborts, its reason is thrown
 * @property {number} [timeout_ms]
 */

const TIMEOUT_MS = 10_000;
const NO_CONTENT = 204;
/** Says whose a call is. */
const ACCOUNT_HEADER = "pitlane-account";
/** Nobody means longer, and a timer cannot wait for a month. */
const RETRY_AFTER_MAX_S = 86_400;

/**
 * A call that did not succeed. `code` is the server's stable word, or one of ours: `network`, `timeout`,
 * `unreadable`, `no_token`.
 */
export class PitlaneError extends Error {
  /**
   * @param {string} code
   * @param {string} message  fit to be shown
   * @param {object} [more]
   * @param {number} [more.status]  0: no answer
   * @param {boolean} [more.is_ours]  whether it is the server's own word, and not a proxy's page
   * @param {number | null} [more.retry_after_s]
   * @param {FieldError[]} [more.errors]
   * @param {unknown} [more.cause]
   */
  constructor(code, message, { status = 0, is_ours = false, retry_after_s = null, errors = [], cause } = {}) {
    super(message, { cause });
    this.name = "PitlaneError";
    this.code = code;
    this.status = status;
    this.is_ours = is_ours;
    this.retry_after_s = retry_after_s;
    this.errors = errors;
  }

  /** True when the same call may simply be made again: nobody knows, or nothing has been decided. */
  get mayRetry() {
    return !this.is_ours || this.status === 408 || this.status === 429 || this.status >= 500;
  }

  /** True when the server says that nobody is signed in; a proxy does not know. */
  get isSignedOut() {
    return this.is_ours && this.status === 401;
  }

  /** True when the server says that there is no such thing, or that it is somebody else's. */
  get isNotFound() {
    return this.is_ours && this.status === 404;
  }
}

export class Rest {
  #base;
  #token;
  #clock;
  /**
   * Whose calls these are, where only the cookie says so: the server refuses them once somebody else has signed in, in another
   * tab. null: whoever is signed in. @type {string | null}
   */
  account_id = null;

  /**
   * @param {object} [where]
   * @param {string | undefined} [where.base]  the server's address; without one paths are those of the page
   * @param {Token | undefined} [where.token]  without one the session cookie is sent
   * @param {ServerClock} [where.clock]  hears the time of each answer
   */
  constructor({ base, token, clock = new ServerClock() } = {}) {
    this.#base = base;
    this.#token = token;
    this.#clock = clock;
  }

  /** Whether calls carry a token instead of the cookie. */
  get hasToken() {
    return this.#token !== undefined;
  }

  /** What says whose a call with the cookie is. @returns {Record<string, string>} */
  get ownHeaders() {
    return this.account_id === null ? {} : { [ACCOUNT_HEADER]: this.account_id };
  }

  /** Whether another token may be had when one is refused. */
  get canRenew() {
    return typeof this.#token === "function";
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {CallOptions} [options]
   * @returns {Promise<any>}  null for 204
   * @throws {PitlaneError}
   */
  async call(method, path, options = {}) {
    const { data } = await this.#callWithFresh(null, method, path, options);
    return data;
  }

  /**
   * What opens one socket.
   * @param {string | null} refused  a token that the server does not take any more
   * @param {AbortSignal} signal
   * @returns {Promise<{ticket: string, token: string | null}>}  and the token that it was given for
   * @throws {PitlaneError}
   */
  async ticket(refused, signal) {
    const { data, token } = await this.#callWithFresh(refused, "POST", "/api/ws-ticket", { signal });
    return { ticket: naming(/** @type {Ticket | null} */ (data), "ticket").ticket, token };
  }

  /**
   * Where the token is refused and another can be had, call once more with that. Once altogether: who refuses a fresh one has
   * something against the account.
   * @param {string | null} refused  this one has been already
   * @param {string} method
   * @param {string} path
   * @param {CallOptions} options
   */
  async #callWithFresh(refused, method, path, { signal, timeout_ms = TIMEOUT_MS, ...options }) {
    const timeout = AbortSignal.timeout(timeout_ms);
    const ending = signal ? AbortSignal.any([signal, timeout]) : timeout;
    try {
      const token = await this.#freshToken(refused, ending);
      try {
        return { data: await this.#callOnce(token, method, path, { ...options, signal: ending }), token };
      } catch (error) {
        const may_renew = this.canRenew && refused === null && error instanceof PitlaneError && error.isSignedOut;
        if (!may_renew) throw error;
      }
      const fresh = await this.#freshToken(token, ending);
      return { data: await this.#callOnce(fresh, method, path, { ...options, signal: ending }), token: fresh };
    } catch (error) {
      if (signal?.aborted || !timeout.aborted || error instanceof PitlaneError) throw error;
      throw new PitlaneError("timeout", "The server is taking too long to answer. Please try again.");
    }
  }

  /**
   * @param {string | null} token
   * @param {string} method
   * @param {string} path
   * @param {Omit<CallOptions, "timeout_ms"> & {signal: AbortSignal}} options
   * @returns {Promise<any>}
   */
  async #callOnce(token, method, path, { body, headers = {}, signal }) {
    /** @type {Response} */
    let response;
    /** @type {string} */
    let text;
    try {
      response = await fetch(this.#base ? new URL(path, this.#base) : path, {
        method,
        credentials: this.hasToken ? "omit" : "same-origin",
        cache: "no-store",
        headers: {
          accept: "application/json",
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(token === null ? this.ownHeaders : { authorization: `Bearer ${token}` }),
          ...headers,
        },
        body: body === undefined ? null : JSON.stringify(body),
        signal,
      });
      text = await response.text();
    } catch (error) {
      if (signal.aborted) throw error;
      throw new PitlaneError("network", "We cannot reach the server. Check your connection and try again.");
    }
    this.#clock.hear(response.headers.get("date"));
    if (!response.ok) throw refusal(response, text);
    if (response.status === NO_CONTENT) return null;
    const data = parsed(text);
    // What the server answers is an object; anything else, nothing included, is a proxy's or was lost on its way.
    if (typeof data !== "object" || data === null) throw unreadable();
    return data;
  }

  /**
   * @param {string | null} refused
   * @param {AbortSignal} signal
   * @returns {Promise<string | null>}  null where there are no tokens
   * @throws {PitlaneError}  there is none just now, or none but the one that was refused
   */
  async #freshToken(refused, signal) {
    if (this.#token === undefined) return null;
    // What gives the token may ask somebody else for it, who does not answer either.
    const token = await unless(signal, this.#currentToken());
    if (token !== refused) return token;
    throw new PitlaneError("unauthenticated", "Please sign in again.", { status: 401, is_ours: true });
  }

  /** @returns {Promise<string>} */
  async #currentToken() {
    try {
      return await (typeof this.#token === "function" ? this.#token() : /** @type {string} */ (this.#token));
    } catch (cause) {
      throw new PitlaneError("no_token", "There is nothing to sign this call with. Please try again.", { cause });
    }
  }
}

/**
 * What a promise gives, unless the signal aborts first; then its reason is thrown.
 * @template T
 * @param {AbortSignal} signal
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
function unless(signal, promise) {
  return new Promise((resolve, reject) => {
    promise.then(resolve, reject);
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/**
 * The answer, if it names what ours would; not every JSON, and not every 204, is an answer of the server's.
 * @template {object} Answer
 * @param {Answer | null} answer
 * @param {keyof Answer} name
 * @returns {Answer}
 * @throws {PitlaneError}
 */
export function naming(answer, name) {
  if (answer === null || answer[name] === undefined) throw unreadable();
  return answer;
}

const unreadable = () => new PitlaneError("unreadable", "The server's answer could not be read. Please try again.");

/**
 * @param {string} text
 * @returns {any}  undefined for what is not JSON
 */
function parsed(text) {
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
  // Anything else is not our server's but a proxy's page: nothing is known to have been done.
  const says_so = headers.get("content-type")?.startsWith("application/problem+json");
  /** @type {Problem | null | undefined} */
  const problem = says_so ? parsed(text) : undefined;
  const is_ours = typeof problem?.code === "string";
  const unexplained =
    status >= 500
      ? "The server has a problem just now. Please try again."
      : `Something on the way to the server refused this (${status}). Please try again.`;
  const retry_after_s = Number.parseInt(headers.get("retry-after") ?? "", 10);
  return new PitlaneError(problem?.code ?? `http_${status}`, problem?.detail ?? unexplained, {
    status,
    is_ours,
    retry_after_s: Number.isFinite(retry_after_s) ? Math.min(retry_after_s, RETRY_AFTER_MAX_S) : null,
    errors: problem?.errors ?? [],
  });
}
