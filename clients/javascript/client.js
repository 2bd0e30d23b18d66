/** What the clients of both sides have in common: a connection, what is known of own requests, and whom to tell. */

import { ServerClock } from "./clock.js";
import { Connection } from "./connection.js";
import { PitlaneError, Rest } from "./rest.js";

/**
 * @import {ConnectionState, Received} from "./connection.js"
 * @import {Token} from "./rest.js"
 * @import {Channels, ErrorMessage, OfferView, RequestStatus, RequestView, Requests, StatusView} from "./wire.js"
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
 * @property {() => void} [signedOut]  the token has expired or was revoked. The client has stopped and tries nothing more until
 *   `start()`, with a newer token or cookie; if somebody else signs in, `stop()` comes first, so that nothing is left of before
 * @property {(request: RequestView) => void} [request]  an own request is known in a newer version than before
 * @property {(request_id: string) => void} [requestLost]  a request is no longer ours: given back, or taken away
 * @property {(error: ErrorMessage) => void} [error]  something that was sent was not done
 * @property {(message: Received<Message | Polled>) => void} [message]  everything, as it came, before the others are told;
 *   for those who keep a state of their own
 */

/** @type {RequestStatus[]} */
const OPEN = ["priority_offered", "broadcasting", "accepted", "in_progress"];
/** Requests that are remembered, so that an old version is no news. */
const REQUESTS_MAX = 200;
/** Of one's own requests the newest few hold all that are open, but for a rare one that is asked for by itself. */
const POLLED_REQUESTS = 10;

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
  /** Newest last. @type {Map<string, RequestView>} */
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

  /** Connect, and stay connected until `stop()`. Starting twice does nothing. */
  start() {
    this.#isStopped = false;
    this.connection.start();
  }

  /** Say goodbye. What is still waited for comes to an end; a later `start()` knows of nothing that was before. */
  stop() {
    this.#isStopped = true;
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
    if (message.type === "request_update") this.took(message.request);
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
    this.received(message);
    // Stopped amid it: what the rest of it has left is forgotten, too.
    if (this.#isStopped) this.forget();
  }

  /**
   * Tell of a request, if it is news.
   * @protected
   * @param {RequestView} request
   */
  took(request) {
    const old = this.#requests.get(request.id);
    if (old && old.version >= request.version) return;
    this.#requests.delete(request.id);
    this.#requests.set(request.id, request);
    const [oldest] = this.#requests.keys();
    if (oldest !== undefined && this.#requests.size > REQUESTS_MAX) this.#requests.delete(oldest);
    this.on.request?.(request);
  }

  /**
   * Take in the requests of a snapshot, and find out what has become of open ones that it no longer names.
   * @protected
   * @param {readonly RequestView[]} requests
   */
  tookSnapshot(requests) {
    const named = new Set(requests.map(({ id }) => id));
    const missing = [...this.#requests.values()].filter(({ id, status }) => OPEN.includes(status) && !named.has(id));
    requests.forEach((request) => this.took(request));
    // Only for whoever listens: each of them is a call.
    if (this.on.request) missing.forEach(({ id }) => void this.#lookAfter(id));
  }

  /**
   * @protected
   * @param {AbortSignal} signal
   * @returns {Promise<RequestView[]>}
   */
  async newestRequests(signal) {
    /** @type {Requests} */
    const { requests } = await this.rest.call("GET", `/api/requests?limit=${POLLED_REQUESTS}`, { signal });
    return requests;
  }

  /** @param {string} request_id */
  async #lookAfter(request_id) {
    try {
      const request = await this.rest.call("GET", `/api/requests/${encodeURIComponent(request_id)}`);
      if (this.state !== "closed") this.took(request);
    } catch (error) {
      if (!(error instanceof PitlaneError)) throw error;
      // Anything else is asked again at the next snapshot.
      if (error.status === 404 && this.#requests.delete(request_id)) this.on.requestLost?.(request_id);
    }
  }
}
