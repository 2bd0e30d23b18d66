/**
 * The app's part that lives without a page: notifications and their answers, and a page for when there is no connection.
 *
 * It keeps nothing of the app itself. Pages and modules always come from the server, so an old one never meets a newer server.
 */

import * as api from "./api.js";
import { deviceName } from "./device-name.js";
import { answeredNotice, failedNotice, noticeOf } from "./notices.js";
import { keyBytes } from "./push-key.js";

/** @import {Notice, NoticeData} from "./notices.js" */

// What the types of pages do not know of workers, as far as it is used here.
/** @typedef {Event & {waitUntil(work: Promise<unknown>): void}} Lasting */
/** @typedef {Lasting & {request: Request, preloadResponse: Promise<Response | undefined>, respondWith(answer: Promise<Response>): void}} Fetched */
/** @typedef {Lasting & {data: {json(): unknown} | null}} Pushed */
/** @typedef {Lasting & {action: string, notification: Notification}} Clicked */
/** @typedef {Lasting & {oldSubscription?: PushSubscription | null, newSubscription?: PushSubscription | null}} SubscriptionChanged */
/** @typedef {{url: string, focus(): Promise<unknown>, postMessage(message: unknown): void}} Page */
/**
 * @typedef {object} Scope
 * @property {ServiceWorkerRegistration & {showNotification(title: string, options: object): Promise<void>}} registration
 * @property {{claim(): Promise<void>, matchAll(options: object): Promise<Page[]>, openWindow(url: string): Promise<unknown>}} clients
 * @property {() => Promise<void>} skipWaiting
 * @property {<Kind extends Event>(type: string, listener: (event: Kind) => void) => void} addEventListener
 */

const scope = /** @type {Scope} */ (/** @type {unknown} */ (self));

/** The server writes this line: the files, and a hash of all that is in them. @type {{version: string, files: string[]}} */
const KEPT = { version: "none", files: [] };
const CACHE_PREFIX = "pitlane-mechanic-";
const CACHE = CACHE_PREFIX + KEPT.version;
const APP = "/mechanic";
const OFFLINE = "/static/offline.html";
/** How long something that is over stays to say so. */
const BRIEF_MS = 6_000;
/** What a proxy says while nothing is behind it. */
const NOBODY_THERE = [502, 503, 504];

// ---- the page for no connection -----------------------------------------------------------------------------------

scope.addEventListener("install", (/** @type {Lasting} */ event) => event.waitUntil(install()));
scope.addEventListener("activate", (/** @type {Lasting} */ event) => event.waitUntil(activate()));
scope.addEventListener("fetch", (/** @type {Fetched} */ event) => {
  const { request } = event;
  if (request.mode === "navigate") event.respondWith(open(event));
  else if (request.method === "GET" && KEPT.files.includes(new URL(request.url).pathname))
    event.respondWith(fetchOrKept(request));
});

async function install() {
  const cache = await caches.open(CACHE);
  await cache.addAll(KEPT.files.map((path) => new Request(path, { cache: "reload" })));
  // Nothing of the app is kept, so no open page depends on the worker before.
  await scope.skipWaiting();
}

async function activate() {
  const names = await caches.keys();
  await Promise.all(
    names.filter((name) => name.startsWith(CACHE_PREFIX) && name !== CACHE).map((name) => caches.delete(name)),
  );
  // The page is asked for while this worker still starts.
  await scope.registration.navigationPreload?.enable();
  await scope.clients.claim();
}

/** @param {Fetched} event */
async function open(event) {
  try {
    const answer = (await event.preloadResponse) ?? (await fetch(event.request));
    if (!NOBODY_THERE.includes(answer.status)) return answer;
  } catch (error) {
    console.info("No connection:", error);
  }
  return (await caches.match(OFFLINE)) ?? Response.error();
}

/** @param {Request} request */
async function fetchOrKept(request) {
  try {
    return await fetch(request);
  } catch (error) {
    const kept = await caches.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}

// ---- notifications ------------------------------------------------------------------------------------------------

scope.addEventListener("push", (/** @type {Pushed} */ event) => event.waitUntil(show(noticeOf(read(event.data)))));
scope.addEventListener("notificationclick", (/** @type {Clicked} */ event) => event.waitUntil(clicked(event)));

/** @param {Pushed["data"]} data */
function read(data) {
  try {
    return data?.json() ?? null;
  } catch {
    return null; // Not JSON: something must be shown all the same.
  }
}

/** @param {Notice} notice */
async function show({ title, options, brief }) {
  const { request_id } = options.data;
  // Before and not after: a browser that is asked while it shows one may not know of that one yet.
  if (request_id !== undefined) await closeOlder(request_id, options.tag ?? "");
  await scope.registration.showNotification(title, options);
  // Not awaited: until the event ends a browser wants to see something. If the worker is ended first, the app closes it.
  if (brief) setTimeout(() => void close(options.tag ?? "", title), BRIEF_MS);
}

/**
 * What was shown of a session before this: it may have begun as an offer, under another tag.
 * @param {string} request_id
 * @param {string} tag  of what is newer
 */
async function closeOlder(request_id, tag) {
  for (const notification of await scope.registration.getNotifications())
    if (notification.data?.request_id === request_id && notification.tag !== tag) notification.close();
}

/**
 * @param {string} tag
 * @param {string} title  another one under the same tag is newer, and stays
 */
async function close(tag, title) {
  for (const notification of await scope.registration.getNotifications({ tag }))
    if (notification.title === title) notification.close();
}

/** @param {Clicked} event */
async function clicked({ action, notification }) {
  notification.close();
  const about = /** @type {NoticeData} */ (notification.data ?? {});
  const { offer_id } = about;
  if (offer_id !== undefined && (action === "accept" || action === "decline")) await show(await answer(offer_id, action));
  else await openApp(about);
}

/**
 * Answer an offer without opening the app, by the cookie that the browser has; and say what became of it.
 * @param {string} offer_id
 * @param {"accept" | "decline"} action
 */
async function answer(offer_id, action) {
  try {
    if (action === "accept") {
      const { request } = await api.acceptOffer(offer_id);
      return answeredNotice(offer_id, { answer: action, request });
    }
    await api.declineOffer(offer_id);
    return answeredNotice(offer_id, { answer: action });
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    return failedNotice(offer_id, action, error);
  }
}

/** Show there what a notification is about: the session, or how it ended, and else the offer. @param {NoticeData} about */
async function openApp({ offer_id, request_id }) {
  const pages = await scope.clients.matchAll({ type: "window", includeUncontrolled: true });
  const page = pages.find(({ url }) => new URL(url).pathname === APP);
  const is_offer = offer_id !== undefined && request_id === undefined;
  if (!page) {
    // What has become of a session is the first thing there anyway.
    await scope.clients.openWindow(is_offer ? `${APP}#offer-${offer_id}` : APP);
    return;
  }
  if (is_offer) page.postMessage({ type: "show_offer", offer_id });
  else if (request_id !== undefined) page.postMessage({ type: "show_session" });
  await page.focus();
}

// ---- the subscription ---------------------------------------------------------------------------------------------

scope.addEventListener("pushsubscriptionchange", (/** @type {SubscriptionChanged} */ event) =>
  event.waitUntil(subscribeAnew(event)),
);

/** The push service has given this browser another address; the server must know, or offers go nowhere. @param {SubscriptionChanged} event */
async function subscribeAnew({ oldSubscription, newSubscription }) {
  const { public_key } = await api.getPushKey();
  const subscription =
    newSubscription ??
    (await scope.registration.pushManager.subscribe({
      userVisibleOnly: true,
      applicationServerKey: keyBytes(public_key),
    }));
  await api.addPushSubscription({ ...subscription.toJSON(), label: deviceName() });
  if (oldSubscription && oldSubscription.endpoint !== subscription.endpoint)
    await api.removePushSubscription(oldSubscription.endpoint);
}
