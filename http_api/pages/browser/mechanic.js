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
import { servedIn } from "./endings.js";
import { keepWork, readWork } from "./kept-work.js";
import { createLoader } from "./loading.js";
import { offerTag, requestTag } from "./notices.js";
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
import { SessionEndings } from "./session-endings.js";
import { endingWords, isReminded } from "./session-words.js";
import { heedOtherTabs, keepSignedIn, resume } from "./session.js";
import { SignIn } from "./sign-in.js";
import { isConnected } from "./state.js";
import { keepFocus, keepSteady } from "./steady.js";
import { createStore } from "./store.js";
import { TabBar, offerOf, screenOf } from "./tab-bar.js";
import { carryOut } from "./verbs.js";
import { WorkHours } from "./work-hours.js";
import { WorkPreferences } from "./work-preferences.js";
import { acceptReason, appTitle, offerText, offersText, situationText, withdrawnText } from "./words.js";

/**
 * @import {State} from "./state.js"
 * @import {PreferencesBody} from "./wire.js"
 * @import {TrackedOffer} from "./offers.js"
 * @import {TrackedRequest} from "./requests.js"
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
  offerHint: found("#offer-hint", HTMLElement),
  main: found("main", HTMLElement),
  boot: found("#boot", HTMLElement),
  bootText: found("#boot-text", HTMLElement),
  signIn: found("sign-in", SignIn),
  otherRole: found("#other-role", HTMLElement),
  bay: found("#bay", HTMLElement),
  duty: found("duty-switch", DutySwitch),
  active: found("active-request", ActiveRequest),
  endings: found("session-endings", SessionEndings),
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
    // What it means for duty or an offer, the store has heard as a message.
    error: ({ message }) => tell(message),
  },
);
tellSeen(page.offers.cards, (offer_id) => client.seen(offer_id));
// In the header it is seen from everywhere, and moves nothing when it comes.
page.offerHint.append(page.offers.hint);

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
  page.offerHint.hidden = !mechanic || state.screen !== "offers";
  page.header.update(state);
  const offers = mechanic ? Object.values(state.offers).sort(byUrgency) : [];
  const open = offers.filter((offer) => !offer.ended);
  const to_start = mechanic ? reminded(state) : null;
  document.title = to_start ? `Start ${to_start.customer_name}'s session - ${TITLE}` : appTitle(TITLE, open);
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
  const cards = page.offers.cards;
  const before_px = cards.getBoundingClientRect().top;
  const had = { cards: cards.childElementCount > 0, session: !page.active.hidden, in_sight: offersInSight() };
  const endings = shownEndings(state);
  const has_ended = endings.some(({ request_id }) => !shown.has(request_id));
  const has_come = open.some(({ offer_id }) => !offered.has(offer_id));
  shown = new Set(endings.map(({ request_id }) => request_id));
  offered = new Set(open.map(({ offer_id }) => offer_id));
  page.duty.update({ ...state, in_session: now.in_session });
  page.active.update({
    request: active,
    plans: state.plans,
    acting: active ? state.acting[active.id] : undefined,
    problem: active ? state.problems[active.id] : undefined,
  });
  page.endings.update(endings, state.plans);
  page.offers.update(
    offers.map((offer) => ({
      offer,
      plans: state.plans,
      config: state.config,
      may_accept: !reason,
      may_decline: now.live,
      in_session: now.in_session,
    })),
    { ...now, on_duty: state.on_duty, reason },
  );
  // An offer that comes finds its place on the screen, unless that moved another one under a hand.
  if (!cards.childElementCount) page.endings.brief = false;
  else if (!had.cards || (has_come && !had.in_sight)) page.endings.brief = true;
  // It takes the place of the session; without one it takes as little as it can.
  else if (has_ended) page.endings.brief = !had.session || active !== null;
  // What nobody sees may move.
  if (has_ended && open.length > 0 && before_px < innerHeight)
    page.endings.fill(before_px - cards.getBoundingClientRect().top);
  setText(
    page.situation,
    situationText({
      ...now,
      on_duty: state.on_duty,
      customer_name: active?.customer_name ?? null,
      is_to_start: now.may_give_back,
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
 * What the mechanic was reminded to start.
 * @param {State} state
 * @returns {TrackedRequest | null}
 */
function reminded(state) {
  const active = activeRequest(state);
  return active && isReminded(active) ? active : null;
}

/**
 * Newest first.
 * @param {State} state
 */
const shownEndings = (state) =>
  Object.values(state.endings)
    .filter(({ how }) => how !== "unsure")
    .reverse();
/** Ids of the requests whose end is on the page. @type {Set<string>} */
let shown = new Set();
/** Ids of the open offers that are on the page. @type {Set<string>} */
let offered = new Set();

/** Whether any button of an offer is between the header and the tabs, where a hand may be about to press it. */
function offersInSight() {
  const top_px = page.header.getBoundingClientRect().bottom;
  const bottom_px = page.tabs.getBoundingClientRect().top;
  return [...page.offers.cards.querySelectorAll("button")].some((button) => {
    const { top, bottom, width } = button.getBoundingClientRect();
    return width > 0 && bottom > top_px && top < bottom_px;
  });
}

/** @param {State} state */
const situation = (state) => ({
  live: isConnected(state),
  polling: state.connection === "polling",
  in_session: activeRequest(state) !== null,
  may_give_back: activeRequest(state)?.status === "accepted",
  on_break: state.back_ms !== null,
  is_answering: Object.values(state.offers).some(({ ended, pending, declining }) => !ended && (pending || declining)),
});

/** Where to read on when what had the focus is gone, and nothing nearer took it. */
const placeFor = () =>
  page.bay.hidden || store.state.screen !== "offers" ? page.main : (page.endings.first ?? page.offers.heading);

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
  if (isConnected(state) && !isConnected(before)) load.missing();
  offersCame(
    state,
    Object.values(state.offers).filter(({ offer_id }) => !before.offers[offer_id]),
  );
  for (const offer of Object.values(state.offers)) {
    const old = before.offers[offer.offer_id];
    if (offer.ended && !old?.ended) leaveSoon(offer, offer.problem ?? withdrawnText(offer.ended, offer.by_you));
  }
  for (const offer_id of Object.keys(before.offers)) {
    const offer = state.offers[offer_id];
    if (!offer || offer.ended || offer.declining) alerts.hush(offer_id);
  }
  const active = activeRequest(state);
  const was = activeRequest(before);
  if (state.offers !== before.offers || state.on_duty !== before.on_duty || active !== was)
    tidyNotifications(before.on_duty === null);
  for (const request of Object.values(state.requests)) {
    const old = before.requests[request.id];
    if (request.unsure && request !== old) void load.request(request.id);
    if (old && old.status !== request.status && request.status === "completed" && !state.endings[request.id])
      tell("Session completed. Well done.");
  }
  sessionsEnded(state, before);
  // Whatever was asked about it: it is not what it was.
  if (was && (was.id !== active?.id || was.status !== active.status)) page.confirm.dismiss();
  if (active && was?.id !== active.id && before.on_duty !== null) {
    tell(`You have ${active.customer_name}'s session.`);
    page.active.focusCard();
  }
  const late = reminded(state);
  if (late && reminded(before)?.id !== late.id) {
    tell(`Start your session with ${late.customer_name} now.`);
    alerts.call(late.id, "reminder");
  }
  if (was && late?.id !== was.id) alerts.hush(was.id);
  // Until a snapshot has said what has become of what is remembered, it stays so.
  if (state.me && !state.remembered && (active?.id !== was?.id || state.endings !== before.endings))
    keepWork(state.me.id, { served: active && servedIn(active), endings: Object.values(state.endings) });
}

/**
 * Tell how sessions ended without this mechanic's doing, and find out where that is not known.
 * @param {State} state
 * @param {State} before
 */
function sessionsEnded(state, before) {
  const is_back = isConnected(state) && !isConnected(before);
  for (const ending of Object.values(state.endings)) {
    const { request_id, how } = ending;
    const old = before.endings[request_id];
    if (how === "unsure") {
      if (!old || is_back) void load.ending(request_id);
    } else if (old?.how !== how && before.me === state.me) {
      tell(`${endingWords(ending).title}.`);
      alerts.sound("ending");
    }
  }
}

/**
 * @param {State} state
 * @param {readonly TrackedOffer[]} offers  that came together
 */
function offersCame(state, offers) {
  const [first] = offers;
  if (!first) return;
  // Many come with a welcome: one after the other they would only overwrite each other.
  tell(offers.length === 1 ? offerText(first, state.plans) : offersText(offers));
  const asked = offers.filter(({ kind }) => kind === "priority");
  for (const { offer_id } of asked) alerts.call(offer_id);
  if (!asked.length) alerts.sound("broadcast");
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
  // Whoever was here before may have been somebody else.
  client.stop();
  api.callFor(state.me?.id ?? null);
  if (state.me?.role !== "mechanic") return;
  const { served, endings } = readWork(state.me.id);
  store.dispatch({ type: "session_remembered", served, endings });
  client.start(state.me.id);
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
  void closeStale(() => {
    const { offers } = store.state;
    const active = activeRequest(store.state);
    return [
      ...Object.keys(offers).filter((offer_id) => !offers[offer_id]?.ended).map(offerTag),
      ...(active?.status === "accepted" ? [requestTag(active.id)] : []),
    ];
  }, is_looked_at);
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

/** Bring the session that a notification was about before the eyes, or how it ended. */
function showSession() {
  if (store.state.screen !== "offers") location.hash = "#offers";
  setTimeout(() => {
    if (!page.active.hidden) page.active.focusCard();
    else page.endings.first?.focus();
  });
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
  tell("This needs a live connection, so nothing has changed.");
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
  const isStillHere = store.whoIsHere();
  const version = store.state.requests[request_id]?.version;
  try {
    const { request } = await api.actOnRequest(request_id, action);
    if (!isStillHere()) return;
    store.dispatch({ type: "request_loaded", request, received_ms: performance.now() });
    if (action === "release") store.dispatch({ type: "request_lost", request_id });
    store.dispatch({ type: "action_answered", request_id });
  } catch (error) {
    if (!isStillHere() || load.signedOutBy(error)) return;
    const problem = messageOf(error);
    // Where the session has moved on, the reason would stay on its card and outlive what it is about.
    const has_moved = store.state.requests[request_id]?.version !== version;
    store.dispatch({ type: "action_answered", request_id, problem: has_moved ? null : problem });
    if (has_moved) tell(problem);
    if (error instanceof ApiError && (error.status === 409 || error.status === 404)) void load.request(request_id);
  }
}

/** @param {string} request_id */
const sessionOf = (request_id) => `${store.state.requests[request_id]?.customer_name ?? "this customer"}'s session`;

/** @param {string} request_id */
async function complete(request_id) {
  const sure = await page.confirm.ask({
    title: `Complete ${sessionOf(request_id)}?`,
    text: "It then counts as done, for you and for the customer.",
    yes: "Yes, it is done",
    no: "Not yet",
    takes_away: false,
  });
  if (sure) await act(request_id, "complete");
}

/** @param {string} request_id */
async function release(request_id) {
  const sure = await page.confirm.ask({
    title: `Give ${sessionOf(request_id)} back?`,
    text: "It is offered to the other mechanics at once, and not to you again.",
    yes: "Yes, give it back",
    no: "Keep it",
  });
  if (sure) await act(request_id, "release");
}

/** A tap at the top of the screen must not leave a customer alone. */
async function leave() {
  const active = activeRequest(store.state);
  const offers = Object.values(store.state.offers).some((offer) => !offer.ended);
  const sure =
    (!active && !offers) ||
    (await page.confirm.ask({
      title: "Sign out?",
      text: active
        ? `${active.customer_name} is waiting for you, and hears nothing of it.`
        : "Offers are open, and none will reach you here.",
      yes: "Yes, sign out",
      no: "Stay",
    }));
  if (!sure) return;
  answers.settle();
  await push.signedOut();
  await signOut(store);
}

/** @param {PreferencesBody} preferences */
async function setPreferences(preferences) {
  const isStillHere = store.whoIsHere();
  try {
    const saved = await api.setPreferences(preferences);
    if (!isStillHere()) return;
    store.dispatch({ type: "preferences_loaded", preferences: saved });
    tell("Saved.");
  } catch (error) {
    if (!isStillHere() || load.signedOutBy(error)) return;
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
  "sign-out": leave,
  "set-duty": setDuty,
  "plan-duty": planDuty,
  "load-past-offers": () => load.pastOffers(store.state.past_cursor),
  "accept-offer": answers.accept,
  "decline-offer": answers.decline,
  "undo-decline": answers.undo,
  "start-request": (request_id) => act(request_id, "start"),
  "complete-request": complete,
  "release-request": release,
  "read-ending": (request_id) => store.dispatch({ type: "ending_read", request_id }),
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
  if (data?.type === "show_session") showSession();
});

store.subscribe((state, before) => {
  keepFocus(document.body, () => render(state), placeFor);
  react(state, before);
});
handleSignIn(page.signIn, store);
keepSignedIn(store);
heedOtherTabs(load);
store.dispatch({ type: "alerts_set", alerts: readAlertSettings() });
follow();
render(store.state);
void startWorker();
void loadConfig(store);
void recognise(store, (problem) => (page.bootText.textContent = problem));
