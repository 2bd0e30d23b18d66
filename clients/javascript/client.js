/** What the clients of both sides have in common: a connection, what is known of own requests, and whom to tell. */

import { ServerClock } from "./clock.js";
import { Connection } from "./connection.js";
import { newestOf } from "./offers.js";
import { PitlaneError, Rest, naming } from "./rest.js";

/**
 * @import {ConnectionState, Received} from "./connection.js"
 * @import {Token} from "./rest.js"
 * @import {Channels, Deadline, ErrorMessage, FindAnotherBody, OfferView, ReasonBody, RequestAnswer, RequestStatus, RequestView, Requests, StatusView} from "./wire.js"
 */

/**
 * What a poll found, in place of what the socket would have told: the newest own requests, open or not; a mechanic's open
 * offers; the statuses of the mechanics that a customer watches.
 * @typedef {{type: "polled", requests: RequestView[], offers: OfferView[], statuses: StatusView[]}} Polled
 */
/**
 * @typedef {object} Where
 * @property {string} [base]  the server's address; in a browser that of the page, if left out
 * @property {Token} [token]  a JWT, or what gives one; without it the browser's session cookie is used
 * @property {ServerClock} [clock]  to be shared by several clients
 */
/**
 * @template Message
 * @typedef {object} Told
 * @property {(state: ConnectionState) => void} [state]  at every change
 * @property {() => void} [signedOut]  the token has expired or was revoked; where `token` is a function, it had no other. The
 *   client has stopped and tries nothing more until `start()`, with a newer token or cookie; if somebody else signs in, `stop()`
 *   comes first, so that nothing is left of before
 * @property {(request: RequestView, deadline_ms: number | null) => void} [request]  an own request is known in a newer version
 *   than before. `deadline_ms`, on the scale of `performance.now()`: when what it waits for is over (the open offer, the time to
 *   start, the session itself); null: it waits for nothing
 * @property {(request_id: string) => void} [requestLost]  a request is no longer ours: given back, or taken away
 * @property {(error: ErrorMessage) => void} [error]  something that was sent was not done
 * @property {(message: Received<Message | Polled>) => void} [message]  everything, as it came, before the others are told;
 *   for those who keep a state of their own
 */

/** @typedef {Deadline & {deadline_ms: number}} Limit */
/** What is remembered of a request. @typedef {{id: string, version: number, status: RequestStatus, limit: Limit | null}} KnownRequest */

/** @type {RequestStatus[]} */
const OPEN = ["priority_offered", "broadcasting", "accepted", "in_progress"];
/** Requests that are remembered, so that an old version is no news. */
const REQUESTS_MAX = 200;
/** Of one's own requests the newest few hold all that are open, but for a rare one that is asked for by itself. */
const POLLED_REQUESTS = 20;

/**
 * What both have in common.
 * @template {keyof Channels} Path
 */
export class Client {
  /** @protected */
  connection;
  /** @protected */
  rest;
  /** What time it is at the server. */
  clock;
  #told;
  #isStopped = false;
  /** Ends with `stop()`, and with it whatever was asked for until then: the next to start may be somebody else. */
  #life = new AbortController();
  /** Newest last. @type {Map<string, KnownRequest>} */
  #requests = new Map();

  /**
   * @param {Path} path
   * @param {Where} where
   * @param {Told<any>} on
   */
  constructor(path, { base = globalThis.location?.href, token, clock = new ServerClock() }, on) {
    if (base === undefined) throw new TypeError("Outside of a browser, `base` has to say where the server is.");
    this.#told = on;
    this.clock = clock;
    this.rest = new Rest({ base, token, clock });
    /** @type {Connection<Path>} */
    this.connection = new Connection(
      path,
      { base, rest: this.rest, clock },
      {
        state: (state) => on.state?.(state),
        signedOut: () => on.signedOut?.(),
        message: (message) => this.heard(message),
        lost: () => this.lineLost(),
        poll: (signal) => this.poll(signal),
      },
    );
  }

  /** @returns {ConnectionState} */
  get state() {
    return this.connection.state;
  }

  /**
   * Connect, and stay connected until `stop()`. Starting twice does nothing. Until then it is for one account alone; somebody
   * else's cookie or token is none.
   * @param {string | null} [account_id]  whose client this is, where the cookie says who is signed in: it may be exchanged in
   *   another tab at any time. null: that of the first welcome
   */
  start(account_id = this.rest.account_id) {
    this.#isStopped = false;
    this.rest.account_id = account_id;
    this.connection.start();
  }

  /**
   * Do something with an own request, by the last part of its path: a mechanic's `start` (before the request's `start` is over),
   * `release`, `complete`; a customer's `skip-wait`, `cancel`, `complete`, `find-another` with `{mechanic_id}` (of whom the person
   * saw when they decided: it is refused if somebody else has the request by now), and `report` with `{reason}`. Safe to
   * repeat; a refusal may then be the echo of an earlier try whose answer was lost: the request's status tells.
   * @param {string} request_id
   * @param {string} verb
   * @param {FindAnotherBody | ReasonBody} [body]
   * @returns {Promise<RequestView>}
   * @throws {PitlaneError}  `code` and `message` say why not; `mayRetry`: nothing is known to have been done
   */
  async act(request_id, verb, body) {
    const { signal } = this.#life;
    /** @type {RequestAnswer | null} */
    const answer = await this.rest.call("POST", `/api/requests/${encodeURIComponent(request_id)}/${verb}`, { body, signal });
    const { request } = naming(answer, "request");
    signal.throwIfAborted();
    this.took(request, performance.now());
    this.connection.pollAgain();
    return request;
  }

  /** Say goodbye. What is still waited for comes to an end; a later `start()` knows of nothing that was before. */
  stop() {
    this.#isStopped = true;
    this.#life.abort();
    this.#life = new AbortController();
    this.connection.stop();
    this.forget();
  }

  // ---- for the two kinds to fill in ----

  /**
   * @protected
   * @param {Received<any>} message
   */
  received(message) {
    if (message.type === "heartbeat_ack") return;
    this.on.message?.(message);
    if (message.type === "request_update") this.took(message.request, message.received_ms);
  }

  /** @protected */
  lineLost() {}

  /**
   * @protected
   * @param {AbortSignal} _signal
   */
  async poll(_signal) {}

  /** @protected */
  forget() {
    this.#requests.clear();
    this.rest.account_id = null;
  }

  // ---- for the two kinds to use ----

  /**
   * Whom to tell: nobody once it is stopped, which may be amid a message.
   * @protected
   * @returns {Told<any>}
   */
  get on() {
    return this.#isStopped ? {} : this.#told;
  }

  /**
   * Take in a message, wherever it comes from.
   * @protected
   * @param {Received<any>} message
   */
  heard(message) {
    if (message.type === "welcome") {
      const account_id = message.mechanic_id ?? message.account_id;
      this.rest.account_id ??= account_id;
      if (account_id !== this.rest.account_id) {
        this.connection.disown();
        return;
      }
    }
    this.received(message);
    // Stopped amid it: what the rest of it has left is forgotten, too.
    if (this.#isStopped) this.forget();
  }

  /**
   * Tell of a request, if it is news.
   * @protected
   * @param {RequestView} request
   * @param {number} received_ms
   */
  took(request, received_ms) {
    const old = this.#requests.get(request.id);
    if (old && old.version >= request.version) return;
    this.#requests.delete(request.id);
    const { id, version, status } = request;
    const limit = limitOf(request, received_ms, old?.limit ?? undefined);
    this.#requests.set(id, { id, version, status, limit });
    const [oldest] = this.#requests.keys();
    if (oldest !== undefined && this.#requests.size > REQUESTS_MAX) this.#requests.delete(oldest);
    this.on.request?.(request, limit?.deadline_ms ?? null);
  }

  /**
   * Take in the requests of a snapshot, and find out what has become of open ones that it no longer names.
   * @protected
   * @param {readonly RequestView[]} requests
   * @param {number} received_ms
   */
  tookSnapshot(requests, received_ms) {
    const named = new Set(requests.map(({ id }) => id));
    const missing = [...this.#requests.values()].filter(({ id, status }) => OPEN.includes(status) && !named.has(id));
    requests.forEach((request) => this.took(request, received_ms));
    // Only for whoever listens: each of them is a call.
    if (this.on.request) missing.forEach(({ id }) => void this.#lookAfter(id));
  }

  /**
   * @protected
   * @param {AbortSignal} signal
   * @returns {Promise<RequestView[]>}
   */
  async newestRequests(signal) {
    /** @type {Requests | null} */
    const answer = await this.rest.call("GET", `/api/requests?limit=${POLLED_REQUESTS}`, { signal });
    return naming(answer, "requests").requests;
  }

  /** @param {string} request_id */
  async #lookAfter(request_id) {
    const { signal } = this.#life;
    try {
      /** @type {RequestView | null} */
      const request = await this.rest.call("GET", `/api/requests/${encodeURIComponent(request_id)}`, { signal });
      if (!signal.aborted && this.state !== "closed") this.took(naming(request, "id"), performance.now());
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof PitlaneError)) throw error;
      // Anything else is asked again at the next snapshot.
      if (error.isNotFound && this.#requests.delete(request_id)) this.on.requestLost?.(request_id);
    }
  }
}

/**
 * What a request has to wait for at most.
 * @param {RequestView} request
 * @param {number} received_ms
 * @param {Limit | undefined} old  as it was known before
 * @returns {Limit | null}
 */
function limitOf({ start, ends, offer }, received_ms, old) {
  const limit = start ?? ends ?? offer;
  if (!limit) return null;
  // Another deadline may well be an earlier one: what a newer version says counts.
  return newestOf(old?.expires_at === limit.expires_at ? old : undefined, limit, received_ms);
}
