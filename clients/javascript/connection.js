/**
 * One connection that stays alive: heartbeats at the pace the server names, reconnecting with exponential backoff and full
 * jitter, so that a thousand clients do not come back in the same second after a restart, and polling where sockets do
 * not get through.
 */

import { backoffMs, thenAfter } from "./backoff.js";
import { HeldOff } from "./held-off.js";
import { Polling } from "./polling.js";
import { PitlaneError } from "./rest.js";

/** @import {ServerClock} from "./clock.js" */
/** @import {Rest} from "./rest.js" */
/** @import {Channels, Heartbeat} from "./wire.js" */

/**
 * - `connecting`: for the first time
 * - `live`: the socket is up
 * - `reconnecting`: it is lost, and nothing else works either
 * - `offline`: the device says that it has no network
 * - `polling`: sockets do not get through here, REST does; the socket is still tried, seldom
 * - `closed`: not started, stopped, or signed out
 * @typedef {"connecting" | "live" | "reconnecting" | "offline" | "polling" | "closed"} ConnectionState
 */
/**
 * A message, stamped with when it was received on the `performance.now()` scale.
 * @template Sent
 * @typedef {Sent & {received_ms: number}} Received
 */

/** A connection that lived this long has earned a fresh backoff. */
const STABLE_AFTER_MS = 10_000;
/** For ticket, handshake and welcome together. */
const WELCOME_TIMEOUT_MS = 10_000;
const PROBE_TIMEOUT_MS = 4_000;
const HEARTBEAT_FALLBACK_S = 20;
/** So many connections in a row that were never welcomed, and it is tried whether REST gets through. */
const UNWELCOMED_MAX = 3;

/**
 * The path says what may be sent and what is received.
 * @template {keyof Channels} Path
 */
export class Connection {
  /** @type {WebSocket | null} */
  #socket = null;
  /** Aborts what belongs to the present try: a ticket on its way. @type {AbortController | null} */
  #trying = null;
  #attempt = 0;
  /** Tries that failed while polling worked: those say that it is the sockets that do not get through. */
  #seldom = 0;
  #unwelcomed = 0;
  /** How often we were sent to sign in since a line last held for a while. */
  #dismissals = 0;
  /** That the present try, or socket, was opened for. @type {string | null} */
  #token = null;
  /** That was refused since a line last held for a while: another has its chance, once. @type {string | null} */
  #refused = null;
  #stopped = true;
  #welcomed = false;
  #wasLost = false;
  /** A beat that nobody has answered yet: the next one finding it so means the line is dead. */
  #unanswered = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #reconnectTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #beatTimer;
  /** Until a sign of life has to have come, or the welcome. @type {ReturnType<typeof setTimeout> | undefined} */
  #probeTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #stableTimer;
  /** @type {AbortController | null} */
  #listening = null;
  #path;
  #base;
  #rest;
  #clock;
  #on;
  #polling;
  #heldOff = new HeldOff();
  /** @type {ConnectionState} */
  #told = "closed";

  /**
   * @param {Path} path
   * @param {object} parts
   * @param {string} parts.base  the server's address
   * @param {Rest} parts.rest
   * @param {ServerClock} parts.clock
   * @param {object} on
   * @param {(message: Received<Channels[Path]["to_client"]>) => void} on.message
   * @param {(state: ConnectionState) => void} on.state  at every change
   * @param {() => void} on.signedOut  the token has expired or was revoked; the connection has stopped
   * @param {() => void} on.lost  a socket that was live is gone, with whatever was on its way
   * @param {(signal: AbortSignal) => Promise<void>} on.poll  ask by REST, once, for what the socket would have told
   */
  constructor(path, { base, rest, clock }, on) {
    this.#path = path;
    this.#base = base;
    this.#rest = rest;
    this.#clock = clock;
    this.#on = on;
    this.#polling = new Polling(on.poll, {
      changed: () => this.#pollingChanged(),
      signedOut: () => this.#signedOut(),
    });
  }

  /** @returns {ConnectionState} */
  get state() {
    if (this.#stopped) return "closed";
    if (this.#welcomed) return "live";
    if (this.#polling.works) return "polling";
    // Only a browser knows; elsewhere there is no such member.
    if (globalThis.navigator?.onLine === false) return "offline";
    return this.#wasLost ? "reconnecting" : "connecting";
  }

  /** Connect and stay connected until `stop()`. Starting twice does nothing. */
  start() {
    if (!this.#stopped) return;
    this.#stopped = this.#wasLost = false;
    this.#attempt = this.#seldom = this.#unwelcomed = 0;
    this.#token = this.#refused = null;
    this.#listen();
    this.#tellState();
    // An app that thinks it is signed in, where the server does not, must not knock as fast as both can answer.
    if (this.#dismissals > 1) this.#retryIn(backoffMs(this.#dismissals, "reconnect_spread", Math.random()));
    else void this.#connect();
  }

  /** Close for good; nothing more is reported. */
  stop() {
    this.#dismissals = 0;
    this.#close();
  }

  #close() {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#listening?.abort();
    clearTimeout(this.#reconnectTimer);
    this.#heldOff.end();
    this.#polling.stop();
    this.#drop(1000);
    this.#tellState();
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

  /** It is somebody else's line: whoever this connection was for is not signed in any more. */
  disown() {
    this.#signedOut();
  }

  /** Something was changed by REST: what a poll on its way is going to say may be older. */
  pollAgain() {
    this.#polling.again();
  }

  /** Ask for a sign of life now instead of at the next beat. While one is awaited, asking again changes nothing. */
  probe() {
    // A line that is dead must not live on because somebody keeps asking.
    if (this.#probeTimer !== undefined || !this.send({ type: "heartbeat" })) return;
    this.#probeTimer = setTimeout(() => this.#lost(undefined), PROBE_TIMEOUT_MS);
  }

  /** What was awaited has come, or does not matter any more. */
  #endProbe() {
    clearTimeout(this.#probeTimer);
    this.#probeTimer = undefined;
  }

  /** In a browser: whoever comes back, or back online, does not sit out a long wait. */
  #listen() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    const hurry = () => this.#hurry();
    const { window, document } = globalThis;
    window?.addEventListener("online", hurry, { signal });
    window?.addEventListener("pageshow", hurry, { signal });
    // `offline` is a hint, and wrong on a machine that talks only to itself: ask the line before believing it.
    window?.addEventListener("offline", () => (this.#welcomed ? this.probe() : this.#tellState()), { signal });
    document?.addEventListener("visibilitychange", () => document.visibilityState === "visible" && hurry(), { signal });
  }

  async #connect() {
    clearTimeout(this.#reconnectTimer);
    this.#reconnectTimer = undefined;
    this.#heldOff.end();
    this.#drop();
    const { signal } = (this.#trying = new AbortController());
    // A handshake can hang for minutes on a dead network; so can a server that accepts and then says nothing.
    this.#probeTimer = setTimeout(() => this.#lost(undefined), WELCOME_TIMEOUT_MS);
    const url = new URL(this.#path, this.#base.replace(/^http/, "ws"));
    if (this.#rest.hasToken) {
      // A browser's socket carries no header, and a ticket is good once: a fresh one for every connection.
      try {
        const { ticket, token } = await this.#rest.ticket(this.#refused, signal);
        if (signal.aborted) return;
        this.#token = token;
        url.searchParams.set("ticket", ticket);
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof PitlaneError)) throw error;
        this.#noTicket(error);
        return;
      }
    }
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.addEventListener("message", (event) => socket === this.#socket && this.#received(event.data));
    socket.addEventListener("close", (event) => socket === this.#socket && this.#lost(event.code));
  }

  /** @param {PitlaneError} error */
  #noTicket(error) {
    if (error.isSignedOut) {
      this.#signedOut();
      return;
    }
    // It says nothing about sockets that REST does not get through either.
    this.#unwelcomed -= 1;
    this.#lost(undefined, error.retry_after_s ?? 0);
  }

  /** @param {unknown} data */
  #received(data) {
    /** @type {Channels[Path]["to_client"] | null} */
    let message;
    try {
      message = JSON.parse(String(data));
    } catch {
      return; // Not for us: clients ignore what they do not understand.
    }
    if (typeof message?.type !== "string") return;
    const received_ms = performance.now();
    this.#unanswered = false;
    if (message.type === "heartbeat_ack") this.#clock.hear(message.server_time);
    if (message.type === "welcome") {
      this.#clock.hear(message.server_time);
      this.#welcome(message.heartbeat_interval_s || HEARTBEAT_FALLBACK_S);
    }
    // Whoever has not said welcome is still awaited, whatever else they say.
    if (this.#welcomed) this.#endProbe();
    this.#on.message({ ...message, received_ms });
  }

  /** @param {number} interval_s */
  #welcome(interval_s) {
    this.#polling.stop();
    this.#unwelcomed = this.#seldom = 0;
    this.#welcomed = true;
    clearTimeout(this.#stableTimer);
    this.#stableTimer = setTimeout(() => {
      this.#attempt = this.#dismissals = 0;
      this.#refused = null;
    }, STABLE_AFTER_MS);
    const interval_ms = interval_s * 1_000;
    // The first beat falls anywhere in the interval, so that clients that came back together do not beat together.
    clearTimeout(this.#beatTimer);
    this.#beatTimer = setTimeout(() => this.#beat(interval_ms), Math.random() * interval_ms);
    this.#tellState();
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

  #hurry() {
    if (this.#welcomed) this.probe();
    else if (this.#reconnectTimer !== undefined) {
      this.#attempt = Math.min(this.#attempt, 1);
      this.#retrySooner(0);
      this.#polling.again();
    }
  }

  /**
   * @param {number | undefined} code  undefined: we gave up on it ourselves
   * @param {number} [retry_after_s]
   */
  #lost(code, retry_after_s = 0) {
    const was_welcomed = this.#welcomed;
    this.#drop();
    let then = thenAfter(code);
    if (then === "sign_in") {
      if (!this.#rest.canRenew || this.#refused !== null) {
        this.#signedOut();
        return;
      }
      // The next try asks for another token, and ends it all if there is none.
      this.#refused = this.#token;
      then = "reconnect";
    }
    this.#wasLost = true;
    this.#unwelcomed = was_welcomed ? 0 : this.#unwelcomed + 1;
    if (this.#unwelcomed >= UNWELCOMED_MAX) this.#polling.start();
    const wait_ms = this.#polling.works
      ? backoffMs(this.#seldom++, "seldom", Math.random())
      : backoffMs(this.#attempt, then, Math.random());
    this.#heldOff.begin(retry_after_s);
    this.#retryIn(Math.max(retry_after_s * 1_000, wait_ms));
    // Rarely: asking is a database look-up, and a restart makes every client fail its handshake in the same moment.
    if (!was_welcomed && !this.#polling.isOn && this.#attempt % 4 === 1) void this.#askWhetherSignedIn();
    this.#attempt += 1;
    this.#tellState();
    if (was_welcomed) this.#on.lost();
  }

  /** A browser does not tell why a handshake was refused. With a token, the call for the ticket has told already. */
  async #askWhetherSignedIn() {
    if (this.#rest.hasToken) return;
    const { signal } = /** @type {AbortController} */ (this.#listening);
    try {
      await this.#rest.call("GET", "/api/me", { signal });
    } catch (error) {
      if (!signal.aborted && error instanceof PitlaneError && error.isSignedOut) this.#signedOut();
    }
  }

  /** Nothing is tried again until somebody has signed in and calls `start()`. */
  #signedOut() {
    this.#dismissals += 1;
    this.#close();
    this.#on.signedOut();
  }

  #pollingChanged() {
    // What has just begun to work may be the server itself, so the socket gets its chance before it is tried but seldom.
    if (this.#polling.works && this.#reconnectTimer !== undefined) {
      this.#seldom = 0;
      this.#retrySooner(1);
    }
    this.#tellState();
  }

  /**
   * Cut a long wait short, but not what the server has asked for.
   * @param {number} attempt  how many have been in vain, as far as that says anything now
   */
  #retrySooner(attempt) {
    this.#heldOff.whenOver(() => this.#retryIn(backoffMs(attempt, "reconnect", Math.random())));
  }

  /** @param {number} delay_ms */
  #retryIn(delay_ms) {
    clearTimeout(this.#reconnectTimer);
    this.#reconnectTimer = setTimeout(() => void this.#connect(), delay_ms);
  }

  /** @param {number} [code] */
  #drop(code) {
    clearTimeout(this.#beatTimer);
    this.#endProbe();
    clearTimeout(this.#stableTimer);
    this.#trying?.abort();
    this.#welcomed = this.#unanswered = false;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
  }

  #tellState() {
    const { state } = this;
    if (state === this.#told) return;
    this.#told = state;
    this.#on.state(state);
  }
}
