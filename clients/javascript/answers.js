/**
 * A mechanic's answer to an offer, until it is known what came of it. It is sent over the socket; when the socket does not
 * bring the answer home, it is repeated by REST. Both are safe to repeat: whoever has won is told so again.
 */

import { backoffMs } from "./backoff.js";
import { HeldOff } from "./held-off.js";
import { PitlaneError, naming } from "./rest.js";

/** @import {Rest} from "./rest.js" */
/** @import {Received} from "./connection.js" */
/** @import {Accept, Decline, RequestAnswer, RequestView, ToMechanic} from "./wire.js" */
/** @import {Polled} from "./client.js" */

/**
 * What came of it.
 * - `refused`: by the server; `code` is `offer_gone`, `already_in_session` or another of its words
 * - `unknown`: nobody could be reached in time. The answer may have arrived: what the server says next tells
 * @typedef {{outcome: "accepted", request: RequestView}
 *   | {outcome: "declined"}
 *   | {outcome: "refused", code: string, message: string}
 *   | {outcome: "unknown", message: string}} Outcome
 */
/**
 * @typedef {object} Asked
 * @property {Accept | Decline} message
 * @property {string | null} request_id  null where the offer is not known
 * @property {boolean} is_in_doubt  an accept of it was sent before, and may have won or still win
 */

/** A socket that has not answered in this time is not waited for any longer. */
const SOCKET_TIMEOUT_MS = 5_000;
const CALL_TIMEOUT_MS = 5_000;
/** After this time the app is told that nobody knows. */
const SETTLE_MAX_MS = 30_000;

const OPEN_SESSION = ["accepted", "in_progress"];
/** With these a server says that it does not know itself. */
const UNDECIDED = ["unavailable", "internal_error"];

/**
 * What a message says about an answer; null: nothing, "nobody knows": only that it has to be asked again. Pure.
 * @param {Received<ToMechanic | Polled>} message
 * @param {Asked} asked
 * @param {string | null} mechanic_id  who we are, once known
 * @returns {Outcome | "nobody knows" | null}
 */
export function outcomeIn(message, { message: { type: answer, offer_id }, request_id }, mechanic_id) {
  switch (message.type) {
    case "offer_accepted":
      if (message.offer_id === offer_id) return { outcome: "accepted", request: message.request };
      // By its other card: the priority offer's, or the broadcast's.
      return answer === "accept" ? sessionIn([message.request]) : null;
    case "error":
      if (message.ref !== offer_id) return null;
      if (UNDECIDED.includes(message.code)) return "nobody knows";
      return { outcome: "refused", code: message.code, message: message.message };
    case "offer_withdrawn":
      // To whoever accepts, it may mean that they have it themselves; their own answer is on its way.
      return answer === "decline" && message.offer_id === offer_id ? { outcome: "declined" } : null;
    case "welcome":
      return answer === "accept" ? sessionIn([message.request]) : null;
    case "request_update":
      return answer === "accept" ? sessionIn([message.request]) : null;
    case "polled":
      return answer === "accept" ? sessionIn(message.requests) : null;
    default:
      return null;
  }

  /**
   * @param {(RequestView | null)[]} requests
   * @returns {Outcome | null}
   */
  function sessionIn(requests) {
    const request = requests.find((one) => one?.id === request_id && isTakenBy(mechanic_id, one));
    return request ? { outcome: "accepted", request } : null;
  }
}

/**
 * Whether the mechanic has this request as their session.
 * @param {string | null} mechanic_id  who we are, once known; a request that we may read is ours
 * @param {RequestView} request
 */
export const isTakenBy = (mechanic_id, { status, assigned_mechanic }) =>
  OPEN_SESSION.includes(status) && (mechanic_id === null || assigned_mechanic?.id === mechanic_id);

export class Settlement {
  #asked;
  #rest;
  #calling = new AbortController();
  #heldOff = new HeldOff();
  /** How often the answer has been sent, over the socket or by REST. */
  #sent = 0;
  #isAsking = false;
  /** By REST, and in vain. */
  #tries = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #lastTimer;
  /** @type {(outcome: Outcome) => void} */
  #resolve = () => {};
  /** Resolves within half a minute; never rejects. @type {Promise<Outcome>} */
  outcome;
  /** The message that settled it; null: it was REST, or nobody. @type {Received<ToMechanic | Polled> | null} */
  heardIn = null;

  /**
   * @param {Asked} asked
   * @param {object} by
   * @param {(message: Accept | Decline) => boolean} by.send  false: there is no socket
   * @param {Rest} by.rest
   */
  constructor(asked, { send, rest }) {
    this.#asked = asked;
    this.#rest = rest;
    this.outcome = new Promise((resolve) => (this.#resolve = resolve));
    this.#lastTimer = setTimeout(() => this.giveUp(), SETTLE_MAX_MS);
    if (send(asked.message)) {
      this.#sent = 1;
      this.#timer = setTimeout(() => void this.#ask(), SOCKET_TIMEOUT_MS);
    } else void this.#ask();
  }

  get answer() {
    return this.#asked.message.type;
  }

  /** Whether a refusal of one try says little: another one may have won, or still be on its way. */
  get isInDoubt() {
    return this.answer === "accept" && (this.#asked.is_in_doubt || this.#sent > 1);
  }

  /**
   * @param {Received<ToMechanic | Polled>} message
   * @param {string | null} mechanic_id
   * @returns {boolean}  whether it says something about this answer
   */
  hear(message, mechanic_id) {
    const said = outcomeIn(message, this.#asked, mechanic_id);
    if (said === "nobody knows") this.#askSoon();
    // Not believed at once: REST is asked, or is being asked already, and then whose the request is.
    else if (said?.outcome === "refused" && this.isInDoubt) this.#askSoon();
    else if (said) {
      this.heardIn ??= message;
      this.#settle(said);
    }
    return said !== null;
  }

  /** The socket is gone, perhaps with the answer. */
  lineLost() {
    this.#askSoon();
  }

  /** Nobody is going to be asked any more. */
  giveUp() {
    this.#settle({
      outcome: "unknown",
      message: "We could not reach the server to find out whether it has your answer.",
    });
  }

  /** Not before its time, if the server has named one. */
  #askSoon() {
    this.#heldOff.whenOver(() => void this.#ask());
  }

  /** By REST, again and again until somebody answers. */
  async #ask() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    clearTimeout(this.#timer);
    const { signal } = this.#calling;
    try {
      this.#settle(await this.#askOnce(signal));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof PitlaneError)) throw error;
      this.#heldOff.begin(error.retry_after_s);
      const wait_ms = backoffMs(this.#tries, "reconnect", Math.random());
      this.#timer = setTimeout(() => void this.#ask(), Math.max((error.retry_after_s ?? 0) * 1_000, wait_ms));
    } finally {
      this.#tries += 1;
      this.#isAsking = false;
    }
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<Outcome>}
   * @throws {PitlaneError}  nobody knows; asking again is safe
   */
  async #askOnce(signal) {
    const { type: answer, offer_id, ...body } = this.#asked.message;
    const path = `/api/offers/${encodeURIComponent(offer_id)}/${answer}`;
    const options = { signal, timeout_ms: CALL_TIMEOUT_MS };
    this.#sent += 1;
    try {
      /** @type {RequestAnswer | null} */
      const said = await this.#rest.call("POST", path, answer === "decline" ? { ...options, body } : options);
      if (answer === "decline") return { outcome: "declined" };
      return { outcome: "accepted", request: naming(said, "request").request };
    } catch (error) {
      if (!(error instanceof PitlaneError) || error.mayRetry) throw error;
      const session = await this.#sessionOfAnEarlierTry(signal);
      return session ?? { outcome: "refused", code: error.code, message: error.message };
    }
  }

  /**
   * A try whose answer was lost may have won, and the session may be over by now: then accepting again is refused, but
   * only whoever has or had the request may read it.
   * @param {AbortSignal} signal
   * @returns {Promise<Outcome | null>}
   * @throws {PitlaneError}
   */
  async #sessionOfAnEarlierTry(signal) {
    const { request_id } = this.#asked;
    if (!this.isInDoubt || request_id === null) return null;
    try {
      const path = `/api/requests/${encodeURIComponent(request_id)}`;
      /** @type {RequestView | null} */
      const request = await this.#rest.call("GET", path, { signal, timeout_ms: CALL_TIMEOUT_MS });
      return { outcome: "accepted", request: naming(request, "id") };
    } catch (error) {
      if (!(error instanceof PitlaneError) || error.mayRetry) throw error;
      return null;
    }
  }

  /** @param {Outcome} outcome */
  #settle(outcome) {
    clearTimeout(this.#timer);
    clearTimeout(this.#lastTimer);
    this.#heldOff.end();
    this.#calling.abort();
    this.#resolve(outcome);
  }
}
