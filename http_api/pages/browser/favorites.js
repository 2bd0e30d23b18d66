/** Favourites as the customer's page keeps them: how they stand, the modal about one, and who is asked to become one. Pure. */

import { withValidPlan } from "./plan-choice.js";

/**
 * @import {FavoriteView, Person, StatusView} from "./wire.js"
 * @import {State} from "./state.js"
 */

/**
 * @param {State} state
 * @param {StatusView} status
 * @returns {State}
 */
export function withStatus(state, status) {
  const old = state.statuses[status.mechanic_id];
  if (old && (old.version > status.version || (old.version === status.version && old.as_of > status.as_of)))
    return state;
  const next = { ...state, statuses: { ...state.statuses, [status.mechanic_id]: status } };
  return status.mechanic_id === state.booking.favorite?.id ? withValidPlan(next) : next;
}

/**
 * @param {State} state
 * @param {FavoriteView[]} favorites
 * @returns {State}
 */
export function withFavorites(state, favorites) {
  /** @type {State} */
  const next = {
    ...state,
    favorites_problem: null,
    favorites: favorites.map((favorite) => ({ ...favorite, removed: false })),
  };
  return favorites.reduce((all, { status }) => withStatus(all, status), next);
}

/**
 * The open modal has its answer.
 * @param {State} state
 * @param {string} mechanic_id
 * @returns {State}
 */
export function withModalKnown(state, mechanic_id) {
  return state.modal?.mechanic_id === mechanic_id
    ? { ...state, modal: { ...state.modal, phase: "known", problem: null } }
    : state;
}

/**
 * @param {State} state
 * @param {string} request_id
 * @param {Person} mechanic
 * @returns {State}
 */
export function withPrompt(state, request_id, mechanic) {
  const is_favorite = state.favorites?.some((favorite) => favorite.provider_id === mechanic.id && !favorite.removed);
  if (is_favorite || state.prompted[request_id] || state.prompts.some((prompt) => prompt.mechanic.id === mechanic.id))
    return state;
  return {
    ...state,
    prompted: { ...state.prompted, [request_id]: true },
    prompts: [...state.prompts, { request_id, mechanic, phase: "asking", problem: null }],
  };
}
