/**
 * Everything the page knows, and the one pure function that changes it.
 *
 * `reduce(state, message)` takes the server's messages as they came off the socket, and the page's own in the past
 * tense (`favorites_loaded`). An unknown message changes nothing. An older `version` never overwrites a newer one.
 */

import { settingsFrom } from "./alert-settings.js";
import { changeOffer, isOpen, withOffer, withRequest, withSnapshot, without } from "./requests.js";
import { sessionOf } from "./session.js";
import { takesPlan } from "./words.js";

/**
 * @import {Polled} from "../../../clients/javascript/client.js"
 * @import {ConnectionState, Received} from "../../../clients/javascript/connection.js"
 * @import {AccountView, CustomerWelcome, DayHours, ErrorMessage, FavoriteView, MechanicWelcome, OfferView, OfferWithdrawn, PastOffer,
 *   Person, PlanView, PreferencesView, PublicConfig, RequestView, RoutingType, StatusView, ToCustomer, ToMechanic} from "./wire.js"
 * @import {AlertSettings} from "./alert-settings.js"
 * @import {PushSettingsProps} from "./push-settings.js"
 * @import {Ended, Session} from "./session.js"
 * @import {Screen} from "./tab-bar.js"
 * @import {TrackedOffer, TrackedRequest} from "./requests.js"
 */

/**
 * How far the visitor got with the choice of whom to book; `note`: what they wrote about it, perhaps nothing.
 * @typedef {{routing_type: RoutingType, favorite: Person | null, plan: string | null, note: string}} Booking
 */
/** `removed` stays in its place, to be taken back. @typedef {FavoriteView & {removed: boolean}} ShownFavorite */
/** @typedef {{mechanic_id: string, phase: "checking" | "known" | "failed", problem: string | null}} AvailabilityModalState */
/** @typedef {{phase: "idle" | "sending" | "leaving", problem: string | null}} CheckoutProgress */
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
 * @property {Readonly<Record<string, string>>} problems  request id → why the last action failed
 * @property {readonly FavoritePromptState[]} prompts
 * @property {Readonly<Record<string, boolean>>} prompted  request ids asked about already: messages may come twice
 * @property {boolean | null} on_duty  null: not known yet
 * @property {boolean | null} duty_wanted  what the switch was set to, until the server answers
 * @property {Readonly<Record<string, TrackedOffer>>} offers
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
 *   | {type: "checkout_moved", phase: CheckoutProgress["phase"], problem?: string | null}
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
 *   | {type: "past_offers_loaded", offers: PastOffer[], next_cursor: string | null, goes_on: boolean}
 *   | {type: "past_offers_failed", problem: string}
 *   | {type: "preferences_loaded", preferences: PreferencesView}
 *   | {type: "preferences_failed", problem: string}
 *   | {type: "decline_begun", offer_id: string, reason: string | null}
 *   | {type: "decline_undone", offer_id: string}
 *   | {type: "offer_answered", offer_id: string, answer: "accept" | "decline"}
 *   | {type: "offer_unanswered", offer_id: string, problem: string}
 *   | {type: "offer_left", offer_id: string}} LocalMessage
 */

/** @typedef {Received<ToCustomer | ToMechanic | Polled> | LocalMessage} Message */

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

/**
 * @param {State} state
 * @param {Message} message
 * @returns {State}
 */
export function reduce(state, message) {
  switch (message.type) {
    case "signed_in":
      return { ...state, me: message.me, session: sessionOf(message.me), ended: null };
    case "session_renewed":
      return state.me ? { ...state, session: message.session } : state;
    case "signed_out":
      // Nothing of one account may be seen by the next; what is public, and what is this device's, stays. Why it ended is what
      // was told first.
      return {
        ...initialState,
        me: null,
        config: state.config,
        alerts: state.alerts,
        ended: message.ended ?? (state.me ? null : state.ended),
      };
    case "connection_changed":
      return state.connection === message.state ? state : { ...state, connection: message.state };
    case "config_loaded":
      return { ...state, config: message.config };

    case "welcome":
      return "mechanic_id" in message ? withMechanicWelcome(state, message) : withCustomerWelcome(state, message);
    case "polled":
      return withPoll(state, message);
    case "request_update":
      return withFollowedIfOpen(state, message.request, message.received_ms);
    case "status":
      return withModalKnown(withStatus(state, message), message.mechanic_id);
    case "statuses":
      return message.statuses.reduce(
        (all, status) => withModalKnown(withStatus(all, status), status.mechanic_id),
        state,
      );
    case "status_fetched":
      return withModalKnown(withStatus(state, message.status), message.status.mechanic_id);

    case "favorites_loaded":
      return withFavorites(state, message.favorites);
    case "favorites_failed":
      return { ...state, favorites_problem: message.problem };
    case "favorite_marked":
      return {
        ...state,
        favorites:
          state.favorites?.map((favorite) =>
            favorite.provider_id === message.mechanic_id ? { ...favorite, removed: message.removed } : favorite,
          ) ?? null,
      };

    case "modal_opened":
      return { ...state, modal: { mechanic_id: message.mechanic_id, phase: "checking", problem: null } };
    case "modal_failed":
      // The socket may have answered meanwhile; then nothing is missing.
      return state.modal?.mechanic_id === message.mechanic_id && state.modal.phase === "checking"
        ? { ...state, modal: { ...state.modal, phase: "failed", problem: message.problem } }
        : state;
    case "modal_closed":
      return state.modal ? { ...state, modal: null } : state;
    case "availability_counted":
      return { ...state, available_count: message.available_count };

    case "plans_loaded":
      return withValidPlan({ ...state, plans: message.plans, plans_problem: null });
    case "plans_failed":
      return { ...state, plans_problem: message.problem };
    case "booking_chosen":
      return withValidPlan({
        ...state,
        booking: { ...state.booking, routing_type: message.routing_type, favorite: message.favorite },
        checkout: { phase: "idle", problem: null },
      });
    case "booking_restored":
      return withValidPlan({ ...state, booking: message.booking });
    case "plan_chosen":
      return {
        ...state,
        booking: { ...state.booking, plan: message.plan },
        checkout: { phase: "idle", problem: null },
      };
    case "note_written":
      return {
        ...state,
        booking: { ...state.booking, note: message.note },
        checkout: { phase: "idle", problem: null },
      };
    case "checkout_moved":
      return { ...state, checkout: { phase: message.phase, problem: message.problem ?? null } };
    case "return_moved":
      return { ...state, returned: message.returned };

    case "request_loaded":
      return message.follow
        ? withFollowed(withLoaded(state, message.request, message.received_ms), message.request.id)
        : withFollowedIfOpen(state, message.request, message.received_ms);
    case "requests_loaded":
      return {
        ...message.requests.reduce((next, request) => withFollowedIfOpen(next, request, message.received_ms), state),
        next_cursor: message.next_cursor,
      };
    case "request_closed":
      return { ...state, followed: without(state.followed, message.request_id) };
    case "request_lost":
      return {
        ...state,
        requests: without(state.requests, message.request_id),
        followed: without(state.followed, message.request_id),
      };
    case "action_sent":
      return {
        ...state,
        acting: { ...state.acting, [message.request_id]: message.action },
        problems: without(state.problems, message.request_id),
      };
    case "action_answered":
      return {
        ...state,
        acting: without(state.acting, message.request_id),
        problems: message.problem ? { ...state.problems, [message.request_id]: message.problem } : state.problems,
      };

    case "favorite_prompt":
      return withPrompt(state, message.request_id, message.mechanic);
    case "prompt_moved":
      return {
        ...state,
        prompts: state.prompts.flatMap((prompt) => {
          if (prompt.request_id !== message.request_id) return [prompt];
          return message.phase === "gone"
            ? []
            : [{ ...prompt, phase: message.phase, problem: message.problem ?? null }];
        }),
      };

    case "availability":
      return { ...state, on_duty: message.on_duty, duty_wanted: null, ...dayPlan(message) };
    case "duty_wanted":
      return { ...state, duty_wanted: message.on_duty };
    case "screen_shown":
      return state.screen === message.screen ? state : { ...state, screen: message.screen };
    case "push_moved": {
      const { type: _type, ...change } = message;
      return { ...state, push: { ...state.push, ...change } };
    }
    case "days_loaded":
      return { ...state, days: message.days, days_problem: null };
    case "days_failed":
      return { ...state, days_problem: message.problem };
    case "past_offers_loaded":
      return {
        ...state,
        past_offers: message.goes_on ? [...(state.past_offers ?? []), ...message.offers] : message.offers,
        past_cursor: message.next_cursor,
        past_problem: null,
      };
    case "past_offers_failed":
      return { ...state, past_problem: message.problem };
    case "preferences_loaded":
      return { ...state, preferences: message.preferences, preferences_problem: null };
    case "preferences_failed":
      return { ...state, preferences_problem: message.problem };
    case "alerts_set":
      return { ...state, alerts: message.alerts };
    case "offer":
      return { ...state, offers: withOffer(state.offers, message.offer, message.received_ms) };
    case "offer_accepted":
      return withFollowedIfOpen(
        { ...state, offers: withoutRequest(state.offers, message.request.id) },
        message.request,
        message.received_ms,
      );
    case "offer_withdrawn":
      return withWithdrawal(state, message);
    case "decline_begun":
      return {
        ...state,
        offers: changeOffer(state.offers, message.offer_id, { declining: { reason: message.reason }, problem: null }),
      };
    case "decline_undone":
      return { ...state, offers: changeOffer(state.offers, message.offer_id, { declining: null }) };
    case "offer_answered":
      return {
        ...state,
        offers: changeOffer(state.offers, message.offer_id, {
          declining: null,
          pending: message.answer,
          problem: null,
        }),
      };
    case "offer_unanswered":
      return state.offers[message.offer_id]?.pending
        ? {
            ...state,
            offers: changeOffer(state.offers, message.offer_id, {
              declining: null,
              pending: null,
              problem: message.problem,
            }),
          }
        : state;
    case "offer_left":
      return { ...state, offers: without(state.offers, message.offer_id) };
    case "error":
      return withRefusal(state, message);
    default:
      return state;
  }
}

/**
 * @param {State} state
 * @param {Received<CustomerWelcome>} welcome
 */
function withCustomerWelcome(state, { requests, received_ms }) {
  const next = { ...state, requests: withSnapshot(state.requests, requests, received_ms) };
  return requests.reduce((all, request) => withFollowed(all, request.id), next);
}

/**
 * @param {State} state
 * @param {Received<MechanicWelcome>} welcome
 * @returns {State}
 */
function withMechanicWelcome(state, welcome) {
  const { on_duty, offers, request, received_ms } = welcome;
  const next = {
    ...state,
    on_duty,
    duty_wanted: null,
    ...dayPlan(welcome),
    offers: withOpenOffers(state.offers, offers, received_ms),
    requests: withSnapshot(state.requests, request ? [request] : [], received_ms),
  };
  return request ? withFollowed(next, request.id) : next;
}

/**
 * What is planned of their duty: the end of a break, or of the day.
 * @param {{back_in_ms?: number, off_after_session?: boolean, received_ms: number}} told
 */
const dayPlan = ({ back_in_ms, off_after_session = false, received_ms }) => ({
  back_ms: back_in_ms === undefined ? null : received_ms + back_in_ms,
  off_after_session,
});

/**
 * A snapshot says which offers are open. What is being answered stays until its outcome is known, and cards that are only
 * still saying goodbye may finish doing so.
 * @param {State["offers"]} known
 * @param {OfferView[]} offers
 * @param {number} received_ms
 */
function withOpenOffers(known, offers, received_ms) {
  const open = new Set(offers.map((offer) => offer.offer_id));
  /** @type {State["offers"]} */
  const kept = Object.fromEntries(
    Object.entries(known).filter(([offer_id, offer]) => open.has(offer_id) || offer.pending || offer.ended),
  );
  return offers.reduce((all, offer) => withOffer(all, offer, received_ms), kept);
}

/**
 * What REST says in place of a socket. Nothing of it is about duty, which is known from before.
 * @param {State} state
 * @param {Received<Polled>} poll
 * @returns {State}
 */
function withPoll(state, { requests, offers, statuses, received_ms }) {
  const open = requests.filter(isOpen);
  const known = requests.reduce((next, request) => withFollowedIfOpen(next, request, received_ms), state);
  const next = {
    ...known,
    offers: withOpenOffers(known.offers, offers, received_ms),
    requests: withSnapshot(known.requests, open, received_ms),
  };
  return statuses.reduce((all, status) => withModalKnown(withStatus(all, status), status.mechanic_id), next);
}

/**
 * @param {State} state
 * @param {RequestView} request
 * @param {number} received_ms
 * @returns {State}
 */
function withLoaded(state, request, received_ms) {
  const requests = withRequest(state.requests, request, received_ms);
  return requests === state.requests ? state : { ...state, requests };
}

/**
 * @param {State} state
 * @param {string} request_id
 * @returns {State}
 */
function withFollowed(state, request_id) {
  return state.followed[request_id] ? state : { ...state, followed: { ...state.followed, [request_id]: true } };
}

/**
 * Take in a request, and keep showing it from now on if it is open.
 * @param {State} state
 * @param {RequestView} request
 * @param {number} received_ms
 */
function withFollowedIfOpen(state, request, received_ms) {
  const next = withLoaded(state, request, received_ms);
  return isOpen(request) && next !== state ? withFollowed(next, request.id) : next;
}

/**
 * @param {State} state
 * @param {StatusView} status
 * @returns {State}
 */
function withStatus(state, status) {
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
function withFavorites(state, favorites) {
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
function withModalKnown(state, mechanic_id) {
  return state.modal?.mechanic_id === mechanic_id
    ? { ...state, modal: { ...state.modal, phase: "known", problem: null } }
    : state;
}

/** What the flow proposes to somebody who has not chosen. */
const DEFAULT_PLAN = "expert_video";

/**
 * Keep the chosen plan if it can be had, also with the chosen favourite, else propose one.
 * @param {State} state
 * @returns {State}
 */
function withValidPlan(state) {
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
  const by_price = [...plans].sort((a, b) => a.price_cents - b.price_cents);
  return by_price.findLast((plan) => plan.price_cents <= wanted.price_cents) ?? by_price[0];
}

/**
 * @param {State} state
 * @param {string} request_id
 * @param {Person} mechanic
 * @returns {State}
 */
function withPrompt(state, request_id, mechanic) {
  const is_favorite = state.favorites?.some((favorite) => favorite.provider_id === mechanic.id && !favorite.removed);
  if (is_favorite || state.prompted[request_id] || state.prompts.some((prompt) => prompt.mechanic.id === mechanic.id))
    return state;
  return {
    ...state,
    prompted: { ...state.prompted, [request_id]: true },
    prompts: [...state.prompts, { request_id, mechanic, phase: "asking", problem: null }],
  };
}

/**
 * @param {State} state
 * @param {OfferWithdrawn} withdrawn
 * @returns {State}
 */
function withWithdrawal(state, { offer_id, reason, by_you = false }) {
  const known = state.offers[offer_id];
  // A decline of ours that was made here needs no explanation.
  if (reason === "declined" && (known?.pending === "decline" || !by_you))
    return { ...state, offers: without(state.offers, offer_id) };
  const change = { declining: null, pending: null, problem: null, ended: reason, by_you };
  return { ...state, offers: changeOffer(state.offers, offer_id, change) };
}

/**
 * Drop every card of a request: a late tap names the priority offer while the broadcast's card is shown as well.
 *
 * @param {State["offers"]} offers
 * @param {string} request_id
 * @returns {State["offers"]}
 */
function withoutRequest(offers, request_id) {
  return Object.fromEntries(Object.entries(offers).filter(([, offer]) => offer.request_id !== request_id));
}

/**
 * @param {State} state
 * @param {ErrorMessage} error
 * @returns {State}
 */
function withRefusal(state, { code, message, ref }) {
  const next = state.duty_wanted === null ? state : { ...state, duty_wanted: null };
  if (!ref) return next;
  const change = { declining: null, pending: null, problem: message };
  return {
    ...next,
    offers: changeOffer(next.offers, ref, code === "offer_gone" ? { ...change, ended: code } : change),
  };
}

/**
 * Holds the state and tells subscribers of changes, once for all messages of one turn of the event loop.
 * @param {State} [state]
 */
export function createStore(state = initialState) {
  /** @type {Set<(state: State, before: State) => void>} */
  const subscribers = new Set();
  let told = state;
  let scheduled = false;

  function tell() {
    scheduled = false;
    const before = told;
    told = state;
    subscribers.forEach((subscriber) => subscriber(told, before));
  }

  return {
    get state() {
      return state;
    },
    /** @param {Message} message */
    dispatch(message) {
      const next = reduce(state, message);
      if (next === state) return;
      state = next;
      // A microtask and not an animation frame: hidden tabs draw no frames, and must be right when they are shown.
      if (!scheduled) queueMicrotask(tell);
      scheduled = true;
    },
    /** @param {(state: State, before: State) => void} subscriber  called at changes, with what it was told before */
    subscribe(subscriber) {
      subscribers.add(subscriber);
    },
  };
}

/** @typedef {ReturnType<typeof createStore>} Store */
