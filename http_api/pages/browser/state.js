/** Everything a page knows, as one value, and every message that may change it. */

import { settingsFrom } from "./alert-settings.js";

/**
 * @import {Polled} from "../../../clients/javascript/client.js"
 * @import {ConnectionState, Received} from "../../../clients/javascript/connection.js"
 * @import {AccountView, DayHours, FavoriteView, PastOffer, Person, PlanView, PreferencesView, PublicConfig, RequestView, RoutingType,
 *   StatusView, ToCustomer, ToMechanic} from "./wire.js"
 * @import {AlertSettings} from "./alert-settings.js"
 * @import {HowEnded, Served, SessionEnding} from "./endings.js"
 * @import {TrackedOffer} from "./offers.js"
 * @import {PushSettingsProps} from "./push-settings.js"
 * @import {TrackedRequest} from "./requests.js"
 * @import {Ended, Session} from "./session.js"
 * @import {Screen} from "./tab-bar.js"
 */

/**
 * How far the visitor got with the choice of whom to book; `note`: what they wrote about it, perhaps nothing.
 * @typedef {{routing_type: RoutingType, favorite: Person | null, plan: string | null, note: string}} Booking
 */
/** `removed` stays in its place, to be taken back. @typedef {FavoriteView & {removed: boolean}} ShownFavorite */
/** @typedef {{mechanic_id: string, phase: "checking" | "known" | "failed", problem: string | null}} AvailabilityModalState */
/**
 * `is_unanswered`: the problem is that no answer came, and is none once there is a connection again.
 * @typedef {{phase: "idle" | "sending" | "leaving", problem: string | null, is_unanswered?: boolean}} CheckoutProgress
 */
/**
 * Coming back from the payment page.
 * @typedef {{checkout_id: string, phase: "confirming" | "slow" | "expired" | "failed" | "left", problem: string | null}} CheckoutReturnState
 */
/** @typedef {{request_id: string, mechanic: Person, phase: "asking" | "adding", problem: string | null}} FavoritePromptState */

/**
 * @typedef {object} State
 * @property {AccountView | null | undefined} me  undefined: not asked yet; null: signed out
 * @property {Session | null} session  null: nobody is signed in, or the server does not say how long
 * @property {Ended | null} ended  why somebody has to sign in again
 * @property {ConnectionState} connection
 * @property {PublicConfig | null} config
 * @property {readonly ShownFavorite[] | null} favorites  null: not loaded yet
 * @property {string | null} favorites_problem
 * @property {Readonly<Record<string, StatusView>>} statuses
 * @property {AvailabilityModalState | null} modal
 * @property {number | null} available_count
 * @property {readonly PlanView[] | null} plans
 * @property {string | null} plans_problem
 * @property {Booking} booking
 * @property {CheckoutProgress} checkout
 * @property {CheckoutReturnState | null} returned
 * @property {Readonly<Record<string, TrackedRequest>>} requests
 * @property {Readonly<Record<string, boolean>>} followed  finished requests that keep their card: seen open on this page
 * @property {string | null} next_cursor  of the list of past requests
 * @property {Readonly<Record<string, string>>} acting  request id → the action on its way
 * @property {Readonly<Record<string, string>>} problems  request id → why the last action failed; while that may still be so
 * @property {readonly FavoritePromptState[]} prompts
 * @property {Readonly<Record<string, boolean>>} prompted  request ids asked about already: messages may come twice
 * @property {boolean | null} on_duty  null: not known yet
 * @property {boolean | null} duty_wanted  what the switch was set to, until the server answers
 * @property {Readonly<Record<string, TrackedOffer>>} offers
 * @property {Readonly<Record<string, SessionEnding>>} endings  how sessions of a mechanic's ended, until they have read it
 * @property {Served | null} remembered  what they had when the page was closed, until a snapshot says whether they still have it
 * @property {Screen} screen  of the mechanic's app
 * @property {AlertSettings} alerts
 * @property {PushSettingsProps} push
 * @property {number | null} back_ms  when a break ends, on the `performance.now()` scale
 * @property {boolean} off_after_session
 * @property {readonly DayHours[] | null} days  null: not loaded yet
 * @property {string | null} days_problem
 * @property {readonly PastOffer[] | null} past_offers  null: not loaded yet
 * @property {string | null} past_cursor
 * @property {string | null} past_problem
 * @property {PreferencesView | null} preferences  null: not loaded yet
 * @property {string | null} preferences_problem
 */

/**
 * @typedef {{type: "signed_in", me: AccountView}
 *   | {type: "session_renewed", session: Session | null}
 *   | {type: "signed_out", ended?: Ended | null}
 *   | {type: "connection_changed", state: ConnectionState}
 *   | {type: "config_loaded", config: PublicConfig}
 *   | {type: "favorites_loaded", favorites: FavoriteView[]}
 *   | {type: "favorites_failed", problem: string}
 *   | {type: "favorite_marked", mechanic_id: string, removed: boolean}
 *   | {type: "modal_opened", mechanic_id: string}
 *   | {type: "modal_failed", mechanic_id: string, problem: string}
 *   | {type: "modal_closed"}
 *   | {type: "status_fetched", status: StatusView}
 *   | {type: "availability_counted", available_count: number}
 *   | {type: "plans_loaded", plans: PlanView[]}
 *   | {type: "plans_failed", problem: string}
 *   | {type: "booking_chosen", routing_type: RoutingType, favorite: Person | null}
 *   | {type: "booking_restored", booking: Booking}
 *   | {type: "plan_chosen", plan: string}
 *   | {type: "note_written", note: string}
 *   | {type: "checkout_moved", phase: CheckoutProgress["phase"], problem?: string | null, is_unanswered?: boolean}
 *   | {type: "return_moved", returned: CheckoutReturnState | null}
 *   | {type: "request_loaded", request: RequestView, received_ms: number, follow?: boolean}
 *   | {type: "requests_loaded", requests: RequestView[], next_cursor: string | null, received_ms: number}
 *   | {type: "request_closed", request_id: string}
 *   | {type: "request_lost", request_id: string}
 *   | {type: "action_sent", request_id: string, action: string}
 *   | {type: "action_answered", request_id: string, problem?: string | null}
 *   | {type: "prompt_moved", request_id: string, phase: "adding" | "asking" | "gone", problem?: string | null}
 *   | {type: "duty_wanted", on_duty: boolean | null}
 *   | {type: "screen_shown", screen: Screen}
 *   | {type: "alerts_set", alerts: AlertSettings}
 *   | {type: "push_moved"} & Partial<PushSettingsProps>
 *   | {type: "days_loaded", days: DayHours[]}
 *   | {type: "days_failed", problem: string}
 *   | {type: "past_offers_loaded", offers: PastOffer[], next_cursor: string | null, cursor: string | null}
 *   | {type: "past_offers_failed", problem: string}
 *   | {type: "preferences_loaded", preferences: PreferencesView}
 *   | {type: "preferences_failed", problem: string}
 *   | {type: "decline_begun", offer_id: string, reason: string | null}
 *   | {type: "decline_undone", offer_id: string}
 *   | {type: "offer_answered", offer_id: string, answer: "accept" | "decline"}
 *   | {type: "offer_unanswered", offer_id: string, problem: string}
 *   | {type: "offer_left", offer_id: string}
 *   | {type: "session_remembered", served: Served | null, endings: readonly SessionEnding[]}
 *   | {type: "ending_found", request_id: string, how: HowEnded | null}
 *   | {type: "ending_read", request_id: string}} LocalMessage
 */

/** @typedef {Received<ToCustomer | ToMechanic | Polled> | LocalMessage} Message */

/**
 * Whether news comes and wishes go, by whatever way.
 * @param {Pick<State, "connection">} state
 */
export const isConnected = ({ connection }) => connection === "live" || connection === "polling";

/** @type {Readonly<State>} */
export const initialState = {
  me: undefined,
  session: null,
  ended: null,
  connection: "closed",
  config: null,
  favorites: null,
  favorites_problem: null,
  statuses: {},
  modal: null,
  available_count: null,
  plans: null,
  plans_problem: null,
  booking: { routing_type: "broadcast", favorite: null, plan: null, note: "" },
  checkout: { phase: "idle", problem: null },
  returned: null,
  requests: {},
  followed: {},
  next_cursor: null,
  acting: {},
  problems: {},
  prompts: [],
  prompted: {},
  on_duty: null,
  duty_wanted: null,
  offers: {},
  endings: {},
  remembered: null,
  screen: "offers",
  alerts: settingsFrom(null),
  push: { state: null, busy: false, problem: null, devices: null, own_hash: null },
  back_ms: null,
  off_after_session: false,
  days: null,
  days_problem: null,
  past_offers: null,
  past_cursor: null,
  past_problem: null,
  preferences: null,
  preferences_problem: null,
};
