/**
 * The mechanic's app: duty, offers, the active session. Like the customer's page, it owns the state and carries out what
 * the elements ask for.
 */

import { MechanicClient } from "../../../clients/javascript/pitlane.js";
import * as api from "./api.js";
import { handleSignIn, loadConfig, recognise, signOut } from "./account.js";
import { ActiveRequest } from "./active-request.js";
import { keepAlertSettings, readAlertSettings } from "./alert-settings.js";
import { AlertSwitches } from "./alert-switches.js";
import { Alerts } from "./alerts.js";
import { announce, tell } from "./announcer.js";
import { serverClock, serverNow } from "./clock.js";
import { ConfirmDialog } from "./confirm-dialog.js";
import { dayOf } from "./day-words.js";
import { DutySwitch } from "./duty-switch.js";
import { found, setText } from "./elements.js";
import { createLoader } from "./loading.js";
import { createAnswers } from "./offer-answers.js";
import { OfferList } from "./offer-list.js";
import { byUrgency } from "./offer-order.js";
import { InstallHint } from "./install-hint.js";
import { PageHeader } from "./page-header.js";
import { PastOffers } from "./past-offers.js";
import { createPushActions } from "./push-actions.js";
import { closeStale, startWorker } from "./push.js";
import { PushSettings } from "./push-settings.js";
import { RecentRequests } from "./recent-requests.js";
import { assignedTo, isOpen, newestFirst } from "./requests.js";
import { tellSeen } from "./seen-offers.js";
import { keepSignedIn, resume } from "./session.js";
import { SignIn } from "./sign-in.js";
import { keepFocus, keepSteady } from "./steady.js";
import { createStore } from "./store.js";
import { TabBar, offerOf, screenOf } from "./tab-bar.js";
import { carryOut } from "./verbs.js";
import { WorkHours } from "./work-hours.js";
import { WorkPreferences } from "./work-preferences.js";
import { acceptReason, appTitle, offerText, situationText, withdrawnText } from "./words.js";

/**
 * @import {State} from "./store.js"
 * @import {PreferencesBody} from "./wire.js"
 * @import {TrackedOffer} from "./requests.js"
 */

const { ApiError, messageOf } = api;
/** How long a withdrawn offer stays to say why. */
const GOODBYE_MS = 5_000;
const TITLE = document.title;

const store = createStore();
const load = createLoader(store);
const page = {
  header: found("page-header", PageHeader),
  situation: found("#situation", HTMLElement),
  main: found("main", HTMLElement),
  boot: found("#boot", HTMLElement),
  bootText: found("#boot-text", HTMLElement),
  signIn: found("sign-in", SignIn),
  otherRole: found("#other-role", HTMLElement),
  bay: found("#bay", HTMLElement),
  duty: found("duty-switch", DutySwitch),
  active: found("active-request", ActiveRequest),
  offers: found("offer-list", OfferList),
  recents: found("recent-requests", RecentRequests),
  hours: found("work-hours", WorkHours),
  past: found("past-offers", PastOffers),
  pushHint: found("#push-hint", HTMLElement),
  push: found("push-settings", PushSettings),
  preferences: found("work-preferences", WorkPreferences),
  alerts: found("alert-switches", AlertSwitches),
  install: found("install-hint", InstallHint),
  tabs: found("tab-bar", TabBar),
  confirm: found("confirm-dialog", ConfirmDialog),
};
const screens = /** @type {HTMLElement[]} */ ([...page.bay.querySelectorAll("[data-screen]")]);

/** It acknowledges each offer by itself, and remembers what was seen until that can be said. */
const client = new MechanicClient(
  { clock: serverClock },
  {
    message: (message) => store.dispatch(message),
    state: (state) => store.dispatch({ type: "connection_changed", state }),
    signedOut: () => void resume(client, load),
    error: ({ message }) => {
      store.dispatch({ type: "duty_wanted", on_duty: null });
      tell(message);
    },
  },
);
tellSeen(page.offers.cards, (offer_id) => client.seen(offer_id));

const push = createPushActions(store);

const alerts = new Alerts(readAlertSettings());
const answers = createAnswers(store, client, () => {
  const now = situation(store.state);
  return { accept: acceptReason(now), decline: acceptReason({ ...now, in_session: false }) };
});

// ---- what to show -------------------------------------------------------------------------------------------------

/** @param {State} state */
function render(state) {
  const mechanic = state.me?.role === "mechanic";
  page.boot.hidden = state.me !== undefined;
  page.signIn.hidden = state.me !== null;
  page.signIn.demo = state.config?.demo ?? false;
  page.otherRole.hidden = !state.me || mechanic;
  page.bay.hidden = page.tabs.hidden = !mechanic;
  page.header.update(state);
  const offers = mechanic ? Object.values(state.offers).sort(byUrgency) : [];
  const open = offers.filter((offer) => !offer.ended);
  document.title = appTitle(TITLE, open);
  alerts.badge(open.length);
  alerts.onDuty = mechanic && state.on_duty === true;
  if (!mechanic) {
    setText(page.situation, "");
    return;
  }

  for (const screen of screens) screen.hidden = screen.dataset["screen"] !== state.screen;
  page.tabs.update({ screen: state.screen, offers: open.length });
  const active = activeRequest(state);
  const now = situation(state);
  const reason = acceptReason(now);
  page.duty.update({ ...state, in_session: now.in_session });
  page.active.update({
    request: active,
    plans: state.plans,
    acting: active ? state.acting[active.id] : undefined,
    problem: active ? state.problems[active.id] : undefined,
  });
  page.offers.update(
    offers.map((offer) => ({
      offer,
      plans: state.plans,
      config: state.config,
      may_accept: !reason,
      may_decline: now.live,
    })),
    { on_duty: state.on_duty, in_session: now.in_session, reason },
  );
  setText(
    page.situation,
    situationText({
      live: now.live,
      on_duty: state.on_duty,
      customer_name: active?.customer_name ?? null,
      offers: open.length,
    }),
  );
  page.hours.update({ days: state.days, problem: state.days_problem, today: dayOf(serverNow()) });
  page.past.update({
    offers: state.past_offers,
    problem: state.past_problem,
    more: state.past_cursor !== null,
    plans: state.plans,
  });
  page.alerts.update(state.alerts);
  page.push.update(state.push);
  page.pushHint.hidden = state.push.state !== "off";
  page.preferences.update({ preferences: state.preferences, problem: state.preferences_problem });
  page.recents.update(
    newestFirst(Object.values(state.requests))
      .filter((request) => request !== active && !isOpen(request))
      .map((request) => ({ request, plans: state.plans, side: "mechanic", may_add: false })),
    state.next_cursor !== null,
  );
}

/** @param {State} state */
const activeRequest = (state) => assignedTo(state.me?.id, state.requests);
/**
 * Where no socket gets through, offers come and answers go by REST.
 * @param {State} state
 */
const situation = (state) => ({
  live: state.connection === "live" || state.connection === "polling",
  in_session: activeRequest(state) !== null,
});

/** Where to read on when what had the focus is gone, and nothing nearer took it. */
const placeFor = () => (page.bay.hidden || store.state.screen !== "offers" ? page.main : page.offers.heading);

// ---- what follows from a change -----------------------------------------------------------------------------------

/**
 * @param {State} state
 * @param {State} before
 */
function react(state, before) {
  if (state.me !== before.me) meChanged(state);
  if (state.screen === "days" && state.me && (before.screen !== "days" || !before.me)) {
    void load.days();
    void load.pastOffers();
  }
  if (state.me?.role !== "mechanic") {
    alerts.hush();
    return;
  }
  for (const offer of Object.values(state.offers)) {
    const old = before.offers[offer.offer_id];
    if (!old) offerCame(state, offer);
    if (offer.ended && !old?.ended) leaveSoon(offer, offer.problem ?? withdrawnText(offer.ended, offer.by_you));
  }
  for (const offer_id of Object.keys(before.offers)) {
    const offer = state.offers[offer_id];
    if (!offer || offer.ended || offer.declining) alerts.hush(offer_id);
  }
  if (state.offers !== before.offers || state.on_duty !== before.on_duty) tidyNotifications(before.on_duty === null);
  for (const request of Object.values(state.requests)) {
    const old = before.requests[request.id];
    if (request.unsure && request !== old) void load.request(request.id);
    if (old && isOpen(old) && request.status === "cancelled") tell("The customer cancelled this session.");
    if (old && old.status !== request.status && request.status === "completed") tell("Session completed. Well done.");
  }
  const active = activeRequest(state);
  if (active && activeRequest(before)?.id !== active.id && before.on_duty !== null) {
    tell(`You have ${active.customer_name}'s session.`);
    page.active.focusCard();
  }
}

/**
 * @param {State} state
 * @param {TrackedOffer} offer
 */
function offerCame(state, offer) {
  tell(offerText(offer, state.plans));
  alerts.call(offer.offer_id, offer.kind);
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
    client.stop();
    return;
  }
  client.start();
  void load.plans();
  void load.requests();
  void load.preferences();
  void push.signedIn();
}

/** The offer that a notification was about, until it is known here. @type {string | null} */
let wanted = null;

/** @param {boolean} is_looked_at  somebody has just opened the app, or come back to it */
function tidyNotifications(is_looked_at) {
  // Before the welcome nobody knows which are open.
  if (store.state.on_duty === null) return;
  const open = () => Object.values(store.state.offers).filter((offer) => !offer.ended);
  void closeStale(() => open().map(({ offer_id }) => offer_id), is_looked_at);
  showWanted();
}

function showWanted() {
  if (wanted === null || store.state.on_duty === null) return;
  const offer_id = wanted;
  wanted = null;
  if (!page.offers.showOffer(offer_id) && !activeRequest(store.state)) tell("The offer you touched has ended.");
}

/** @param {string} offer_id */
function want(offer_id) {
  wanted = offer_id;
  if (store.state.screen !== "offers") location.hash = "#offers";
  // Drawn by then.
  setTimeout(showWanted);
}

/** The address names a screen, or an offer that a notification was about. */
function follow() {
  const screen = screenOf(location.hash);
  // Each begins at its own beginning, however far the last one was read.
  if (screen !== store.state.screen) scrollTo(0, 0);
  store.dispatch({ type: "screen_shown", screen });
  const offer_id = offerOf(location.hash);
  if (offer_id === null) return;
  history.replaceState(null, "", "#offers");
  want(offer_id);
}

// ---- actions ------------------------------------------------------------------------------------------------------

/** @param {boolean} on_duty */
async function setDuty(on_duty) {
  store.dispatch({ type: "duty_wanted", on_duty });
  // What the server says of it, the store has heard by then.
  if ((await client.setDuty(on_duty)) || store.state.duty_wanted === null) return;
  store.dispatch({ type: "duty_wanted", on_duty: null });
  tell("The server has not answered yet. Please try again.");
}

/** @param {{on_duty: boolean, back_in_s?: number, off_after_session?: boolean}} plan */
function planDuty(plan) {
  if (client.send({ type: "set_availability", ...plan })) return;
  tell("There was no connection, so nothing has changed. Please try again.");
  // The switches go back to what is true.
  render(store.state);
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
async function complete(request_id) {
  const sure = await page.confirm.ask({
    title: "Complete this session?",
    text: "It then counts as done, for you and for the customer.",
    yes: "Yes, it is done",
    no: "Not yet",
  });
  if (sure) await act(request_id, "complete");
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

/** @param {PreferencesBody} preferences */
async function setPreferences(preferences) {
  try {
    store.dispatch({ type: "preferences_loaded", preferences: await api.setPreferences(preferences) });
    tell("Saved.");
  } catch (error) {
    if (load.signedOutBy(error)) return;
    // The switches go back to what is true.
    store.dispatch({ type: "preferences_failed", problem: messageOf(error) });
  }
}

/** @param {{name: keyof State["alerts"], on: boolean}} choice */
function setAlert({ name, on }) {
  const settings = { ...store.state.alerts, [name]: on };
  keepAlertSettings(settings);
  alerts.settings = settings;
  store.dispatch({ type: "alerts_set", alerts: settings });
}

// ---- wiring -------------------------------------------------------------------------------------------------------

carryOut(document, {
  "sign-out": async () => {
    answers.settle();
    await push.signedOut();
    await signOut(store);
  },
  "set-duty": setDuty,
  "plan-duty": planDuty,
  "load-past-offers": () => load.pastOffers(store.state.past_cursor),
  "accept-offer": answers.accept,
  "decline-offer": answers.decline,
  "undo-decline": answers.undo,
  "start-request": (request_id) => act(request_id, "start"),
  "complete-request": complete,
  "release-request": release,
  "load-more": () => load.requests(store.state.next_cursor),
  "set-alert": setAlert,
  "try-alert": () => alerts.sound("priority"),
  "turn-on-push": push.turnOn,
  "turn-off-push": push.turnOff,
  "test-push": push.test,
  "remove-device": push.remove,
  "set-preferences": setPreferences,
});

keepSteady(document.body);
window.addEventListener("hashchange", follow);
window.addEventListener("pagehide", answers.settle);
// A phone that is put away may never say that it closes the page.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") {
    answers.settle();
    return;
  }
  // What the browser allows is changed outside of the page.
  void push.look();
  tidyNotifications(true);
});
navigator.serviceWorker?.addEventListener("message", ({ data }) => {
  if (data?.type === "show_offer") want(String(data.offer_id));
});

store.subscribe((state, before) => {
  keepFocus(document.body, () => render(state), placeFor);
  react(state, before);
});
handleSignIn(page.signIn, store);
keepSignedIn(store);
store.dispatch({ type: "alerts_set", alerts: readAlertSettings() });
follow();
render(store.state);
void startWorker();
void loadConfig(store);
void recognise(store, (problem) => (page.bootText.textContent = problem));
