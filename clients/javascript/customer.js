/** A customer's client: own requests, and the mechanics that are watched. */

import { Client } from "./client.js";
import { naming } from "./rest.js";
import { WATCH_MAX } from "./wire.js";

/**
 * @import {Polled, Told, Where} from "./client.js"
 * @import {Received} from "./connection.js"
 * @import {CustomerMessage, FavoritePrompt, Statuses, StatusView, ToCustomer} from "./wire.js"
 */

/**
 * @typedef {object} ToldCustomer
 * @property {(status: StatusView) => void} [status]  what is true of a watched mechanic, where that is news
 * @property {(prompt: FavoritePrompt) => void} [favoritePrompt]
 */

/** @extends {Client<"/ws/customer">} */
export class CustomerClient extends Client {
  /** @type {Set<string>} */
  #watched = new Set();
  /** @type {Map<string, StatusView>} */
  #statuses = new Map();

  /**
   * @param {Where} [where]
   * @param {Told<ToCustomer> & ToldCustomer} [on]
   */
  constructor(where = {}, on = {}) {
    super("/ws/customer", where, on);
  }

  /** @returns {Told<ToCustomer> & ToldCustomer} */
  get #on() {
    return this.on;
  }

  /** Whom we watch, whether or not there is a line just now. @returns {ReadonlySet<string>} */
  get watched() {
    return this.#watched;
  }

  /**
   * Send a message, if the line is up.
   * @param {CustomerMessage} message
   * @returns {boolean}  false: not sent
   */
  send(message) {
    return this.connection.send(message);
  }

  /**
   * Be told about these mechanics as well: now, at every change, and after every reconnect. The server takes a hundred for
   * one socket; beyond that it answers with an error.
   * @param {Iterable<string>} mechanic_ids
   */
  watch(mechanic_ids) {
    const added = [...new Set(mechanic_ids)].filter((id) => !this.#watched.has(id));
    added.forEach((id) => this.#watched.add(id));
    this.#sendSlices("watch", added);
    if (added.length > 0) this.connection.pollAgain();
  }

  /**
   * No longer about these.
   * @param {Iterable<string>} mechanic_ids
   */
  unwatch(mechanic_ids) {
    const gone = [...mechanic_ids].filter((id) => this.#forgetMechanic(id));
    this.#sendSlices("unwatch", gone);
  }

  /**
   * @protected
   * @override
   * @param {Received<ToCustomer | Polled>} message
   */
  received(message) {
    super.received(message);
    switch (message.type) {
      case "welcome":
        // A new socket watches nobody.
        this.#sendSlices("watch", [...this.#watched]);
        this.tookSnapshot(message.requests, message.received_ms);
        break;
      case "polled":
        this.tookSnapshot(message.requests, message.received_ms);
        message.statuses.forEach((status) => this.#tookStatus(status));
        break;
      case "status":
        this.#tookStatus(message);
        break;
      case "statuses":
        message.statuses.forEach((status) => this.#tookStatus(status));
        break;
      case "favorite_prompt":
        this.#on.favoritePrompt?.(message);
        break;
      case "error":
        // No mechanic, or none any more: not to be asked for again after each reconnect.
        if (message.code === "mechanic_not_found" && message.ref) this.#forgetMechanic(message.ref);
        this.#on.error?.(message);
        break;
    }
  }

  /**
   * @protected
   * @override
   * @param {AbortSignal} signal
   */
  async poll(signal) {
    /** @type {Promise<Statuses | null>[]} */
    const asked = slices([...this.#watched]).map((ids) =>
      this.rest.call("GET", `/api/mechanics/status?ids=${ids.map(encodeURIComponent).join(",")}`, { signal }),
    );
    const [requests, ...found] = await Promise.all([this.newestRequests(signal), ...asked]);
    signal.throwIfAborted();
    const statuses = found.flatMap((one) => naming(one, "statuses").statuses);
    this.heard({ type: "polled", requests, offers: [], statuses, received_ms: performance.now() });
  }

  /**
   * @protected
   * @override
   */
  forget() {
    super.forget();
    this.#watched.clear();
    this.#statuses.clear();
  }

  /**
   * @param {string} mechanic_id
   * @returns {boolean}  whether they were watched
   */
  #forgetMechanic(mechanic_id) {
    this.#statuses.delete(mechanic_id);
    return this.#watched.delete(mechanic_id);
  }

  /** @param {StatusView} status */
  #tookStatus(status) {
    if (!this.#watched.has(status.mechanic_id)) return;
    const old = this.#statuses.get(status.mechanic_id);
    if (old && (old.version > status.version || (old.version === status.version && old.as_of >= status.as_of))) return;
    this.#statuses.set(status.mechanic_id, status);
    this.#on.status?.(status);
  }

  /**
   * @param {"watch" | "unwatch"} type
   * @param {string[]} ids
   */
  #sendSlices(type, ids) {
    slices(ids).forEach((mechanic_ids) => this.send({ type, mechanic_ids }));
  }
}

/**
 * What one message or one call may name.
 * @param {string[]} ids
 * @returns {string[][]}
 */
function slices(ids) {
  return Array.from({ length: Math.ceil(ids.length / WATCH_MAX) }, (_, at) =>
    ids.slice(at * WATCH_MAX, (at + 1) * WATCH_MAX),
  );
}
