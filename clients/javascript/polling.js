/** Asking every few seconds, where no socket gets through: slower in the background, and backing off while nobody answers. */

import { pollInMs } from "./backoff.js";
import { HeldOff } from "./held-off.js";
import { PitlaneError } from "./rest.js";

export class Polling {
  #ask;
  #on;
  #failures = 0;
  #heldOff = new HeldOff();
  /** @type {AbortController | null} */
  #asking = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** Whether the last question was answered. */
  works = false;

  /**
   * @param {(signal: AbortSignal) => Promise<void>} ask  once; takes no effect once `signal` has aborted
   * @param {{changed: () => void, signedOut: () => void}} on  `changed`: it has begun or ceased to work
   */
  constructor(ask, on) {
    this.#ask = ask;
    this.#on = on;
  }

  get isOn() {
    return this.#timer !== undefined || this.#asking !== null;
  }

  /** Ask now, and then again and again. Starting twice does nothing. */
  start() {
    if (!this.isOn) void this.#poll();
  }

  /** What is being asked takes no effect any more. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#heldOff.end();
    this.#asking?.abort();
    this.#asking = null;
    this.#failures = 0;
    this.works = false;
  }

  /**
   * Ask anew, without waiting longer than the server has asked for: something has changed, and an answer on its way may be
   * older than that.
   */
  again() {
    if (!this.isOn) return;
    this.#heldOff.whenOver(() => {
      clearTimeout(this.#timer);
      this.#asking?.abort();
      void this.#poll();
    });
  }

  async #poll() {
    const { signal } = (this.#asking = new AbortController());
    this.#timer = undefined;
    const worked = this.works;
    let retry_after_s = 0;
    try {
      await this.#ask(signal);
      if (signal.aborted) return;
      this.#failures = 0;
      this.works = true;
    } catch (error) {
      if (signal.aborted) return;
      // A bug in what is called with the answer shall be seen, and end nothing.
      if (!(error instanceof PitlaneError)) console.error(error);
      else if (error.isSignedOut) {
        this.stop();
        this.#on.signedOut();
        return;
      } else retry_after_s = error.retry_after_s ?? 0;
      this.#failures += 1;
      this.works = false;
    }
    this.#asking = null;
    this.#heldOff.begin(retry_after_s);
    const hidden = globalThis.document?.visibilityState === "hidden";
    this.#timer = setTimeout(
      () => void this.#poll(),
      pollInMs({ failures: this.#failures, hidden, retry_after_s }, Math.random()),
    );
    if (this.works !== worked) this.#on.changed();
  }
}
