/** What a customer does about their requests: what cannot be taken back is done only after a question. */

import { tell } from "./announcer.js";
import { ApiError, actOnRequest, messageOf, reportSession } from "./api.js";
import { focusIfNowhere } from "./elements.js";
import { overtakenText } from "./request-story.js";

/**
 * @import {ConfirmDialog} from "./confirm-dialog.js"
 * @import {Loader} from "./loading.js"
 * @import {ReportDialog} from "./report-dialog.js"
 * @import {Store} from "./store.js"
 * @import {FindAnotherBody, RequestView} from "./wire.js"
 */

/**
 * @param {Store} store
 * @param {Loader} load
 * @param {{confirm: ConfirmDialog, report: ReportDialog}} dialogs
 * @param {(request_id: string) => HTMLElement | null} home  where to read on about a request
 */
export function createRequestActions(store, load, dialogs, home) {
  /** What the open question is about. @type {{request_id: string, action: "cancel" | "find-another" | "complete"} | null} */
  let asked = null;

  /** @param {string} request_id */
  const assignedName = (request_id) => store.state.requests[request_id]?.assigned_mechanic?.name ?? "your mechanic";

  /**
   * @param {string} request_id
   * @param {"skip-wait" | "cancel" | "find-another" | "complete"} action
   * @param {FindAnotherBody} [body]
   */
  async function act(request_id, action, body) {
    if (store.state.acting[request_id]) return;
    store.dispatch({ type: "action_sent", request_id, action });
    const isStillHere = store.whoIsHere();
    const version = store.state.requests[request_id]?.version;
    try {
      const { request } = await actOnRequest(request_id, action, body);
      if (!isStillHere()) return;
      store.dispatch({ type: "request_loaded", request, received_ms: performance.now() });
      store.dispatch({ type: "action_answered", request_id });
    } catch (error) {
      if (!isStillHere() || load.signedOutBy(error)) return;
      const problem = messageOf(error);
      const is_refused = error instanceof ApiError && error.status === 409;
      if (!is_refused && store.state.requests[request_id]?.version === version) {
        store.dispatch({ type: "action_answered", request_id, problem });
        return;
      }
      // The request has moved on: show where it is now. On its card the reason would outlive what it is about.
      store.dispatch({ type: "action_answered", request_id });
      tell(problem);
      if (is_refused) void load.request(request_id);
    }
  }

  /**
   * Do it, if it is meant.
   * @param {string} request_id
   * @param {"cancel" | "find-another" | "complete"} action
   * @param {Parameters<ConfirmDialog["ask"]>[0]} question
   * @param {FindAnotherBody} [body]
   */
  async function actIfMeant(request_id, action, question, body) {
    if (store.state.acting[request_id]) return;
    const answer = dialogs.confirm.ask(question);
    const asking = (asked = { request_id, action });
    const is_meant = await answer;
    if (asked === asking) asked = null;
    // The button that would get the focus back may have gone meanwhile.
    focusIfNowhere(home(request_id));
    if (is_meant) await act(request_id, action, body);
  }

  return {
    /**
     * Take an open question back: its request has moved on.
     * @param {RequestView} request  as it is now
     * @returns {string}  why; empty if nothing was asked
     */
    unask(request) {
      if (request.id !== asked?.request_id) return "";
      const { action } = asked;
      asked = null;
      dialogs.confirm.dismiss();
      return overtakenText(action, request);
    },

    /** @param {string} request_id */
    skipWait: (request_id) => act(request_id, "skip-wait"),

    /** @param {{request_id: string, paid: boolean}} wish */
    cancel: ({ request_id, paid }) =>
      actIfMeant(request_id, "cancel", {
        title: paid ? "Cancel and refund?" : "Cancel this request?",
        text: paid ? "Your request ends now and what you paid is refunded in full." : "Your request ends now.",
        yes: paid ? "Yes, cancel and refund" : "Yes, cancel",
        no: "Keep waiting",
      }),

    /** @param {string} request_id */
    findAnother(request_id) {
      const who = assignedName(request_id);
      // The question is about whoever has it now: an answer that arrives late must not cost somebody else.
      const mechanic_id = store.state.requests[request_id]?.assigned_mechanic?.id ?? null;
      const paid = store.state.requests[request_id]?.price_cents !== 0;
      const text = `Your request is taken from ${who} and offered to every other available mechanic.`;
      const question = {
        title: "Find another mechanic?",
        text: paid ? `${text} If nobody accepts it in time, you get your money back.` : text,
        yes: "Yes, find another",
        no: `Keep ${who}`,
        takes_away: false,
      };
      return actIfMeant(request_id, "find-another", question, { mechanic_id });
    },

    /** @param {string} request_id */
    complete: (request_id) =>
      actIfMeant(request_id, "complete", {
        title: "Complete the session?",
        text: `The session with ${assignedName(request_id)} ends now, for both of you. It cannot be taken up again.`,
        yes: "Yes, complete it",
        no: "Go on with the session",
        takes_away: false,
      }),

    /** @param {string} request_id */
    report: (request_id) => dialogs.report.ask(request_id, assignedName(request_id), () => home(request_id)),

    /** @param {{request_id: string, reason: string}} report */
    async sendReport({ request_id, reason }) {
      const isStillHere = store.whoIsHere();
      try {
        const { request } = await reportSession(request_id, reason);
        if (!isStillHere()) return;
        // Before the redraw, in which the button that gets the focus back goes, and passes it on.
        dialogs.report.dismiss();
        store.dispatch({ type: "request_loaded", request, received_ms: performance.now() });
        tell("Thank you. Your report has reached our team.");
      } catch (error) {
        if (!isStillHere() || load.signedOutBy(error)) return;
        dialogs.report.fail(request_id, messageOf(error));
        // It has been reported in another window, or too long ago.
        if (error instanceof ApiError && error.status === 409) void load.request(request_id);
      }
    },
  };
}
