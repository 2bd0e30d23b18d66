/** A mechanic's client: duty, offers, and answers to them that are neither lost nor doubled. */

import { Settlement, isTakenBy } from "./answers.js";
import { Client } from "./client.js";
import { KNOWN_MAX, NO_OFFERS, ended, openIn, seen, withOffer, withSnapshot } from "./offers.js";
import { naming } from "./rest.js";

/**
 * @import {Asked, Outcome} from "./answers.js"
 * @import {Polled, Told, Where} from "./client.js"
 * @import {Received} from "./connection.js"
 * @import {OpenOffer} from "./offers.js"
 * @import {Accept, AvailabilityChanged, Decline, MechanicMessage, Offers, OfferView, OfferWithdrawn, RequestView,
 *   ToMechanic, WithdrawReason} from "./wire.js"
 */

/**
 * @typedef {object} ToldMechanic
 * @property {(offer: OpenOffer, is_new: boolean) => void} [offer]  an offer is open. Once for each, with `is_new`, however
 *   often it is sent; again, without, where one that was gone is open again
 * @property {(offer: OpenOffer, reason: WithdrawReason | null, by_you: boolean) => void} [withdrawn]  an open offer is gone;
 *   null: nobody said why. What `accept` and `decline` end is told by their outcome alone; the request's other card is told
 * @property {(now: AvailabilityChanged) => void} [availability]  on duty or not has changed, here or on another device
 */

const DUTY_TIMEOUT_MS = 10_000;

/**
 * Every offer is acknowledged each time it comes, also in a welcome.
 * @extends {Client<"/ws/mechanic">}
 */
export class MechanicClient extends Client {
  #known = NO_OFFERS;
  /** @type {string | null} */
  #mechanic_id = null;
  /** Answers that are on their way, by offer. @type {Map<string, Settlement>} */
  #answers = new Map();
  /**
   * Offers that an accept was sent for which may still win, although nobody has said so; and whose request it is, if known.
   * @type {Map<string, string | null>}
   */
  #inDoubt = new Map();
  /** Withdrawals of what we are accepting: most likely it is ourselves who have it. @type {Map<string, Received<OfferWithdrawn>>} */
  #heldBack = new Map();
  /** What we have asked to be. @type {{on_duty: boolean, done: (is_so: boolean) => void} | null} */
  #duty = null;

  /**
   * @param {Where} [where]
   * @param {Told<ToMechanic> & ToldMechanic} [on]
   */
  constructor(where = {}, on = {}) {
    super("/ws/mechanic", where, on);
  }

  /** @returns {Told<ToMechanic> & ToldMechanic} */
  get #on() {
    return this.on;
  }

  /** What may be accepted now. */
  get offers() {
    return openIn(this.#known);
  }

  /**
   * Send a message, if the line is up. For answers to offers there are `accept` and `decline`, which do not lose them.
   * @param {MechanicMessage} message
   * @returns {boolean}  false: not sent
   */
  send(message) {
    return this.connection.send(message);
  }

  /**
   * Say that a person could see the offer, on a screen that was on: `offer_ack` with `seen`. Call it as often as you like: it
   * is sent once, again with each later acknowledgement of the offer, and after the next welcome if there was no line.
   * @param {string} offer_id
   */
  seen(offer_id) {
    const known = seen(this.#known, offer_id);
    if (known === this.#known) return;
    this.#known = known;
    this.#acknowledge(offer_id);
  }

  /**
   * Take the request. Safe to repeat: while an answer is on its way it is the same promise, and the server tells whoever has
   * won so again.
   * @param {string} offer_id
   * @returns {Promise<Outcome>}  within half a minute; never rejects
   */
  accept(offer_id) {
    return this.#answer({ type: "accept", offer_id });
  }

  /**
   * Not this one, and never this request again. Safe to repeat.
   * @param {string} offer_id
   * @param {string | null} [reason]
   * @returns {Promise<Outcome>}  within half a minute; never rejects
   */
  decline(offer_id, reason = null) {
    return this.#answer({ type: "decline", offer_id, reason });
  }

  /**
   * Go on or off duty. Where the line is down it is said after the next welcome, if that comes in time.
   * @param {boolean} on_duty
   * @returns {Promise<boolean>}  whether the server says so, within ten seconds
   */
  setDuty(on_duty) {
    this.#duty?.done(false);
    return new Promise((resolve) => {
      const timer = setTimeout(() => done(false), DUTY_TIMEOUT_MS);
      const done = (/** @type {boolean} */ is_so) => {
        clearTimeout(timer);
        this.#duty = null;
        resolve(is_so);
      };
      this.#duty = { on_duty, done };
      this.send({ type: "set_availability", on_duty });
    });
  }

  /**
   * @protected
   * @override
   * @param {Received<ToMechanic | Polled>} message
   */
  received(message) {
    if (message.type === "welcome") this.#mechanic_id = message.mechanic_id;
    const is_answer = [...this.#answers.values()].map((one) => one.hear(message, this.#mechanic_id)).includes(true);
    if (message.type === "error") {
      // What a person is told about an answer is its outcome, which the server does not always know yet.
      if (!is_answer || this.#isOutcome(message)) super.received(message);
      if (!is_answer) this.#on.error?.(message);
      return;
    }
    if (message.type === "offer_withdrawn" && this.#answers.get(message.offer_id)?.answer === "accept") {
      this.#heldBack.set(message.offer_id, message);
      return;
    }
    super.received(message);
    switch (message.type) {
      case "welcome":
        this.#tookOffers(message.offers, message.received_ms);
        this.tookSnapshot(message.request ? [message.request] : [], message.received_ms);
        this.#dutyIs(message.on_duty, true);
        break;
      case "polled":
        this.#tookOffers(message.offers, message.received_ms);
        this.tookSnapshot(message.requests, message.received_ms);
        break;
      case "offer":
        this.#tookOffer(message.offer, message.received_ms);
        break;
      case "offer_withdrawn":
        this.#withdrawn(message);
        break;
      case "offer_accepted":
        this.#known = ended(this.#known, message.offer_id, "answered");
        this.took(message.request, message.received_ms);
        break;
      case "availability":
        this.#dutyIs(message.on_duty, false);
        this.#on.availability?.(message);
        break;
    }
  }

  /**
   * A request that is ours has no card any more: not the priority offer's, and not the broadcast's, of which one was accepted.
   * @protected
   * @override
   * @param {RequestView} request
   * @param {number} received_ms
   */
  took(request, received_ms) {
    if (isTakenBy(this.#mechanic_id, request)) this.#endOffersOf(request.id);
    super.took(request, received_ms);
  }

  /**
   * @protected
   * @override
   */
  lineLost() {
    for (const settlement of this.#answers.values()) settlement.lineLost();
  }

  /**
   * @protected
   * @override
   * @param {AbortSignal} signal
   */
  async poll(signal) {
    /** @type {[Offers | null, RequestView[]]} */
    const [answer, requests] = await Promise.all([
      this.rest.call("GET", "/api/offers", { signal }),
      this.newestRequests(signal),
    ]);
    const { offers } = naming(answer, "offers");
    signal.throwIfAborted();
    this.heard({ type: "polled", requests, offers, statuses: [], received_ms: performance.now() });
  }

  /**
   * @protected
   * @override
   */
  forget() {
    super.forget();
    for (const settlement of this.#answers.values()) settlement.giveUp();
    this.#answers.clear();
    this.#inDoubt.clear();
    this.#heldBack.clear();
    this.#known = NO_OFFERS;
    this.#mechanic_id = null;
    this.#duty?.done(false);
  }

  // ---- offers ----

  /** @param {string} offer_id */
  #acknowledge(offer_id) {
    const is_seen = this.#known.get(offer_id)?.seen;
    this.send({ type: "offer_ack", offer_id, ...(is_seen ? { seen: true } : {}) });
  }

  /**
   * @param {OfferView} offer
   * @param {number} received_ms
   */
  #tookOffer(offer, received_ms) {
    const { known, opened } = withOffer(this.#known, offer, received_ms);
    this.#known = known;
    // Also what we have: it came again because our first word did not arrive.
    this.#acknowledge(offer.offer_id);
    if (opened) this.#on.offer?.(opened.offer, opened.is_new);
  }

  /**
   * @param {readonly OfferView[]} offers  all that are open
   * @param {number} received_ms
   */
  #tookOffers(offers, received_ms) {
    // What we are answering may be missing because it is ours by now: the outcome tells.
    const { known, opened, gone } = withSnapshot(this.#known, offers, received_ms, this.#answers);
    this.#known = known;
    offers.forEach(({ offer_id }) => this.#acknowledge(offer_id));
    gone.forEach((offer) => this.#on.withdrawn?.(offer, null, false));
    opened.forEach(({ offer, is_new }) => this.#on.offer?.(offer, is_new));
  }

  /** @param {Received<OfferWithdrawn>} message */
  #withdrawn(message) {
    const { offer_id, reason, by_you = false } = message;
    const old = this.#known.get(offer_id);
    // A decline of our own: the outcome tells. Without `by_you` it may be that sessions of its kind were switched off; when
    // they are switched on again, the same offer comes again.
    const is_ours = this.#answers.has(offer_id);
    this.#known = ended(this.#known, offer_id, is_ours || by_you ? "answered" : "gone");
    if (old?.standing === "open" && !is_ours) this.#on.withdrawn?.(old.offer, reason, by_you);
  }

  /** @param {string} request_id */
  #endOffersOf(request_id) {
    for (const offer of openIn(this.#known).filter((one) => one.request_id === request_id)) {
      this.#known = ended(this.#known, offer.offer_id, "answered");
      // Of what is being answered the outcome tells.
      if (!this.#answers.has(offer.offer_id)) this.#on.withdrawn?.(offer, "taken", true);
    }
  }

  // ---- answers ----

  /**
   * @param {Accept | Decline} message
   * @returns {Promise<Outcome>}
   */
  #answer(message) {
    const { offer_id } = message;
    const pending = this.#answers.get(offer_id);
    if (pending?.answer === message.type) return pending.outcome;
    if (pending)
      return Promise.resolve({
        outcome: "refused",
        code: "answer_pending",
        message: "Your other answer to this offer is still on its way.",
      });
    const request_id = this.#known.get(offer_id)?.offer.request_id ?? this.#inDoubt.get(offer_id) ?? null;
    const asked = { message, request_id, is_in_doubt: this.#inDoubt.has(offer_id) };
    const settlement = new Settlement(asked, { send: (one) => this.send(one), rest: this.rest });
    this.#answers.set(offer_id, settlement);
    void settlement.outcome.then((outcome) => this.#settled(asked, settlement, outcome));
    return settlement.outcome;
  }

  /** @param {Received<ToMechanic | Polled>} message */
  #isOutcome(message) {
    return [...this.#answers.values()].some((settlement) => settlement.heardIn === message);
  }

  /**
   * @param {Asked} asked
   * @param {Settlement} settlement
   * @param {Outcome} outcome
   */
  #settled(asked, settlement, outcome) {
    const { offer_id } = asked.message;
    // Stopped meanwhile.
    if (this.#answers.get(offer_id) !== settlement) return;
    this.#answers.delete(offer_id);
    if (settlement.answer === "accept") this.#noteDoubt(asked, settlement, outcome);
    const heldBack = this.#heldBack.get(offer_id);
    this.#heldBack.delete(offer_id);
    const received_ms = performance.now();
    // Whoever keeps a state by the messages hears of an answer that REST has brought home as if the socket had.
    const by_socket = settlement.heardIn?.type;
    switch (outcome.outcome) {
      case "accepted":
        this.#known = ended(this.#known, offer_id, "answered");
        if (by_socket !== "offer_accepted")
          this.heard({ type: "offer_accepted", offer_id, request: outcome.request, received_ms });
        break;
      case "declined":
        this.#known = ended(this.#known, offer_id, "answered");
        if (by_socket !== "offer_withdrawn")
          this.heard({ type: "offer_withdrawn", offer_id, reason: "declined", received_ms });
        break;
      case "refused":
        // Not for good: the reason may be that sessions of its kind are switched off.
        if (outcome.code === "offer_gone") this.#known = ended(this.#known, offer_id, "gone");
        else if (heldBack) this.heard(heldBack);
        if (by_socket !== "error")
          super.received({ type: "error", code: outcome.code, message: outcome.message, ref: offer_id, received_ms });
        break;
      case "unknown":
        if (heldBack) this.heard(heldBack);
        break;
    }
    if (by_socket === undefined) this.connection.pollAgain();
  }

  /**
   * Remember an accept that may have won, or still win, for the next one of the same offer.
   * @param {Asked} asked
   * @param {Settlement} settlement
   * @param {Outcome} outcome
   */
  #noteDoubt({ message: { offer_id }, request_id }, settlement, outcome) {
    this.#inDoubt.delete(offer_id);
    if (outcome.outcome === "accepted" || (outcome.outcome === "refused" && outcome.code === "offer_gone")) return;
    // Of what was refused only for now, another try that is still on its way may win.
    if (outcome.outcome === "unknown" || settlement.isInDoubt) this.#inDoubt.set(offer_id, request_id);
    const [oldest] = this.#inDoubt.keys();
    if (oldest !== undefined && this.#inDoubt.size > KNOWN_MAX) this.#inDoubt.delete(oldest);
  }

  // ---- duty ----

  /**
   * @param {boolean} on_duty
   * @param {boolean} is_snapshot  what was asked for before it may be lost
   */
  #dutyIs(on_duty, is_snapshot) {
    if (this.#duty?.on_duty === on_duty) this.#duty.done(true);
    else if (this.#duty && is_snapshot) this.send({ type: "set_availability", on_duty: this.#duty.on_duty });
  }
}
