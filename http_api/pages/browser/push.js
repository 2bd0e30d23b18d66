/** Notifications of this browser: what stands in their way, turning them on and off, and what is still shown of old offers. */

import { addPushSubscription, getPushKey, removePushSubscription } from "./api.js";
import { offerTag } from "./notices.js";
import { endpointHash, keyBytes } from "./push-key.js";

const SCOPE = "/mechanic";
const WORKER = "/static/worker.js";

/**
 * `home_screen`: on an iPhone only an app on the home screen may notify. `blocked`: the person said no, and only they can
 * change it. `off`: it can be turned on by a click.
 * @typedef {"unsupported" | "insecure" | "home_screen" | "blocked" | "off" | "on"} PushState
 */

/**
 * What a browser tells of itself, as a state. Pure, because there are more browsers than we have here.
 * @param {object} browser
 * @param {boolean} browser.secure
 * @param {boolean} browser.has_push
 * @param {boolean} browser.is_ios
 * @param {boolean} browser.is_installed
 * @param {NotificationPermission | undefined} browser.permission
 * @param {boolean} browser.subscribed
 * @returns {PushState}
 */
export function stateOf({ secure, has_push, is_ios, is_installed, permission, subscribed }) {
  if (!secure) return "insecure";
  if (is_ios && !is_installed) return "home_screen";
  if (!has_push || permission === undefined) return "unsupported";
  if (permission === "denied") return "blocked";
  return permission === "granted" && subscribed ? "on" : "off";
}

/** An iPad says that it is a Mac; no Mac can be touched. */
const isIos = () =>
  /iPhone|iPad|iPod/.test(navigator.userAgent) ||
  (navigator.userAgent.includes("Macintosh") && navigator.maxTouchPoints > 1);

export const isInstalled = () =>
  matchMedia("(display-mode: standalone)").matches || /** @type {any} */ (navigator).standalone === true;

/** What to call this browser in the list of devices. */
export function deviceName() {
  const agent = navigator.userAgent;
  const first = (/** @type {[RegExp, string][]} */ names) => names.find(([pattern]) => pattern.test(agent))?.[1];
  const program = first([
    [/Edg/, "Edge"],
    [/SamsungBrowser/, "Samsung Internet"],
    [/OPR/, "Opera"],
    [/Firefox|FxiOS/, "Firefox"],
    [/Chrome|CriOS/, "Chrome"],
    [/Safari/, "Safari"],
  ]);
  const system = first([
    [/iPhone/, "iPhone"],
    [/iPad/, "iPad"],
    [/Android/, "Android"],
    [/Windows/, "Windows"],
    [/CrOS/, "ChromeOS"],
    [/Mac/, "Mac"],
    [/Linux/, "Linux"],
  ]);
  return [program ?? "Browser", system].filter(Boolean).join(" on ");
}

/** Make the worker known to the browser; it needs no permission. Without it the page works as before. */
export async function startWorker() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register(WORKER, { scope: SCOPE, type: "module", updateViaCache: "none" });
  } catch (error) {
    console.warn("No notifications in this browser:", error);
  }
}

/** @returns {Promise<ServiceWorkerRegistration | undefined>} */
const registration = async () =>
  "serviceWorker" in navigator ? navigator.serviceWorker.getRegistration(SCOPE) : undefined;

/** @returns {Promise<PushSubscription | null>} */
const subscription = async () => (await (await registration())?.pushManager?.getSubscription()) ?? null;

/** @returns {Promise<PushState>} */
export async function pushState() {
  const own = await subscription();
  return stateOf({
    secure: isSecureContext,
    has_push: "serviceWorker" in navigator && "PushManager" in window,
    is_ios: isIos(),
    is_installed: isInstalled(),
    permission: "Notification" in window ? Notification.permission : undefined,
    subscribed: own !== null,
  });
}

/** By what the server's list knows this browser; null while it is not subscribed. */
export async function ownHash() {
  const own = await subscription();
  return own ? endpointHash(own.endpoint) : null;
}

/** Where this browser is reached, a secret between it and the server; null while it is not subscribed. */
export const ownEndpoint = async () => (await subscription())?.endpoint ?? null;

/**
 * Ask the person, subscribe, and tell the server. Only ever after a click: browsers ask once, and a no is for good.
 * @returns {Promise<PushState>}
 */
export async function turnOn() {
  const permission = await Notification.requestPermission();
  if (permission !== "granted") return pushState();
  const worker = await navigator.serviceWorker.ready;
  const { public_key } = await getPushKey();
  const options = { userVisibleOnly: true, applicationServerKey: keyBytes(public_key) };
  let own = await worker.pushManager.getSubscription();
  // One that was made for another key of the server's cannot be used any more.
  if (own && !sameKey(own.options.applicationServerKey, options.applicationServerKey)) {
    await own.unsubscribe();
    own = null;
  }
  own ??= await worker.pushManager.subscribe(options);
  await addPushSubscription({ ...own.toJSON(), label: deviceName() });
  return "on";
}

/** Let the server know once more whose browser this is: somebody else may have signed in, or the server forgotten it. */
export async function confirmOwner() {
  if ((await pushState()) === "on") await turnOn();
}

/** Turn it off here and at the server. */
export async function turnOff() {
  const own = await subscription();
  if (!own) return;
  await removePushSubscription(own.endpoint);
  await own.unsubscribe();
}

/**
 * Take away what is shown of offers that are not open any more.
 * @param {() => readonly string[]} open  offer ids, by the time that the browser has answered what is shown
 * @param {boolean} is_looked_at  what became of answers has been seen as well
 */
export async function closeStale(open, is_looked_at) {
  const shown = (await (await registration())?.getNotifications()) ?? [];
  const current = new Set(open().map(offerTag));
  for (const notification of shown) {
    const is_stale = notification.tag.startsWith("offer:") && !current.has(notification.tag);
    if (is_stale && (is_looked_at || !notification.data?.is_outcome)) notification.close();
  }
}

/**
 * @param {ArrayBuffer | null | undefined} one
 * @param {Uint8Array} other
 */
function sameKey(one, other) {
  // A browser that does not tell is believed.
  if (!one) return true;
  const bytes = new Uint8Array(one);
  return bytes.length === other.length && bytes.every((byte, index) => byte === other[index]);
}
