/** What the mechanic does about notifications, and how it went, for the page to show. */

import * as api from "./api.js";
import { tell } from "./announcer.js";
import { confirmOwner, ownEndpoint, ownHash, pushState, turnOff, turnOn } from "./push.js";

/** @import {Store} from "./store.js" */

/** @param {Store} store */
export function createPushActions(store) {
  /**
   * One at a time, with its problem beside the button.
   * @param {() => Promise<unknown>} act
   */
  async function attempt(act) {
    if (store.state.push.busy) return;
    store.dispatch({ type: "push_moved", busy: true, problem: null });
    let problem = null;
    try {
      await act();
    } catch (error) {
      problem = problemOf(error);
    }
    store.dispatch({ type: "push_moved", busy: false, problem });
    await look();
  }

  /** See how it stands now: permissions change outside of the page. */
  async function look() {
    store.dispatch({ type: "push_moved", state: await pushState(), own_hash: await ownHash() });
    if (store.state.me?.role !== "mechanic") return;
    const isStillHere = store.whoIsHere();
    try {
      const { subscriptions } = await api.getPushSubscriptions();
      if (isStillHere()) store.dispatch({ type: "push_moved", devices: subscriptions });
    } catch (error) {
      console.warn("The devices could not be loaded:", api.messageOf(error));
    }
  }

  return {
    look,

    turnOn: () => attempt(turnOn),
    turnOff: () => attempt(turnOff),

    /** Somebody has signed in: notifications of this browser are theirs from now on. */
    async signedIn() {
      try {
        await confirmOwner();
      } catch (error) {
        console.warn("This device may not be notified:", error);
      }
      await look();
    },

    /** Whoever signs out is not to be woken by what concerns them on a device that others may use. */
    async signedOut() {
      try {
        await turnOff();
      } catch (error) {
        console.warn("The server may still notify this device:", error);
      }
    },

    test: () =>
      attempt(async () => {
        await api.testPush(await ownEndpoint());
        tell("A test notification is on its way.");
      }),

    /** @param {string} id */
    remove: (id) =>
      attempt(async () => {
        const own = store.state.push.devices?.find((device) => device.endpoint_hash === store.state.push.own_hash);
        if (own?.id === id) await turnOff();
        else await api.removePushDevice(id);
        tell("Removed. It is not notified any more.");
      }),
  };
}

/** @param {unknown} error */
function problemOf(error) {
  if (error instanceof api.ApiError) return error.message;
  console.warn("Notifications could not be changed:", error);
  // The browser's own, as the Push API names it when there is no push service behind it, or that one says no.
  return error instanceof DOMException && error.name === "AbortError"
    ? "This browser has no service that could notify you, or cannot reach it. In another browser, or later on another network, it may work."
    : "Your browser could not do this. Please try again, or use another browser.";
}
