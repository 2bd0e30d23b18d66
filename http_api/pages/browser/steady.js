/**
 * Hands are slower than screens. A button answers only once it has been what it is and where it is for a moment, so that a
 * tap meant for one thing never reaches another that has just taken its place.
 */

/** Longer than a double tap, shorter than reading. */
export const SETTLE_MS = 700;
/** For buttons marked `data-steady="long"`: longer than anybody goes on tapping who thinks that the first tap was not felt. */
export const SETTLE_LONG_MS = 1_600;
/** A hand that has just left the glass is about to come back. */
const LINGER_MS = 1_500;
/** Less is rounding. */
const MOVED_PX = 4;

/** @type {WeakMap<Element, {left: number, top: number}>} */
const places = new WeakMap();
/** @type {WeakMap<Element, ReturnType<typeof setTimeout>>} */
const timers = new WeakMap();

/**
 * Watch all buttons marked `data-steady` below `root`. A new one answers nobody for a moment; one that has moved, no pointer:
 * the keyboard does not aim.
 * @param {HTMLElement} root
 */
export function keepSteady(root) {
  const look = () => root.querySelectorAll("[data-steady]").forEach(lookAt);
  // Before the next event: mutations are told as microtasks.
  new MutationObserver(look).observe(root, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["hidden", "open"],
  });
  new ResizeObserver(look).observe(root);
  root.addEventListener("click", stopIfNew, { capture: true });
  look();
}

/** @param {Event} event */
function stopIfNew(event) {
  if (!(event.target instanceof Element) || !event.target.closest('[data-settling="new"]')) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}

/** @param {Element} button */
function lookAt(button) {
  const box = button.getBoundingClientRect();
  const old = places.get(button);
  if (box.width === 0) {
    places.delete(button);
    return;
  }
  // On the page and not in the window: who scrolls knows that things move.
  const place = { left: box.left + scrollX, top: box.top + scrollY };
  places.set(button, place);
  if (!old) settle(button, "new");
  else if (Math.hypot(place.left - old.left, place.top - old.top) > MOVED_PX) settle(button, "moved");
}

/**
 * @param {Element} button
 * @param {"new" | "moved"} because
 */
function settle(button, because) {
  clearTimeout(timers.get(button));
  // The style sheet keeps pointers off it; a new one stays new when it moves.
  if (button.getAttribute("data-settling") !== "new") button.setAttribute("data-settling", because);
  timers.set(
    button,
    setTimeout(
      () => button.removeAttribute("data-settling"),
      button.getAttribute("data-steady") === "long" ? SETTLE_LONG_MS : SETTLE_MS,
    ),
  );
}

/** Whether a hand is near `area`: a mouse over it, a finger on it or just lifted; or the keyboard's focus in one of `around`. */
export class NearHand {
  #area;
  /** @type {readonly HTMLElement[]} */
  #around;
  #hovers = false;
  #touched_ms = -Infinity;
  #touches = false;

  /**
   * @param {HTMLElement} area
   * @param {readonly HTMLElement[]} around
   * @param {AbortSignal} signal
   * @param {() => void} onLeft  nothing is near any more
   */
  constructor(area, around, signal, onLeft) {
    this.#area = area;
    this.#around = around;
    const left = () => this.isNear || onLeft();
    const lifted = (/** @type {PointerEvent} */ event) => {
      if (event.pointerType !== "touch" || !this.#touches) return;
      this.#touches = false;
      this.#touched_ms = performance.now();
      setTimeout(left, LINGER_MS);
    };
    area.addEventListener("pointerenter", (event) => (this.#hovers ||= event.pointerType !== "touch"), { signal });
    area.addEventListener("pointerleave", () => ((this.#hovers = false), left()), { signal });
    area.addEventListener("pointerdown", (event) => (this.#touches ||= event.pointerType === "touch"), { signal });
    for (const event of /** @type {const} */ (["pointerup", "pointercancel"]))
      document.addEventListener(event, lifted, { signal });
    // After the focus has arrived where it goes.
    for (const part of around) part.addEventListener("focusout", () => setTimeout(left), { signal });
  }

  get isNear() {
    // What is not shown has nothing near it, and hears nothing of what leaves.
    if (this.#area.getClientRects().length === 0) this.#hovers = this.#touches = false;
    return (
      this.#hovers ||
      this.#touches ||
      performance.now() - this.#touched_ms < LINGER_MS ||
      // A heading takes the focus to be read on from, and no hand is there.
      this.#around.some((part) => part.matches(":focus-visible") || part.querySelector(":focus-visible:not(h2)") !== null)
    );
  }
}

/**
 * Make a change that must not throw the focus away: who had it inside `part` keeps it, or what `next` names gets it.
 * @param {Element} part
 * @param {() => void} change
 * @param {(lost: HTMLElement) => HTMLElement | null} next
 */
export function keepFocus(part, change, next) {
  const held = document.activeElement;
  const is_ours = held instanceof HTMLElement && held !== document.body && part.contains(held);
  change();
  // Something inside may have passed it on already.
  if (!is_ours || (document.activeElement !== held && document.activeElement !== document.body)) return;
  if (held.getClientRects().length === 0) next(held)?.focus({ preventScroll: true });
  // Moving a node in the document takes the focus from it.
  else if (document.activeElement === document.body) held.focus({ preventScroll: true });
}
