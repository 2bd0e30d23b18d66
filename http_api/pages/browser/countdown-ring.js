/** A ring that empties as a deadline comes nearer, with the minutes and seconds left inside. */

import { msLeft, onTick } from "./clock.js";
import { Part, h, setAttribute, setText } from "./elements.js";
import { countdown } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

export class CountdownRing extends Part {
  #deadline_ms = 0;
  #total_ms = 1;
  #text = h("span", { class: "ring-text" });
  #arc = circle("ring-arc");

  build() {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 64 64");
    svg.append(circle("ring-track"), this.#arc);
    this.setAttribute("aria-hidden", "true");
    this.append(svg, this.#text);
  }

  /** @param {AbortSignal} signal */
  connected(signal) {
    onTick(signal, () => this.#draw());
  }

  /**
   * @param {number} deadline_ms  on the `performance.now()` scale
   * @param {number} total_ms  of the whole window
   */
  update(deadline_ms, total_ms) {
    this.#deadline_ms = deadline_ms;
    this.#total_ms = Math.max(1, total_ms);
    this.#draw();
  }

  #draw() {
    const left_ms = msLeft(this.#deadline_ms);
    const text = countdown(left_ms);
    setText(this.#text, text);
    setAttribute(this.#text, "data-long", text.length > 5);
    // pathLength is 100, so the dash is the share left.
    this.#arc.style.strokeDasharray = `${Math.min(100, (left_ms / this.#total_ms) * 100).toFixed(2)} 100`;
  }
}
customElements.define("countdown-ring", CountdownRing);

/** @param {string} kind */
function circle(kind) {
  const node = document.createElementNS(SVG, "circle");
  for (const [name, value] of Object.entries({ cx: 32, cy: 32, r: 28, pathLength: 100, class: kind }))
    node.setAttribute(name, String(value));
  return node;
}
