/**
 * One socket that stays alive: heartbeats at the pace the server names, and reconnecting with exponential backoff
 * and full jitter, so that a thousand pages do not come back in the same second after a restart.
 */

import { backoffMs, thenAfter } from "./backoff.js";
import { hearServerTime } from "./clock.js";

/** @import {Channels, Heartbeat} from "./wire.js" */
/** @typedef {"connecting" | "live" | "reconnecting" | "offline" | "closed"} ConnectionState */
/**
 * A message, stamped with when it was received on the `performance.now()` scale.
 * @template Sent
 * @typedef {Sent & {received_ms: number}} Received
 */

/** A connection that lived this long has earned a fresh backoff. */
const STABLE_AFTER_MS = 10_000;
const WELCOME_TIMEOUT_MS = 10_000;
const PROBE_TIMEOUT_MS = 4_000;
const HEARTBEAT_FALLBACK_S = 20;

/**
 * The path says what may be sent and what is received.
 * @template {keyof Channels} Path
 */
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
   * @param {Path} path
   * @param {object} on
   * @param {(message: Received<Channels[Path]["to_client"]>) => void} on.message
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
   * @param {Channels[Path]["to_server"] | Heartbeat} message
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
    /** @type {Channels[Path]["to_client"]} */
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
      this.#retryIn(backoffMs(0, "reconnect", Math.random()));
    }
  }

  /** @param {number | undefined} code  undefined: we gave up on it ourselves */
  #lost(code) {
    const had_welcome = this.#welcomed;
    this.#drop();
    const then = thenAfter(code);
    if (then === "sign_in") {
      this.stop();
      this.#on.signedOut();
      return;
    }
    this.#on.state(navigator.onLine ? "reconnecting" : "offline");
    // Rarely: asking is a database look-up, and a restart makes every page fail its handshake in the same moment.
    if (!had_welcome && this.#attempt % 4 === 1) this.#on.refused();
    if (this.#stopped) return;
    this.#retryIn(backoffMs(this.#attempt, then, Math.random()));
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
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
  }
}
