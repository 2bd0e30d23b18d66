/** Telling the server what a person could see: a card mostly on the screen, of a page that is shown. Once for each offer. */

/** Of a card; less may be a sliver at the edge. */
const SHARE_SEEN = 0.6;

/**
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
  new MutationObserver((changes) => {
    for (const { addedNodes, removedNodes } of changes) {
      for (const node of removedNodes) if (node instanceof Element) visible.delete(node), eyes.unobserve(node);
      for (const node of addedNodes) if (node instanceof Element) eyes.observe(node);
    }
  }).observe(list, { childList: true });
  document.addEventListener("visibilitychange", look);
}
