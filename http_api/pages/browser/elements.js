/**
 * The few lines that stand in for a framework: make a node, reuse children by key, and a base for our elements.
 * Server text only ever becomes text nodes here; nothing parses HTML.
 */

/** @import {Verbs} from "./verbs.js" */

/**
 * Make an element. Attributes that are `false` or `null` are left out, `true` means present.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number | boolean | null>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  node.append(...children);
  return node;
}

/**
 * A picture that stands for a character: drawn by `icons.css`, hidden from assistive technology,
 * and still the character itself to whoever copies the text.
 * @param {string} name  the class `glyph-<name>`
 * @param {string} [character]
 */
export function glyph(name, character = "") {
  return h("span", { class: `glyph glyph-${name}`, "aria-hidden": "true" }, character);
}

/**
 * @param {Element} node
 * @param {string} name
 * @param {string | number | boolean | null} value
 */
export function setAttribute(node, name, value) {
  if (value === false || value === null) node.removeAttribute(name);
  else {
    const text = value === true ? "" : String(value);
    // Writing the same value again would restart transitions and wake observers.
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

/**
 * Set text only when it differs, so that selections survive and live regions stay quiet.
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @type {WeakMap<Element, string>} */
const keys = new WeakMap();

/**
 * Make the children of `parent` match `items`, in order, reusing the child of the same key (and so its focus and state).
 * A child is attached before it is updated.
 * @template Item
 * @template {Element} Child
 * @param {Element} parent
 * @param {Item[]} items
 * @param {(item: Item) => string} keyOf
 * @param {(item: Item) => Child} make
 * @param {(child: Child, item: Item) => void} update
 */
export function keyed(parent, items, keyOf, make, update) {
  const known = new Map([...parent.children].map((child) => [keys.get(child), /** @type {Child} */ (child)]));
  const wanted = new Set(items.map(keyOf));
  // Leavers first: a child that only moves up because another left is then already in place and keeps its focus.
  for (const child of [...parent.children]) if (!wanted.has(keys.get(child) ?? "")) child.remove();
  items.forEach((item, index) => {
    const key = keyOf(item);
    let child = known.get(key);
    if (!child) {
      child = make(item);
      keys.set(child, key);
    }
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    update(child, item);
  });
}

/**
 * Our elements: built once, told everything through one idempotent `update()`, and speaking only in bubbling events.
 * Whatever listens outside the element takes the signal given to `connected()`, and so ends with it.
 */
export class Part extends HTMLElement {
  /** @type {AbortController | null} */
  #life = null;
  #built = false;

  connectedCallback() {
    if (!this.#built) {
      this.#built = true;
      this.build();
    }
    this.#life = new AbortController();
    this.connected(this.#life.signal);
  }

  disconnectedCallback() {
    this.#life?.abort();
  }

  /** Make the children; called once, at the first connection. */
  build() {}

  /**
   * Called at every connection; the signal aborts when the element leaves the page.
   * @param {AbortSignal} _signal
   */
  connected(_signal) {}

  /**
   * Say something to whoever holds the state.
   * @template {keyof Verbs} Verb
   * @param {Verb} verb
   * @param {Verbs[Verb] extends null ? [] : [Verbs[Verb]]} about
   */
  say(verb, ...about) {
    this.dispatchEvent(new CustomEvent(verb, { bubbles: true, detail: about[0] ?? null }));
  }
}

/**
 * Find an element that the page's HTML promises.
 * @template {Element} Kind
 * @param {string} selector
 * @param {new (...args: any[]) => Kind} kind
 * @returns {Kind}
 */
export function found(selector, kind) {
  const node = document.querySelector(selector);
  if (!(node instanceof kind)) throw new Error(`The page has no ${selector}`);
  return node;
}

/**
 * Give it the focus if what had it has gone.
 * @param {HTMLElement | null} node
 */
export function focusIfNowhere(node) {
  const held = document.activeElement;
  // A dialog that has just been closed keeps the focus while it fades, unless it could give it back.
  if (!held || held === document.body || held.closest("dialog:not([open])")) node?.focus({ preventScroll: true });
}

/** True while the visitor asks for less motion. */
function prefersStill() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/**
 * Bring a section to the top of the view and give it the focus, smoothly unless the visitor prefers stillness.
 * @param {HTMLElement} section
 * @param {HTMLElement} [focus]
 */
export function bringIntoView(section, focus = section) {
  focus.focus({ preventScroll: true });
  section.scrollIntoView({ behavior: prefersStill() ? "auto" : "smooth", block: "start" });
}
