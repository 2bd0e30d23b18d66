/** After a service: "Add John to your favorites?" */

import { Part, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { shortName } from "./words.js";

/** @import {FavoritePromptState} from "./state.js" */

/**
 * @fires accept-prompt  request id
 * @fires dismiss-prompt  request id
 */
class FavoritePromptCard extends Part {
  #id = "";
  #title = h("p", { class: "prompt-title" });
  #problem = h("p", { class: "prompt-problem", role: "alert" });
  #add = h("button", { type: "button", class: "primary", "data-testid": "favorite-add" });
  #later = h("button", { type: "button", class: "quiet", "data-testid": "favorite-dismiss" }, "Not now");

  build() {
    setAttribute(this, "data-testid", "favorite-prompt");
    this.append(
      h(
        "div",
        { class: "prompt" },
        glyph("heart"),
        h(
          "div",
          { class: "prompt-words" },
          this.#title,
          h("p", {}, "Next time you can book them again with one tap."),
          this.#problem,
        ),
        h("div", { class: "prompt-actions" }, this.#add, this.#later),
      ),
    );
    this.#add.addEventListener("click", () => this.say("accept-prompt", this.#id));
    this.#later.addEventListener("click", () => this.say("dismiss-prompt", this.#id));
  }

  /** @param {FavoritePromptState} prompt */
  update({ request_id, mechanic, phase, problem }) {
    this.#id = request_id;
    setAttribute(this, "data-mechanic-id", mechanic.id);
    setText(this.#title, `Add ${shortName(mechanic.name)} to your favorites?`);
    setText(this.#add, phase === "adding" ? "Adding…" : `Add ${shortName(mechanic.name)}`);
    setAttribute(this.#add, "aria-disabled", phase === "adding" ? "true" : null);
    this.#problem.hidden = !problem;
    setText(this.#problem, problem ?? "");
  }
}
customElements.define("favorite-prompt", FavoritePromptCard);

export class FavoritePrompts extends Part {
  /** @param {readonly FavoritePromptState[]} prompts */
  update(prompts) {
    this.hidden = prompts.length === 0;
    keyed(
      this,
      [...prompts],
      ({ request_id }) => request_id,
      () => new FavoritePromptCard(),
      (element, prompt) => element.update(prompt),
    );
  }
}
customElements.define("favorite-prompts", FavoritePrompts);
