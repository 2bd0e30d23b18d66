/** What the elements say to whoever holds the state: bubbling events, named by what the visitor wants. */

/**
 * @import {AlertSettings} from "./alert-settings.js"
 * @import {EraseBody, ForgotBody, LoginBody, NameBody, PasswordBody, Person, PreferencesBody, RegisterBody} from "./wire.js"
 */

/**
 * Each verb with what it is about; null: the page knows.
 * @typedef {{
 *   "sign-in": LoginBody,
 *   "register": RegisterBody,
 *   "sign-out": null,
 *   "sign-out-everywhere": null,
 *   "sign-out-device": string,
 *   "change-name": NameBody,
 *   "change-password": PasswordBody,
 *   "erase-account": EraseBody,
 *   "forgot-password": ForgotBody,
 *   "reset-password": string,
 *   "load-more": null,
 *   "book-again": string,
 *   "retry-status": null,
 *   "choose-priority": null,
 *   "choose-broadcast": null,
 *   "choose-cancel": null,
 *   "clear-favorite": null,
 *   "plan-chosen": string,
 *   "note-written": string,
 *   "checkout": null,
 *   "check-again": null,
 *   "dismiss-return": null,
 *   "skip-wait": string,
 *   "cancel-request": {request_id: string, paid: boolean},
 *   "find-another": string,
 *   "report-problem": string,
 *   "send-report": {request_id: string, reason: string},
 *   "close-request": string,
 *   "remove-favorite": string,
 *   "restore-favorite": string,
 *   "accept-prompt": string,
 *   "dismiss-prompt": string,
 *   "add-favorite": Person,
 *   "reload-favorites": null,
 *   "reload-plans": null,
 *   "set-duty": boolean,
 *   "plan-duty": {on_duty: boolean, back_in_s?: number, off_after_session?: boolean},
 *   "load-past-offers": null,
 *   "accept-offer": string,
 *   "decline-offer": {offer_id: string, reason: string | null},
 *   "undo-decline": string,
 *   "set-alert": {name: keyof AlertSettings, on: boolean},
 *   "try-alert": null,
 *   "turn-on-push": null,
 *   "turn-off-push": null,
 *   "test-push": null,
 *   "remove-device": string,
 *   "set-preferences": PreferencesBody,
 *   "start-request": string,
 *   "complete-request": string,
 *   "release-request": string,
 *   "read-ending": string,
 * }} Verbs
 */

/**
 * Carry out what is said anywhere below `listener`.
 * @param {EventTarget} listener
 * @param {{[Verb in keyof Verbs]?: (about: Verbs[Verb]) => unknown}} verbs
 */
export function carryOut(listener, verbs) {
  for (const [verb, act] of Object.entries(verbs)) {
    const handle = /** @type {(about: unknown) => unknown} */ (act);
    listener.addEventListener(verb, (event) => void handle(/** @type {CustomEvent} */ (event).detail));
  }
}
