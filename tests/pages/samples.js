/** What a server may have sent, whole and valid; a test names only what it is about. */

import { initialState } from "../../http_api/pages/browser/state.js";
import { reduce } from "../../http_api/pages/browser/store.js";

/**
 * @import {FavoriteView, MechanicWelcome, CustomerWelcome, OfferView, PlanView, RequestView, StatusView,
 *   ToCustomer, ToMechanic} from "../../http_api/pages/browser/wire.js"
 * @import {Polled} from "../../clients/javascript/client.js"
 * @import {Message, State} from "../../http_api/pages/browser/state.js"
 */

export const AT = "2026-11-22T09:30:00.000Z";
export const AT_MS = Date.parse(AT);

/**
 * @param {Partial<RequestView>} [is]
 * @returns {RequestView}
 */
export function aRequest(is = {}) {
  return {
    id: "r1",
    version: 1,
    plan: "expert_video",
    session_type: "video",
    routing_type: "priority_broadcast",
    status: "priority_offered",
    customer_name: "John Doe",
    preferred_mechanic: { id: "m1", name: "Mike's Garage" },
    assigned_mechanic: null,
    offer: null,
    fallback_reason: null,
    created_at: AT,
    accepted_at: null,
    completed_at: null,
    refund: null,
    timeline: [],
    price_cents: 2999,
    currency: "usd",
    ...is,
  };
}

/**
 * @param {Partial<OfferView>} [is]
 * @returns {OfferView}
 */
export function anOffer(is = {}) {
  return {
    offer_id: "o1",
    request_id: "r1",
    kind: "priority",
    customer_name: "John Doe",
    plan: "expert_video",
    session_type: "video",
    duration_min: 30,
    expires_at: AT,
    expires_in_ms: 60_000,
    ...is,
  };
}

/**
 * @param {Partial<StatusView>} [is]
 * @returns {StatusView}
 */
export function aStatus(is = {}) {
  return {
    mechanic_id: "m1",
    is_online: true,
    last_seen: AT,
    availability: "available",
    reachable: "socket",
    session_types: ["diagnostic", "text", "video"],
    as_of: AT,
    version: 1,
    ...is,
  };
}

/**
 * @param {Partial<FavoriteView>} [is]
 * @returns {FavoriteView}
 */
export function aFavorite(is = {}) {
  return {
    provider_id: "m1",
    provider_name: "Mike's Garage",
    provider_type: "workshop",
    services_count: 3,
    total_spent_cents: 8997,
    currency: "usd",
    last_service_at: AT,
    status: aStatus({ mechanic_id: is.provider_id ?? "m1" }),
    ...is,
  };
}

/**
 * @param {Partial<PlanView>} [is]
 * @returns {PlanView}
 */
export function aPlan(is = {}) {
  return {
    id: "expert_video",
    name: "Expert Video",
    price_cents: 2999,
    currency: "usd",
    duration_min: 30,
    session_type: "video",
    first_time_only: false,
    eligible: true,
    ...is,
  };
}

/**
 * @param {Partial<CustomerWelcome>} [is]
 * @returns {CustomerWelcome}
 */
export const aCustomerWelcome = (is = {}) => ({
  type: "welcome",
  protocol: 1,
  account_id: "c1",
  server_time: AT,
  heartbeat_interval_s: 20,
  presence_timeout_s: 45,
  disconnect_grace_s: 3,
  requests: [],
  ...is,
});

/**
 * @param {Partial<MechanicWelcome>} [is]
 * @returns {MechanicWelcome}
 */
export const aMechanicWelcome = (is = {}) => ({
  type: "welcome",
  protocol: 1,
  mechanic_id: "m1",
  connection_id: "s1",
  server_time: AT,
  heartbeat_interval_s: 20,
  presence_timeout_s: 45,
  disconnect_grace_s: 3,
  on_duty: true,
  offers: [],
  request: null,
  ...is,
});

/**
 * A message off the socket.
 * @param {ToCustomer | ToMechanic | Polled} message
 * @param {number} [received_ms]
 */
export const received = (message, received_ms = 1_000) => ({ ...message, received_ms });

/**
 * The state after these messages. It is frozen all the way: a reducer that changes what it was given throws.
 * @param {readonly Message[]} messages
 * @param {State} [from]
 * @returns {State}
 */
export function after(messages, from = frozen(initialState)) {
  return messages.reduce((state, message) => frozen(reduce(state, frozen(message))), from);
}

/**
 * @template Value
 * @param {Value} value
 * @returns {Value}
 */
function frozen(value) {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    Object.values(value).forEach(frozen);
  }
  return value;
}
