/** What a person can see of the offers: told to the server, and to the page that has a hint for what is out of sight. */

/** Of a card, or of what the screen holds; less may be a sliver at the edge. */
const SHARE_SEEN = 0.6;

/**
 * Tell which cards were seen: mostly on the screen, of a page that is shown. Once for each offer.
 * @param {Element} list  its children are cards with `data-offer-id`
 * @param {(offer_id: string) => void} tell
 */
export function tellSeen(list, tell) {
  /** @type {Set<Element>} */
  const visible = new Set();
  /** @type {Set<string>} */
  const told = new Set();

  function look() {
    if (document.visibilityState !== "visible") return;
    for (const card of visible) {
      const offer_id = card.getAttribute("data-offer-id") ?? "";
      if (!offer_id || told.has(offer_id) || card.hasAttribute("data-ended")) continue;
      told.add(offer_id);
      tell(offer_id);
    }
  }

  const eyes = new IntersectionObserver(
    (entries) => {
      for (const { target, intersectionRatio } of entries)
        visible[intersectionRatio >= SHARE_SEEN ? "add" : "delete"](target);
      look();
    },
    { threshold: SHARE_SEEN },
  );
  followCards(list, eyes, (card) => visible.delete(card));
  document.addEventListener("visibilitychange", look);
}

/** Which cards are not between the header and the tabs, as far as anybody has looked. */
export class OutOfSight {
  /** @type {Set<Element>} */
  #outside = new Set();
  /** @type {WeakSet<Element>} */
  #seen = new WeakSet();

  /**
   * @param {Element} list  its children are cards
   * @param {() => void} onChange
   */
  constructor(list, onChange) {
    // What a page that scrolls by itself keeps free of what lies over it.
    const { scrollPaddingTop, scrollPaddingBottom } = getComputedStyle(document.documentElement);
    const eyes = new IntersectionObserver(
      (entries) => {
        for (const { target, intersectionRatio, intersectionRect, rootBounds } of entries) {
          // A card that is taller than the screen is seen when it fills it.
          const fills = intersectionRect.height >= SHARE_SEEN * (rootBounds?.height ?? Infinity);
          const is_seen = intersectionRatio >= SHARE_SEEN || fills;
          this.#outside[is_seen ? "delete" : "add"](target);
          if (is_seen) this.#seen.add(target);
        }
        onChange();
      },
      {
        rootMargin: `-${parseFloat(scrollPaddingTop) || 0}px 0px -${parseFloat(scrollPaddingBottom) || 0}px`,
        threshold: Array.from({ length: 11 }, (_, tenths) => tenths / 10),
      },
    );
    followCards(list, eyes, (card) => this.#outside.delete(card));
  }

  /**
   * @param {Element | null} card
   * @returns {"never seen" | "seen before" | null}  null: in sight, or not looked at yet
   */
  of(card) {
    if (card === null || !this.#outside.has(card)) return null;
    return this.#seen.has(card) ? "seen before" : "never seen";
  }
}

/**
 * @param {Element} list
 * @param {IntersectionObserver} eyes  look at every card that comes
 * @param {(card: Element) => void} onGone
 */
function followCards(list, eyes, onGone) {
  new MutationObserver((changes) => {
    for (const { addedNodes, removedNodes } of changes) {
      for (const node of removedNodes) if (node instanceof Element) onGone(node), eyes.unobserve(node);
      for (const node of addedNodes) if (node instanceof Element) eyes.observe(node);
    }
  }).observe(list, { childList: true });
}
