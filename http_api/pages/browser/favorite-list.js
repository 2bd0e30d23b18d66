/** "My Favorite Mechanics": a card each, live, with the button that starts the whole flow. */

import { Part, glyph, h, keyed, setAttribute, setText } from "./elements.js";
import { StatusLine } from "./status-line.js";
import { money, providerType } from "./words.js";

/**
 * @import {StatusView} from "./wire.js"
 * @import {ShownFavorite} from "./state.js"
 */

/**
 * @fires book-again  mechanic id
 * @fires remove-favorite  mechanic id
 * @fires restore-favorite  mechanic id
 */
class FavoriteCard extends Part {
  #name = h("h3", {});
  #type = h("span", {});
  #typeGlyph = glyph("wrench", "🔧");
  #status = new StatusLine();
  #services = h("span", { class: "figure" });
  #spent = h("span", { class: "figure" });
  #book = h(
    "button",
    { type: "button", class: "primary wide", "data-testid": "book-again" },
    glyph("bolt", "⚡"),
    " ",
    h("span", {}, "Book Again"),
  );
  #heart = h(
    "button",
    { type: "button", class: "heart", "aria-pressed": "true", "data-testid": "favorite-remove" },
    glyph("heart"),
  );
  #body = h("div", { class: "card-body" });
  #goodbye = h("p", {});
  #undo = h("button", { type: "button", class: "secondary", "data-testid": "favorite-undo" }, "Undo");
  #removed = h("div", { class: "card-removed" }, this.#goodbye, this.#undo);
  /** @type {string} */
  #id = "";

  build() {
    setAttribute(this, "data-testid", "favorite-card");
    setAttribute(this, "role", "listitem");
    setAttribute(this.#status, "data-testid", "status");
    this.#body.append(
      h("div", { class: "card-head" }, this.#name, this.#heart),
      h("p", { class: "card-type" }, this.#typeGlyph, " ", this.#type),
      this.#status,
      h("p", { class: "figures" }, this.#services, this.#spent),
      this.#book,
    );
    this.append(this.#body, this.#removed);
    this.#book.addEventListener("click", () => this.say("book-again", this.#id));
    this.#heart.addEventListener("click", () => {
      this.say("remove-favorite", this.#id);
      // After the page has redrawn, which it does in a microtask of its own.
      queueMicrotask(() => this.#undo.focus());
    });
    this.#undo.addEventListener("click", () => {
      this.say("restore-favorite", this.#id);
      queueMicrotask(() => this.#heart.focus());
    });
  }

  /** @param {{favorite: ShownFavorite, status: StatusView | undefined}} props */
  update({ favorite, status }) {
    this.#id = favorite.provider_id;
    const workshop = favorite.provider_type === "workshop";
    setAttribute(this, "data-mechanic-id", favorite.provider_id);
    setText(this.#name, favorite.provider_name);
    setText(this.#type, providerType(favorite.provider_type));
    setAttribute(this.#typeGlyph, "class", `glyph glyph-${workshop ? "building" : "wrench"}`);
    setText(this.#typeGlyph, workshop ? "🏢" : "🔧");
    this.#status.update(status ?? favorite.status);
    setText(this.#services, `Services: ${favorite.services_count}`);
    // Where nothing is sold any more, and nothing was, there is no currency.
    setText(this.#spent, favorite.currency && `Spent: ${money(favorite.total_spent_cents, favorite.currency)}`);
    // Every button says the same; its description says whom it is about.
    setAttribute(this.#name, "id", `favorite-${favorite.provider_id}`);
    setAttribute(this.#book, "aria-describedby", this.#name.id);
    setAttribute(this.#heart, "aria-label", `Favorite: ${favorite.provider_name}`);
    setAttribute(this.#heart, "title", "Remove from favorites");
    setText(this.#goodbye, `${favorite.provider_name} is no longer a favorite.`);
    this.#body.hidden = favorite.removed;
    this.#removed.hidden = !favorite.removed;
  }
}
customElements.define("favorite-card", FavoriteCard);

/** @fires reload-favorites */
export class FavoriteList extends Part {
  #cards = h("div", { class: "cards", role: "list" });
  #hint = h(
    "div",
    { class: "empty", "data-testid": "favorites-hint" },
    glyph("heart-outline"),
    h("p", { class: "empty-title" }, "No favorites yet"),
    h(
      "p",
      {},
      "Book any available mechanic below. When the session is done, we'll ask whether to keep them here, so that next time one tap is enough.",
    ),
  );
  #skeleton = h(
    "div",
    { class: "cards", "aria-hidden": "true" },
    h("div", { class: "skeleton card-skeleton" }),
    h("div", { class: "skeleton card-skeleton" }),
  );
  #problemText = h("p", {});
  #retry = h("button", { type: "button", class: "secondary" }, "Try again");
  #problem = h("div", { class: "notice notice-bad", role: "alert" }, this.#problemText, this.#retry);

  build() {
    this.append(
      h(
        "section",
        { "aria-labelledby": "favorites-title" },
        h("h2", { id: "favorites-title" }, glyph("heart", "❤️"), " ", h("span", {}, "My Favorite Mechanics")),
        this.#problem,
        this.#skeleton,
        this.#hint,
        this.#cards,
      ),
    );
    this.#retry.addEventListener("click", () => this.say("reload-favorites"));
  }

  /**
   * @param {object} props
   * @param {readonly ShownFavorite[] | null} props.favorites  null: not loaded yet
   * @param {string | null} props.problem
   * @param {Readonly<Record<string, StatusView>>} props.statuses
   */
  update({ favorites, problem, statuses }) {
    this.#skeleton.hidden = favorites !== null || problem !== null;
    this.#hint.hidden = favorites === null || favorites.length > 0;
    this.#problem.hidden = problem === null;
    setText(this.#problemText, problem ?? "");
    keyed(
      this.#cards,
      [...(favorites ?? [])],
      (favorite) => favorite.provider_id,
      () => new FavoriteCard(),
      (card, favorite) => card.update({ favorite, status: statuses[favorite.provider_id] }),
    );
    this.#cards.hidden = !favorites?.length;
  }
}
customElements.define("favorite-list", FavoriteList);
