/**
 * What the server asks for with `Retry-After`: to be left alone for a while. Nothing cuts that short, neither a person who comes
 * back nor a network that does; what was to be done meanwhile is done as soon as it is over.
 */
export class HeldOff {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {(() => void) | null} */
  #waiting = null;

  /**
   * What waits for an earlier one to be over is forgotten: whoever was refused anew decides anew.
   * @param {number | null} wait_s  null: the server has asked for nothing
   */
  begin(wait_s) {
    this.end();
    if (wait_s === null || wait_s <= 0) return;
    this.#timer = setTimeout(() => {
      const act = this.#waiting;
      this.end();
      act?.();
    }, wait_s * 1_000);
  }

  /** It concerns nobody any more, and nor does what waited for it. */
  end() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#waiting = null;
  }

  /**
   * Do this now, or once it is over; of several the last.
   * @param {() => void} act
   */
  whenOver(act) {
    if (this.#timer === undefined) act();
    else this.#waiting = act;
  }
}
