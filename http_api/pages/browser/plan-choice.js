/** Which plan is chosen, as far as it can be had. Pure. */

import { takesPlan } from "./words.js";

/**
 * @import {PlanView} from "./wire.js"
 * @import {State} from "./state.js"
 */

/** What the flow proposes to somebody who has not chosen. */
const DEFAULT_PLAN = "expert_video";

/**
 * Keep the chosen plan if it can be had, also with the chosen favourite, else propose one.
 * @param {State} state
 * @returns {State}
 */
export function withValidPlan(state) {
  if (!state.plans) return state;
  const { favorite, plan: chosen } = state.booking;
  const status = favorite ? state.statuses[favorite.id] : undefined;
  const possible = state.plans.filter((plan) => plan.eligible && takesPlan(status, plan));
  // What could be had, were it not for the favourite, is what is wanted; of what cannot be had at all nobody knows why it was.
  const wanted =
    state.plans.find(({ id, eligible }) => id === chosen && eligible) ??
    state.plans.find(({ id }) => id === DEFAULT_PLAN);
  const plan = nearest(possible, wanted)?.id ?? null;
  return plan === chosen ? state : { ...state, booking: { ...state.booking, plan } };
}

/**
 * The plan itself, else what costs most of what is not dearer: nobody is to pay more than they chose to without noticing.
 * @param {readonly PlanView[]} plans
 * @param {PlanView | undefined} wanted  undefined: no plan that there is
 */
function nearest(plans, wanted) {
  if (!wanted) return plans[0];
  if (plans.includes(wanted)) return wanted;
  // Prices of different currencies say nothing about which is more.
  const comparable = plans.filter(({ currency }) => currency === wanted.currency);
  const by_price = [...(comparable.length ? comparable : plans)].sort((a, b) => a.price_cents - b.price_cents);
  return by_price.findLast((plan) => plan.price_cents <= wanted.price_cents) ?? by_price[0];
}
