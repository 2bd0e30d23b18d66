/** A request's story, oldest first. */

import { serverNow } from "./clock.js";
import { Part, h, keyed, setAttribute, setText } from "./elements.js";
import { dateAndTime, timeOfDay, timelineText } from "./words.js";

/** @import {RequestView, TimelineEntryView} from "./wire.js" */

export class RequestTimeline extends Part {
  #list = h("ol", { class: "timeline" });

  build() {
    setAttribute(this, "data-testid", "timeline");
    this.append(this.#list);
  }

  /**
   * @param {RequestView} request
   * @param {"customer" | "mechanic"} side  who reads it
   */
  update(request, side) {
    keyed(
      this.#list,
      request.timeline.map((entry, index) => ({ entry, key: `${index} ${entry.event}` })),
      ({ key }) => key,
      () => h("li", {}, h("time", {}), h("span", {})),
      (line, { entry }) => draw(line, entry, request, side),
    );
  }
}
customElements.define("request-timeline", RequestTimeline);

/**
 * @param {HTMLLIElement} line
 * @param {TimelineEntryView} entry
 * @param {RequestView} request
 * @param {"customer" | "mechanic"} side
 */
function draw(line, entry, request, side) {
  const [time, text] = line.children;
  if (!time || !text) return;
  setAttribute(line, "data-event", entry.event);
  setAttribute(time, "datetime", entry.at);
  setAttribute(time, "title", dateAndTime(entry.at, serverNow()));
  setText(time, timeOfDay(entry.at));
  setText(text, timelineText(entry, request, side));
}
