/**
 * The customer's one page: favourites, modal, launcher, tracker. The elements draw and speak in events; this file owns
 * the state, carries out what they ask for, and gives every element its part of the state after each change.
 */

import { CustomerClient } from "../../../clients/javascript/pitlane.js";
import * as api from "./api.js";
import { handleSignIn, loadConfig, recognise, signOut } from "./account.js";
import { announce, show, tell } from "./announcer.js";
import { AvailabilityModal } from "./availability-modal.js";
import { bookingMemory } from "./booking.js";
import { createCheckout } from "./checkout.js";
import { CheckoutReturn } from "./checkout-return.js";
import { msLeft, serverClock } from "./clock.js";
import { ConfirmDialog } from "./confirm-dialog.js";
import { createDoubleBooking } from "./double-booking.js";
import { bringIntoView, found } from "./elements.js";
import { FavoriteList } from "./favorite-list.js";
import { FavoritePrompts } from "./favorite-prompt.js";
import { PageHeader } from "./page-header.js";
import { RecentRequests } from "./recent-requests.js";
import { createLoader } from "./loading.js";
import { OnceMoreDialog } from "./once-more-dialog.js";
import { createRequestActions } from "./request-actions.js";
import { ReportDialog } from "./report-dialog.js";
import { customerStory, spoken } from "./request-story.js";
import { TrackerList } from "./request-tracker.js";
import { assignedId, isOpen, isThere, newestFirst } from "./requests.js";
import { SessionLauncher } from "./session-launcher.js";
import { heedOtherTabs, keepSignedIn, resume } from "./session.js";
import { SignIn } from "./sign-in.js";
import { isConnected } from "./state.js";
import { keepSteady } from "./steady.js";
import { createStore } from "./store.js";
import { carryOut } from "./verbs.js";
import { availabilityText, shortName } from "./words.js";

/**
 * @import {Person} from "./wire.js"
 * @import {State} from "./state.js"
 * @import {TrackedRequest} from "./requests.js"
 */

const { ApiError, messageOf } = api;
const RECOUNT_MS = 10_000;
const store = createStore();
const load = createLoader(store);
const checkout = createCheckout(store, load, booked);
const page = {
  header: found("page-header", PageHeader),
  boot: found("#boot", HTMLElement),
  bootText: found("#boot-text", HTMLElement),
  signIn: found("sign-in", SignIn),
  otherRole: found("#other-role", HTMLElement),
  dashboard: found("#dashboard", HTMLElement),
  returned: found("checkout-return", CheckoutReturn),
  prompts: found("favorite-prompts", FavoritePrompts),
  trackers: found("tracker-list", TrackerList),
  favorites: found("favorite-list", FavoriteList),
  launcher: found("session-launcher", SessionLauncher),
  recents: found("recent-requests", RecentRequests),
  modal: found("availability-modal", AvailabilityModal),
  confirm: found("confirm-dialog", ConfirmDialog),
  onceMore: found("once-more-dialog", OnceMoreDialog),
  report: found("report-dialog", ReportDialog),
};

const actions = createRequestActions(
  store,
  load,
  page,
  (request_id) => page.trackers.tracker(request_id) ?? page.recents.line(request_id),
);

const doubleBooking = createDoubleBooking(store, page.onceMore, {
  shortNameOf: (mechanic) => shortNameOf(store.state, mechanic),
  openRequest: showTracker,
});

const client = new CustomerClient(
  { clock: serverClock },
  {
    message: (message) => store.dispatch(message),
    state: (state) => store.dispatch({ type: "connection_changed", state }),
    signedOut: () => void resume(client, load),
  },
);

// ---- what to show -------------------------------------------------------------------------------------------------

/** @param {State} state */
function render(state) {
  const customer = state.me?.role === "customer";
  page.boot.hidden = state.me !== undefined;
  page.signIn.hidden = state.me !== null;
  page.signIn.demo = state.config?.demo ?? false;
  page.otherRole.hidden = !state.me || customer;
  page.dashboard.hidden = !customer;
  page.header.update(state);
  if (!customer) {
    page.modal.update({ modal: null, mechanic: null, status: undefined, available_count: null, config: null });
    page.confirm.dismiss();
    page.onceMore.dismiss();
    page.report.forget();
    return;
  }

  page.returned.update(state.returned);
  page.prompts.update(state.prompts);
  page.favorites.update({ favorites: state.favorites, problem: state.favorites_problem, statuses: state.statuses });
  page.launcher.update({
    preferredMechanicName: state.booking.favorite?.name ?? null,
    preferredStatus: state.booking.favorite ? state.statuses[state.booking.favorite.id] : undefined,
    routingType: state.booking.routing_type,
    availableMechanics: state.available_count,
    plans: state.plans,
    plans_problem: state.plans_problem,
    chosen: state.booking.plan,
    note: state.booking.note,
    checkout: state.checkout,
  });

  const favorite = state.favorites?.find((one) => one.provider_id === state.modal?.mechanic_id);
  page.modal.update({
    modal: state.modal,
    mechanic: favorite ? { name: favorite.provider_name, type: favorite.provider_type } : null,
    status: state.modal ? state.statuses[state.modal.mechanic_id] : undefined,
    available_count: state.available_count,
    config: state.config,
  });

  const requests = newestFirst(Object.values(state.requests));
  page.trackers.update(
    requests.filter((request) => isShown(state, request)).map((request) => trackerProps(state, request)),
  );
  const is_favorite = new Set(state.favorites?.filter((one) => !one.removed).map((one) => one.provider_id));
  page.recents.update(
    requests
      .filter((request) => !isShown(state, request))
      .map((request) => ({
        request,
        plans: state.plans,
        side: "customer",
        may_add:
          request.status === "completed" &&
          !!request.assigned_mechanic &&
          state.favorites !== null &&
          !is_favorite.has(request.assigned_mechanic.id),
      })),
    state.next_cursor !== null,
  );
}

/**
 * Requests get a card while open, and keep it once this page has shown them open.
 * @param {State} state
 * @param {TrackedRequest} request
 */
const isShown = (state, request) => isOpen(request) || !!state.followed[request.id];

/**
 * @param {State} state
 * @param {TrackedRequest} request
 */
function trackerProps(state, request) {
  return {
    request,
    plans: state.plans,
    config: state.config,
    status: state.statuses[request.preferred_mechanic?.id ?? ""],
    available_count: state.available_count,
    preferred: shortNameOf(state, request.preferred_mechanic),
    assigned: shortNameOf(state, request.assigned_mechanic),
    is_there: isThere(state, request),
    acting: state.acting[request.id],
    problem: state.problems[request.id],
  };
}

/**
 * @param {State} state
 * @param {Person | null} mechanic
 */
function shortNameOf(state, mechanic) {
  const favorite = state.favorites?.find(({ provider_id }) => provider_id === mechanic?.id);
  return mechanic ? shortName(mechanic.name, favorite?.provider_type) : "";
}

// ---- what follows from a change -----------------------------------------------------------------------------------

/**
 * @param {State} state
 * @param {State} before
 */
function react(state, before) {
  if (state.me !== before.me) meChanged(state);
  if (state.me?.role !== "customer") return;
  if (state.favorites !== before.favorites || state.requests !== before.requests) watch(state);
  if (state.booking !== before.booking) bookingMemory.keep(state.me.id, state.booking);
  if (state.booking.plan !== before.booking.plan) void load.availableCount();
  if (isConnected(state) && !isConnected(before)) loadWhatIsMissing(state);
  for (const request of Object.values(state.requests)) {
    const old = before.requests[request.id];
    // At every snapshot that leaves it out, not only the first: the last question may have gone unanswered.
    if (request.unsure && request !== old) void load.request(request.id);
    if (old && old.status !== request.status) requestMoved(request);
    else if (!old && request.status === "broadcasting") void load.availableCount();
    if (old && old.status === request.status) storyMoved(state, request, before, old);
  }
  const assigned = new Set(Object.values(state.requests).map(assignedId));
  for (const favorite of state.favorites ?? []) {
    const now = state.statuses[favorite.provider_id];
    const old = before.statuses[favorite.provider_id];
    // The modal has a live region of its own; behind it the page is inert and silent. Of whoever has a request its card tells.
    if (now && old && now.availability !== old.availability && !state.modal && !assigned.has(favorite.provider_id))
      announce(`${favorite.provider_name}: ${availabilityText(now)}`);
  }
}

/** @param {State} state */
function meChanged(state) {
  // Whoever was here before may have been somebody else.
  client.stop();
  api.callFor(state.me?.id ?? null);
  if (state.me?.role !== "customer") return;
  const booking = bookingMemory.recall(state.me.id);
  if (booking) store.dispatch({ type: "booking_restored", booking });
  client.start(state.me.id);
  void load.favorites();
  void load.plans();
  void load.requests();
  void load.availableCount();
  void checkout.followReturn();
}

/**
 * There is a connection again: nobody has to ask anew for what did not get through.
 * @param {State} state
 */
function loadWhatIsMissing({ returned }) {
  load.missing();
  if (returned?.phase === "slow" && returned.problem !== null) void checkout.followReturn();
}

/** @param {TrackedRequest} request */
function requestMoved(request) {
  void sayMove(request, actions.unask(request) || doubleBooking.follow(request));
  // The figures on the card have grown.
  if (request.status === "completed") void load.favorites();
  // A free diagnostic that was not given may be had again.
  if (!isOpen(request)) void load.plans();
}

/**
 * @param {TrackedRequest} request
 * @param {string} overtaken  what became of a question about it
 */
async function sayMove({ id, status }, overtaken) {
  if (overtaken) show(overtaken);
  // What is heard is not corrected a moment later, as what is seen is.
  if (status === "broadcasting") await load.availableCount();
  const request = store.state.requests[id];
  if (request?.status === status) sayStory(store.state, request, overtaken);
}

/**
 * Of one that is where it was: has what it waits for come or gone?
 * @param {State} state
 * @param {TrackedRequest} request
 * @param {State} before
 * @param {TrackedRequest} old
 */
function storyMoved(state, request, before, old) {
  const was_there = isThere(before, old);
  const is_there = isThere(state, request);
  const came_or_went = assignedId(request) !== null && was_there !== null && is_there !== null && was_there !== is_there;
  const turned = old.offer?.id === request.offer?.id && old.offer?.preferred_is_busy !== request.offer?.preferred_is_busy;
  if (came_or_went || turned) sayStory(state, request);
}

/**
 * @param {State} state
 * @param {TrackedRequest} request
 * @param {string} [overtaken]  what became of a question about it
 */
function sayStory(state, request, overtaken = "") {
  const left_ms = request.limit_ms === null ? null : msLeft(request.limit_ms);
  const story = customerStory(request, { ...trackerProps(state, request), left_ms, keeps_waiting: false });
  announce([overtaken, spoken(story)].filter(Boolean).join(" "));
}

/**
 * Favourites, and whoever has a request.
 * @param {State} state
 */
function watch(state) {
  const assigned = Object.values(state.requests).map(assignedId);
  const favorites = state.favorites?.filter(({ removed }) => !removed).map(({ provider_id }) => provider_id);
  const wanted = new Set([...assigned, ...(favorites ?? [])].filter((id) => id !== null));
  client.unwatch([...client.watched].filter((id) => !wanted.has(id)));
  client.watch(wanted);
}

// ---- the flow -----------------------------------------------------------------------------------------------------

/** @type {AbortController | null} */
let asking = null;

/** "Book Again". @param {string} mechanic_id */
async function bookAgain(mechanic_id) {
  const favorite = store.state.favorites?.find((one) => one.provider_id === mechanic_id);
  if (!favorite || !(await doubleBooking.isMeant({ id: mechanic_id, name: favorite.provider_name }))) return;
  await handleBookFavorite(mechanic_id);
}

/** "Continue to Checkout": the choice may be from before a request that was made meanwhile, in another tab perhaps. */
async function pay() {
  const { booking, checkout: progress } = store.state;
  if (progress.phase !== "idle") return;
  if (booking.favorite && !(await doubleBooking.isMeant(booking.favorite))) return;
  await checkout.pay();
}

/**
 * The modal at once, the real-time status right after.
 * @param {string} mechanic_id
 */
async function handleBookFavorite(mechanic_id) {
  asking?.abort();
  const { signal } = (asking = new AbortController());
  store.dispatch({ type: "modal_opened", mechanic_id });
  void load.availableCount();
  const isStillHere = store.whoIsHere();
  try {
    const status = await api.getStatus(mechanic_id, signal);
    if (isStillHere()) store.dispatch({ type: "status_fetched", status });
  } catch (error) {
    if (signal.aborted || !isStillHere() || load.signedOutBy(error)) return;
    const gone = error instanceof ApiError && error.code === "mechanic_not_found";
    store.dispatch({
      type: "modal_failed",
      mechanic_id,
      problem: gone ? "This mechanic has left Pitlane." : messageOf(error),
    });
  }
}

function closeModal() {
  asking?.abort();
  store.dispatch({ type: "modal_closed" });
}

/** @param {Person | null} favorite  null: anyone */
function choose(favorite) {
  closeModal();
  store.dispatch({ type: "booking_chosen", routing_type: favorite ? "priority_broadcast" : "broadcast", favorite });
  // After the redraw, in which the closing modal gives the focus back to its button first.
  queueMicrotask(() => page.launcher.callAttention());
}

/**
 * A request has come of it: the next booking starts afresh, and the eye goes to the tracker.
 * @param {string} request_id
 */
function booked(request_id) {
  store.dispatch({ type: "booking_chosen", routing_type: "broadcast", favorite: null });
  store.dispatch({ type: "note_written", note: "" });
  void load.plans();
  queueMicrotask(() => showTracker(request_id));
}

/** @param {string} request_id */
function showTracker(request_id) {
  const tracker = page.trackers.tracker(request_id);
  if (tracker) bringIntoView(tracker);
}

// ---- favourites ---------------------------------------------------------------------------------------------------

/**
 * @param {string} mechanic_id
 * @param {boolean} removed
 */
async function markFavorite(mechanic_id, removed) {
  store.dispatch({ type: "favorite_marked", mechanic_id, removed });
  const isStillHere = store.whoIsHere();
  try {
    await (removed ? api.removeFavorite(mechanic_id) : api.addFavorite(mechanic_id));
  } catch (error) {
    if (!isStillHere() || load.signedOutBy(error)) return;
    store.dispatch({ type: "favorite_marked", mechanic_id, removed: !removed });
    tell(messageOf(error));
  }
}

/** @param {string} request_id */
async function acceptPrompt(request_id) {
  const prompt = store.state.prompts.find((one) => one.request_id === request_id);
  if (!prompt || prompt.phase !== "asking") return;
  store.dispatch({ type: "prompt_moved", request_id, phase: "adding" });
  const isStillHere = store.whoIsHere();
  try {
    await api.addFavorite(prompt.mechanic.id);
    if (!isStillHere()) return;
    store.dispatch({ type: "prompt_moved", request_id, phase: "gone" });
    tell(`${prompt.mechanic.name} is now one of your favorites.`);
    await load.favorites();
  } catch (error) {
    if (isStillHere() && !load.signedOutBy(error))
      store.dispatch({ type: "prompt_moved", request_id, phase: "asking", problem: messageOf(error) });
  }
}

/** @param {Person} mechanic */
async function addFavorite(mechanic) {
  const isStillHere = store.whoIsHere();
  try {
    await api.addFavorite(mechanic.id);
    if (!isStillHere()) return;
    tell(`${mechanic.name} is now one of your favorites.`);
    await load.favorites();
  } catch (error) {
    if (isStillHere() && !load.signedOutBy(error)) tell(messageOf(error));
  }
}

// ---- wiring -------------------------------------------------------------------------------------------------------

/** @param {TrackedRequest} request */
const isBroadcasting = (request) => request.status === "broadcasting";

/** "Offered to 3 available mechanics" has to stay true while somebody reads it. */
function countWhileWatched() {
  if (document.visibilityState === "visible" && store.state.me?.role === "customer") void load.availableCount();
}

/** Only whoever leaves on purpose leaves nothing behind: a session that merely ended is often taken up again. */
async function leave() {
  await signOut(store);
  if (store.state.me === null) bookingMemory.forget();
}

carryOut(document, {
  "sign-out": leave,
  "book-again": bookAgain,
  "retry-status": () => store.state.modal && handleBookFavorite(store.state.modal.mechanic_id),
  "choose-priority": () => {
    const favorite = store.state.favorites?.find((one) => one.provider_id === store.state.modal?.mechanic_id);
    if (favorite) choose({ id: favorite.provider_id, name: favorite.provider_name });
  },
  "choose-broadcast": () => choose(null),
  "choose-cancel": closeModal,
  "clear-favorite": () => store.dispatch({ type: "booking_chosen", routing_type: "broadcast", favorite: null }),
  "plan-chosen": (plan) => store.dispatch({ type: "plan_chosen", plan }),
  "note-written": (note) => store.dispatch({ type: "note_written", note }),
  checkout: pay,
  "check-again": checkout.followReturn,
  "dismiss-return": checkout.dismissReturn,
  "skip-wait": actions.skipWait,
  "cancel-request": actions.cancel,
  "find-another": actions.findAnother,
  "complete-request": actions.complete,
  "report-problem": actions.report,
  "send-report": actions.sendReport,
  "close-request": (request_id) => store.dispatch({ type: "request_closed", request_id }),
  "remove-favorite": (mechanic_id) => markFavorite(mechanic_id, true),
  "restore-favorite": (mechanic_id) => markFavorite(mechanic_id, false),
  "accept-prompt": acceptPrompt,
  "dismiss-prompt": (request_id) => store.dispatch({ type: "prompt_moved", request_id, phase: "gone" }),
  "add-favorite": addFavorite,
  "load-more": () => load.requests(store.state.next_cursor),
  "reload-favorites": load.favorites,
  "reload-plans": load.plans,
});
// Back from Stripe by the browser's own button, the page wakes up as it was left: let it be used again.
window.addEventListener(
  "pageshow",
  (event) => event.persisted && store.dispatch({ type: "checkout_moved", phase: "idle" }),
);
document.addEventListener("visibilitychange", countWhileWatched);
setInterval(() => Object.values(store.state.requests).some(isBroadcasting) && countWhileWatched(), RECOUNT_MS);

store.subscribe((state, before) => {
  render(state);
  react(state, before);
});
keepSteady(document.body);
handleSignIn(page.signIn, store);
keepSignedIn(store);
heedOtherTabs(load);
render(store.state);
void loadConfig(store);
void recognise(store, (problem) => (page.bootText.textContent = problem));
