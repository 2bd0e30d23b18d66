/**
 * The one pure function that changes what a page knows, and who is told of it.
 *
 * `reduce(state, message)` takes the server's messages as they came off the socket, and the page's own in the past
 * tense (`favorites_loaded`). An unknown message changes nothing. An older `version` never overwrites a newer one.
 * What a message does to one kind of thing is beside that kind: `requests.js`, `endings.js`, `offers.js`, `favorites.js`,
 * `plan-choice.js`.
 */

import { withEnding, withEndings, withRemembered } from "./endings.js";
import { withFavorites, withModalKnown, withPrompt, withStatus } from "./favorites.js";
import {
  changeOffer,
  withOffer,
  withOpenOffers,
  withRefusal,
  withWithdrawal,
  withoutProblems,
  withoutRequest,
} from "./offers.js";
import { withValidPlan } from "./plan-choice.js";
import {
  assignedTo,
  isOpen,
  withFollowed,
  withFollowedIfOpen,
  withLoaded,
  withSnapshot,
  without,
  withoutOldProblems,
} from "./requests.js";
import { sessionOf } from "./session.js";
import { initialState, isConnected } from "./state.js";

/**
 * @import {Polled} from "../../../clients/javascript/client.js"
 * @import {ConnectionState, Received} from "../../../clients/javascript/connection.js"
 * @import {CustomerWelcome, MechanicWelcome} from "./wire.js"
 * @import {Message, State} from "./state.js"
 */

/**
 * @param {State} state
 * @param {Message} message
 * @returns {State}
 */
export function reduce(state, message) {
  return withEndings(state, withoutOldProblems(state, reduced(state, message)));
}

/**
 * @param {State} state
 * @param {Message} message
 * @returns {State}
 */
function reduced(state, message) {
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
      return withConnection(state, message.state);
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
      return {
        ...state,
        checkout: {
          phase: message.phase,
          problem: message.problem ?? null,
          ...(message.is_unanswered ? { is_unanswered: true } : {}),
        },
      };
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
      // A page that was asked for twice, or before the list began anew, is no part of it.
      if (message.cursor !== null && message.cursor !== state.past_cursor) return state;
      return {
        ...state,
        past_offers: message.cursor !== null ? [...(state.past_offers ?? []), ...message.offers] : message.offers,
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
    case "session_remembered":
      return {
        ...state,
        remembered: message.served,
        endings: Object.fromEntries(message.endings.map((ending) => [ending.request_id, ending])),
      };
    case "ending_found": {
      const ending = state.endings[message.request_id];
      return ending ? withEnding(state, ending, message.how) : state;
    }
    case "ending_read":
      return { ...state, endings: without(state.endings, message.request_id) };
    case "error":
      return withRefusal(state, message);
    default:
      return state;
  }
}

/**
 * Once there is a connection again, what did not get through is no trouble any more.
 * @param {State} state
 * @param {ConnectionState} connection
 * @returns {State}
 */
function withConnection(state, connection) {
  if (state.connection === connection) return state;
  const next = { ...state, connection };
  if (isConnected(state) || !isConnected(next)) return next;
  return {
    ...next,
    problems: {},
    offers: withoutProblems(state.offers),
    prompts: state.prompts.map((prompt) => ({ ...prompt, problem: null })),
    checkout: state.checkout.is_unanswered ? { phase: state.checkout.phase, problem: null } : state.checkout,
  };
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
  const known = withRemembered(next, request?.id);
  return request ? withFollowed(known, request.id) : known;
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
  const remembered = withRemembered(next, assignedTo(state.me?.id, next.requests)?.id);
  return statuses.reduce((all, status) => withModalKnown(withStatus(all, status), status.mechanic_id), remembered);
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
    /**
     * For whatever is asked and waited for: nothing of one account may be told to the next.
     * @returns {() => boolean}  whether who is here now still is
     */
    whoIsHere() {
      const id = state.me?.id;
      return () => state.me?.id === id;
    },
    /** @param {(state: State, before: State) => void} subscriber  called at changes, with what it was told before */
    subscribe(subscriber) {
      subscribers.add(subscriber);
    },
  };
}

/** @typedef {ReturnType<typeof createStore>} Store */
