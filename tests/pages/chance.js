/** Randomness that can be had again: a property is tried on many seeds, and the seed that breaks it is named. */

const SEEDS = 300;

export class Chance {
  #state;

  /** @param {number} seed */
  constructor(seed) {
    this.#state = seed;
  }

  /** A number from 0 to 1, without 1 (mulberry32). */
  share() {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }

  /**
   * A whole number from 0 to `end`, without `end`.
   * @param {number} end
   */
  below(end) {
    return Math.floor(this.share() * end);
  }

  /**
   * @template Item
   * @param {readonly Item[]} items  at least one
   * @returns {Item}
   */
  oneOf(items) {
    return /** @type {Item} */ (items[this.below(items.length)]);
  }

  /**
   * The items in any order, each once or several times.
   * @template Item
   * @param {readonly Item[]} items
   */
  repeatedInAnyOrder(items) {
    const drawn = items.flatMap((item) => Array.from({ length: 1 + this.below(3) }, () => item));
    return drawn
      .map((item) => ({ item, place: this.share() }))
      .sort((a, b) => a.place - b.place)
      .map(({ item }) => item);
  }
}

/**
 * @param {(chance: Chance) => void} check  throws where the property does not hold
 */
export function forEverySeed(check) {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    try {
      check(new Chance(seed));
    } catch (error) {
      throw new Error(`does not hold with seed ${seed}: ${error instanceof Error ? error.message : error}`, {
        cause: error,
      });
    }
  }
}
