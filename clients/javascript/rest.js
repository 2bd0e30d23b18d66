/** REST with the session cookie or a bearer token. Every failure becomes one typed error that a person can be shown. */

import { ServerClock } from "./clock.js";

/** @import {FieldError, Problem} from "./wire.js" */

/**
 * A JWT, or what gives one, asked before every call: so it may be refreshed.
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

/**
 * A call that did not succeed. `code` is the server's stable word, or one of ours: `network`, `timeout`,
 * `unreadable`, `no_token`.
 */
export class PitlaneError extends Error {
  /**
   * @param {string} code
   * @param {string} message  fit to be shown
   * @param {{status?: number, retry_after_s?: number | null, errors?: FieldError[], cause?: unknown}} [more]  status 0: no answer
   */
  constructor(code, message, { status = 0, retry_after_s = null, errors = [], cause } = {}) {
    super(message, { cause });
    this.name = "PitlaneError";
    this.code = code;
    this.status = status;
    this.retry_after_s = retry_after_s;
    this.errors = errors;
  }

  /** True when the same call may simply be made again: nobody knows, or nothing has been decided. */
  get mayRetry() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export class Rest {
  #base;
  #token;
  #clock;

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

  /**
   * @param {string} method
   * @param {string} path
   * @param {CallOptions} [options]
   * @returns {Promise<any>}  null for 204
   * @throws {PitlaneError}
   */
  async call(method, path, { body, headers = {}, signal, timeout_ms = TIMEOUT_MS } = {}) {
    const authorization = this.hasToken ? { authorization: `Bearer ${await this.#currentToken()}` } : {};
    const timeout = AbortSignal.timeout(timeout_ms);
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
          ...authorization,
          ...headers,
        },
        body: body === undefined ? null : JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      });
      text = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      if (timeout.aborted)
        throw new PitlaneError("timeout", "The server is taking too long to answer. Please try again.");
      throw new PitlaneError("network", "We cannot reach the server. Check your connection and try again.");
    }
    this.#clock.hear(response.headers.get("date"));
    if (!response.ok) throw refusal(response, text);
    const data = parsed(text);
    if (data === undefined)
      throw new PitlaneError("unreadable", "The server's answer could not be read. Please try again.");
    return data;
  }

  async #currentToken() {
    try {
      return await (typeof this.#token === "function" ? this.#token() : this.#token);
    } catch (cause) {
      throw new PitlaneError("no_token", "There is nothing to sign this call with. Please try again.", { cause });
    }
  }
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
  return new PitlaneError(problem?.code ?? `http_${status}`, problem?.detail ?? unexplained, {
    status,
    retry_after_s: Number.isFinite(retry_after_s) ? retry_after_s : null,
    errors: problem?.errors ?? [],
  });
}
