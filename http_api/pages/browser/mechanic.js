/**
 * The mechanic's page: duty, offers, the active session. Like the customer's, it owns the state and carries out what
 * the elements ask for.
 */

import * as api from "./api.js";
import { handleSignIn, loadConfig, recognise, signOut } from "./account.js";
import { ActiveRequest } from "./active-request.js";
import { announce, tell } from "./announcer.js";
import { ConfirmDialog } from "./confirm-dialog.js";
import { DutySwitch } from "./duty-switch.js";
import { found } from "./elements.js";
import { createLoader } from "./loading.js";
import { OfferList } from "./offer-list.js";
import { PageHeader } from "./page-header.js";
import { RecentRequests } from "./recent-requests.js";
import { isOpen, newestFirst } from "./requests.js";
import { keepSignedIn, resume } from "./session.js";
import { SignIn } from "./sign-in.js";
import { LiveSocket } from "./socket.js";
import { createStore } from "./store.js";
import { carryOut } from "./verbs.js";
import { planName, withdrawnText } from "./words.js";

/**
 * @import {State} from "./store.js"
 * @import {TrackedOffer, TrackedRequest} from "./requests.js"
 */

const { ApiError, messageOf } = api;
/** How long a withdrawn offer stays to say why. */
const GOODBYE_MS = 5_000;
/** How long an answer to an offer may take before the mechanic may try again. */
const ANSWER_TIMEOUT_MS = 8_000;
const TITLE = document.title;

const store = createStore();
const load = createLoader(store);
const page = {
  header: found("page-header", PageHeader),
  boot: found("#boot", HTMLElement),
  bootText: found("#boot-text", HTMLElement),
  signIn: found("sign-in", SignIn),
  otherRole: found("#other-role", HTMLElement),
  bay: found("#bay", HTMLElement),
  duty: found("duty-switch", DutySwitch),
  active: found("active-request", ActiveRequest),
  offers: found("offer-list", OfferList),
  recents: found("recent-requests", RecentRequests),
  confirm: found("confirm-dialog", ConfirmDialog),
};

const socket = new LiveSocket("/ws/mechanic", {
  message(message) {
    store.dispatch(message);
    // Every time, also for an offer we have: it came again because our first word did not arrive.
    if (message.type === "offer") acknowledge(message.offer.offer_id);
    if (message.type === "welcome") message.offers.forEach((offer) => acknowledge(offer.offer_id));
  },
  state: (state) => store.dispatch({ type: "connection_changed", state }),
  signedOut: () => void resume(socket, load),
  refused: () => void load.stillSignedIn(),
});

/** @param {string} offer_id */
const acknowledge = (offer_id) => socket.send({ type: "offer_ack", offer_id });

// ---- what to show -------------------------------------------------------------------------------------------------

/** @param {State} state */
function render(state) {
  const mechanic = state.me?.role === "mechanic";
  page.boot.hidden = state.me !== undefined;
  page.signIn.hidden = state.me !== null;
  page.signIn.demo = state.config?.demo ?? false;
  page.otherRole.hidden = !state.me || mechanic;
  page.bay.hidden = !mechanic;
  page.header.update(state);
  const live = state.connection === "live";
  if (!mechanic) {
    document.title = TITLE;
    return;
  }

  const active = activeRequest(state);
  page.duty.update({ ...state, in_session: active !== null });
  page.active.update({
    request: active,
    plans: state.plans,
    acting: active ? state.acting[active.id] : undefined,
    problem: active ? state.problems[active.id] : undefined,
  });
  const offers = Object.values(state.offers).sort(byUrgency);
  page.offers.update(
    offers.map((offer) => ({ offer, plans: state.plans, config: state.config, live })),
    { on_duty: state.on_duty, in_session: active !== null },
  );
  const open = offers.filter((offer) => !offer.ended).length;
  document.title = open ? `(${open}) ${open === 1 ? "Offer" : "Offers"} - ${TITLE}` : TITLE;
  page.recents.update(
    newestFirst(Object.values(state.requests))
      .filter((request) => request !== active && !isOpen(request))
      .map((request) => ({ request, plans: state.plans, side: "mechanic", may_add: false })),
    state.next_cursor !== null,
  );
}

/**
 * Those who asked for this mechanic first, then whoever runs out soonest.
 * @param {TrackedOffer} a
 * @param {TrackedOffer} b
 */
function byUrgency(a, b) {
  if (a.kind !== b.kind) return a.kind === "priority" ? -1 : 1;
  return a.deadline_ms - b.deadline_ms || (a.offer_id < b.offer_id ? -1 : 1);
}

/**
 * @param {State} state
 * @returns {TrackedRequest | null}
 */
function activeRequest(state) {
  const mine = Object.values(state.requests).filter(
    (request) =>
      (request.status === "accepted" || request.status === "in_progress") &&
      (request.assigned_mechanic?.id ?? state.me?.id) === state.me?.id,
  );
  return newestFirst(mine)[0] ?? null;
}

// ---- what follows from a change -----------------------------------------------------------------------------------

/**
 * @param {State} state
 * @param {State} before
 */
function react(state, before) {
  if (state.me !== before.me) meChanged(state);
  if (state.me?.role !== "mechanic") return;
  for (const offer of Object.values(state.offers)) {
    const old = before.offers[offer.offer_id];
    if (!old) announceOffer(state, offer);
    if (offer.ended && !old?.ended) leaveSoon(offer, offer.problem ?? withdrawnText(offer.ended));
  }
  for (const request of Object.values(state.requests)) {
    const old = before.requests[request.id];
    if (request.unsure && request !== old) void load.request(request.id);
    if (old && isOpen(old) && request.status === "cancelled") tell("The customer cancelled this session.");
    if (old && old.status !== request.status && request.status === "completed") tell("Session completed. Well done.");
  }
  const active = activeRequest(state);
  if (active && activeRequest(before)?.id !== active.id && before.on_duty !== null) {
    announce(`You have ${active.customer_name}'s session.`);
    page.active.focusCard();
  }
}

/**
 * @param {State} state
 * @param {TrackedOffer} offer
 */
function announceOffer(state, offer) {
  const what = planName(state.plans, offer.plan);
  announce(
    offer.kind === "priority"
      ? `Priority offer: ${offer.customer_name} asked for you. ${what}.`
      : `New offer: ${what} for ${offer.customer_name}.`,
  );
}

/**
 * @param {TrackedOffer} offer
 * @param {string} why
 */
function leaveSoon({ offer_id, customer_name }, why) {
  announce(`${customer_name}: ${why}`);
  setTimeout(() => {
    // It may have been offered anew meanwhile.
    if (store.state.offers[offer_id]?.ended) store.dispatch({ type: "offer_left", offer_id });
  }, GOODBYE_MS);
}

/** @param {State} state */
function meChanged(state) {
  if (state.me?.role !== "mechanic") {
    socket.stop();
    return;
  }
  socket.start();
  void load.plans();
  void load.requests();
}

// ---- actions ------------------------------------------------------------------------------------------------------

/** @param {boolean} on_duty */
function setDuty(on_duty) {
  if (!socket.send({ type: "set_availability", on_duty })) return;
  store.dispatch({ type: "duty_wanted", on_duty });
  setTimeout(() => {
    if (store.state.duty_wanted === null) return;
    store.dispatch({ type: "duty_wanted", on_duty: null });
    tell("The server has not answered yet. Please try again.");
  }, ANSWER_TIMEOUT_MS);
}

/** One per offer: a second try must not be cut short by the first one's timer. @type {Map<string, ReturnType<typeof setTimeout>>} */
const answerTimers = new Map();

/**
 * @param {string} offer_id
 * @param {"accept" | "decline"} answer
 */
function answerOffer(offer_id, answer) {
  const offer = store.state.offers[offer_id];
  if (!offer || offer.pending || offer.ended) return;
  if (!socket.send({ type: answer, offer_id })) return;
  store.dispatch({ type: "offer_answered", offer_id, answer });
  clearTimeout(answerTimers.get(offer_id));
  answerTimers.set(
    offer_id,
    setTimeout(() => {
      answerTimers.delete(offer_id);
      store.dispatch({
        type: "offer_unanswered",
        offer_id,
        problem: "No answer from the server yet. Please try again.",
      });
    }, ANSWER_TIMEOUT_MS),
  );
}

/**
 * @param {string} request_id
 * @param {"start" | "complete" | "release"} action
 */
async function act(request_id, action) {
  if (store.state.acting[request_id]) return;
  store.dispatch({ type: "action_sent", request_id, action });
  try {
    const { request } = await api.actOnRequest(request_id, action);
    store.dispatch({ type: "request_loaded", request, received_ms: performance.now() });
    if (action === "release") store.dispatch({ type: "request_lost", request_id });
    store.dispatch({ type: "action_answered", request_id });
  } catch (error) {
    if (load.signedOutBy(error)) return;
    store.dispatch({ type: "action_answered", request_id, problem: messageOf(error) });
    if (error instanceof ApiError && (error.status === 409 || error.status === 404)) void load.request(request_id);
  }
}

/** @param {string} request_id */
async function release(request_id) {
  const sure = await page.confirm.ask({
    title: "Give this request back?",
    text: "It is offered to the other mechanics at once, and not to you again.",
    yes: "Yes, give it back",
    no: "Keep it",
  });
  if (sure) await act(request_id, "release");
}

// ---- wiring -------------------------------------------------------------------------------------------------------

carryOut(document, {
  "sign-out": () => signOut(store),
  "set-duty": setDuty,
  "accept-offer": (offer_id) => answerOffer(offer_id, "accept"),
  "decline-offer": (offer_id) => answerOffer(offer_id, "decline"),
  "start-request": (request_id) => act(request_id, "start"),
  "complete-request": (request_id) => act(request_id, "complete"),
  "release-request": release,
  "load-more": () => load.requests(store.state.next_cursor),
});

store.subscribe((state, before) => {
  render(state);
  react(state, before);
});
handleSignIn(page.signIn, store);
keepSignedIn(store);
render(store.state);
void loadConfig(store);
void recognise(store, (problem) => (page.bootText.textContent = problem));
