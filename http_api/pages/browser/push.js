/** Notifications of this browser: what stands in their way, turning them on and off, and what is still shown of old offers. */

import { addPushSubscription, getPushKey, removePushSubscription } from "./api.js";
import { deviceName } from "./device-name.js";
import { endpointHash, keyBytes } from "./push-key.js";

const SCOPE = "/mechanic";
const WORKER = "/static/worker.js";
/** For the browser to fetch the worker, and to install it. */
const WORKER_TIMEOUT_MS = 10_000;

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

/**
 * What `register()` has given, or is about to; null: not asked yet, or in vain.
 * @type {Promise<ServiceWorkerRegistration | undefined> | null}
 */
let registering = null;

/**
 * Make the worker known to the browser; it needs no permission. Without it the page works as before. Where that has failed,
 * calling it again tries it again.
 * @returns {Promise<ServiceWorkerRegistration | undefined>}  undefined: there is none
 */
export async function startWorker() {
  if (!("serviceWorker" in navigator)) return undefined;
  const options = /** @type {const} */ ({ scope: SCOPE, type: "module", updateViaCache: "none" });
  registering ??= soon(navigator.serviceWorker.register(WORKER, options)).catch((error) => {
    console.warn("No notifications in this browser:", error);
    return undefined;
  });
  const mine = registering;
  const registration = await mine;
  if (!registration && registering === mine) registering = null;
  return registration;
}

/**
 * Some browsers leave what they cannot do unanswered.
 * @template Value
 * @param {Promise<Value>} promise
 * @returns {Promise<Value>}
 */
async function soon(promise) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("The browser does not answer.")), WORKER_TIMEOUT_MS);
  });
  try {
    return /** @type {Value} */ (await Promise.race([promise, late]));
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Wait until the worker is active, as it has to be to be subscribed for. `navigator.serviceWorker.ready` would wait for ever
 * for one that could not be installed.
 * @param {ServiceWorkerRegistration} registration
 * @throws {Error}  it does not become active
 */
async function becomeActive(registration) {
  const worker = registration.installing ?? registration.waiting;
  if (registration.active) return;
  try {
    await soon(
      new Promise((resolve, reject) => {
        const look = () => {
          if (registration.active) resolve(undefined);
          else if (!worker || worker.state === "redundant") reject(new Error("The worker could not be installed."));
        };
        worker?.addEventListener("statechange", look);
        look();
      }),
    );
  } catch (error) {
    // The next try begins with another one.
    registering = null;
    throw error;
  }
}

/** @returns {Promise<ServiceWorkerRegistration | undefined>} */
const registration = async () => registering ?? undefined;

/** @returns {Promise<PushSubscription | null>} */
const subscription = async () => (await (await registration())?.pushManager?.getSubscription()) ?? null;

/** @returns {Promise<PushState>} */
export async function pushState() {
  const worker = await startWorker();
  const own = await subscription();
  return stateOf({
    secure: isSecureContext,
    has_push: worker !== undefined && "PushManager" in window,
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
  const worker = await startWorker();
  if (!worker) return pushState();
  await becomeActive(worker);
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
 * Take away what is shown of offers that are not open any more, and of sessions that need not be started any more.
 * @param {() => readonly string[]} current  tags, by the time that the browser has answered what is shown
 * @param {boolean} is_looked_at  what became of answers and sessions has been seen as well
 */
export async function closeStale(current, is_looked_at) {
  const shown = (await (await registration())?.getNotifications()) ?? [];
  const tags = new Set(current());
  for (const notification of shown) {
    const is_stale = /^(offer|request):/.test(notification.tag) && !tags.has(notification.tag);
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
