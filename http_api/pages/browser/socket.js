/**
 * One socket that stays alive: heartbeats at the pace the server names, and reconnecting with exponential backoff
 * and full jitter, so that a thousand pages do not come back in the same second after a restart.
 */

import { hearServerTime } from "./clock.js";

/** @import {ServerMessage} from "./wire.js" */
/** @typedef {"connecting" | "live" | "reconnecting" | "offline" | "closed"} ConnectionState */

const CLOSE_TOKEN_EXPIRED = 4401;
const CLOSE_POLICY = 1008;
const CLOSE_RESTARTING = 1012;
/** A frame too big or of the wrong kind: our own fault, which hurrying back would only repeat. */
const CLOSE_OUR_FAULT = [1003, 1009];

const BACKOFF_BASE_MS = 500;
const BACKOFF_CAP_MS = 20_000;
const BACKOFF_SLOW_BASE_MS = 15_000;
const BACKOFF_SLOW_CAP_MS = 120_000;
/** A draining server sends everyone away at once; even the first try back is spread over this. */
const BACKOFF_RESTART_BASE_MS = 2_000;
/** A connection that lived this long has earned a fresh backoff. */
const STABLE_AFTER_MS = 10_000;
const WELCOME_TIMEOUT_MS = 10_000;
const PROBE_TIMEOUT_MS = 4_000;
const HEARTBEAT_FALLBACK_S = 20;

/**
 * How long to wait before a try: anything from zero to the doubled bound ("full jitter").
 * @param {number} attempt  0 for the first
 * @param {number | undefined} close_code  of the connection that ended; undefined if none
 * @param {number} random  from 0 to 1
 */
export function backoffMs(attempt, close_code, random) {
  const slow = close_code === CLOSE_POLICY || CLOSE_OUR_FAULT.includes(close_code ?? 0);
  const base = slow
    ? BACKOFF_SLOW_BASE_MS
    : close_code === CLOSE_RESTARTING
      ? BACKOFF_RESTART_BASE_MS
      : BACKOFF_BASE_MS;
  const bound = Math.min(slow ? BACKOFF_SLOW_CAP_MS : BACKOFF_CAP_MS, base * 2 ** Math.min(attempt, 16));
  // "Slow" means at least half of it: a server that throttles us must not be hit again at once by a lucky draw.
  return slow ? bound / 2 + (random * bound) / 2 : random * bound;
}

export class LiveSocket {
  /** @type {WebSocket | null} */
  #socket = null;
  #attempt = 0;
  #stopped = true;
  #welcomed = false;
  /** A beat that nobody has answered yet: the next one finding it so means the line is dead. */
  #unanswered = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #reconnectTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #beatTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #probeTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #stableTimer;
  /** @type {AbortController | null} */
  #listening = null;
  #path;
  #on;

  /**
   * @param {string} path  `/ws/customer` or `/ws/mechanic`
   * @param {object} on
   * @param {(message: ServerMessage & {received_ms: number}) => void} on.message  stamped on the `performance.now()` scale
   * @param {(state: ConnectionState) => void} on.state
   * @param {() => void} on.signedOut  the server said that our token has expired; the socket has stopped
   * @param {() => void} on.refused  the handshake keeps failing; a browser does not tell why, so ask `/api/me`
   */
  constructor(path, on) {
    this.#path = path;
    this.#on = on;
  }

  /** Connect and stay connected until `stop()`. Starting twice does nothing. */
  start() {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#attempt = 0;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    window.addEventListener("online", () => this.#hurry(), { signal });
    window.addEventListener("pageshow", () => this.#hurry(), { signal });
    // `offline` is a hint, and wrong on a machine that talks only to itself: ask the line before believing it.
    window.addEventListener("offline", () => (this.#welcomed ? this.#probe() : this.#on.state("offline")), { signal });
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#hurry(), {
      signal,
    });
    this.#on.state("connecting");
    this.#connect();
  }

  /** Close for good; nothing more is reported. */
  stop() {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#listening?.abort();
    clearTimeout(this.#reconnectTimer);
    this.#drop(1000);
    this.#on.state("closed");
  }

  /**
   * Send a message, if the line is up.
   * @param {object} message
   * @returns {boolean}  false: not sent; the welcome after reconnecting brings the state anew
   */
  send(message) {
    if (!this.#welcomed || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #connect() {
    clearTimeout(this.#reconnectTimer);
    this.#drop();
    const socket = new WebSocket(new URL(this.#path, location.href.replace(/^http/, "ws")));
    this.#socket = socket;
    // A handshake can hang for minutes on a dead network; so can a server that accepts and then says nothing.
    this.#probeTimer = setTimeout(() => this.#lost(undefined), WELCOME_TIMEOUT_MS);
    socket.addEventListener("message", (event) => socket === this.#socket && this.#received(event.data));
    socket.addEventListener("close", (event) => socket === this.#socket && this.#lost(event.code));
  }

  /** @param {unknown} data */
  #received(data) {
    /** @type {ServerMessage} */
    let message;
    try {
      message = JSON.parse(String(data));
    } catch {
      return; // Not for us: clients ignore what they do not understand.
    }
    const received_ms = performance.now();
    this.#unanswered = false;
    clearTimeout(this.#probeTimer);
    if (message.type === "heartbeat_ack") {
      hearServerTime(message.server_time);
      this.#on.state("live");
      return;
    }
    if (message.type === "welcome") {
      hearServerTime(message.server_time);
      this.#welcomed = true;
      this.#stableTimer = setTimeout(() => (this.#attempt = 0), STABLE_AFTER_MS);
      const interval_ms = (message.heartbeat_interval_s || HEARTBEAT_FALLBACK_S) * 1000;
      // The first beat falls anywhere in the interval, so that pages that came back together do not beat together.
      this.#beatTimer = setTimeout(() => this.#beat(interval_ms), Math.random() * interval_ms);
      this.#on.state("live");
    }
    this.#on.message({ ...message, received_ms });
  }

  /** @param {number} interval_ms */
  #beat(interval_ms) {
    if (this.#unanswered) {
      this.#lost(undefined);
      return;
    }
    this.#unanswered = true;
    this.send({ type: "heartbeat" });
    this.#beatTimer = setTimeout(() => this.#beat(interval_ms), interval_ms);
  }

  /** Ask for a sign of life now instead of at the next beat. */
  #probe() {
    if (!this.send({ type: "heartbeat" })) return;
    clearTimeout(this.#probeTimer);
    this.#probeTimer = setTimeout(() => this.#lost(undefined), PROBE_TIMEOUT_MS);
  }

  /** The visitor is back, or the network is: no reason to sit out a long backoff. */
  #hurry() {
    if (this.#welcomed) this.#probe();
    else if (this.#reconnectTimer !== undefined) {
      this.#attempt = Math.min(this.#attempt, 1);
      this.#retryIn(backoffMs(0, undefined, Math.random()));
    }
  }

  /** @param {number | undefined} code  undefined: we gave up on it ourselves */
  #lost(code) {
    const had_welcome = this.#welcomed;
    this.#drop();
    if (this.#stopped) return;
    if (code === CLOSE_TOKEN_EXPIRED) {
      this.stop();
      this.#on.signedOut();
      return;
    }
    this.#on.state(navigator.onLine ? "reconnecting" : "offline");
    // Rarely: asking is a database look-up, and a restart makes every page fail its handshake at once.
    if (!had_welcome && this.#attempt % 4 === 1) this.#on.refused();
    if (this.#stopped) return;
    this.#retryIn(backoffMs(this.#attempt, code, Math.random()));
    this.#attempt += 1;
  }

  /** @param {number} delay_ms */
  #retryIn(delay_ms) {
    clearTimeout(this.#reconnectTimer);
    this.#reconnectTimer = setTimeout(() => {
      this.#reconnectTimer = undefined;
      this.#connect();
    }, delay_ms);
  }

  /** @param {number} [code] */
  #drop(code) {
    clearTimeout(this.#beatTimer);
    clearTimeout(this.#probeTimer);
    clearTimeout(this.#stableTimer);
    this.#welcomed = false;
    this.#unanswered = false;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
  }
}
