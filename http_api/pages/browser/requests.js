/** Requests as the page keeps them. Pure: values in, values out; `received_ms` is `performance.now()` at receipt. */

import { newestOf } from "../../../clients/javascript/offers.js";

/**
 * @import {RequestStatus, RequestView} from "./wire.js"
 * @import {State} from "./state.js"
 */

/**
 * A request with its own deadlines, on the `performance.now()` scale: `deadline_ms`, the offer's, null while nothing is
 * offered; `limit_ms`, until when whoever has accepted must start, or once started when the session ends by itself, null
 * before and after. `unsure` after a reconnect whose welcome no longer names it: it ended while we were away.
 * @typedef {RequestView & {deadline_ms: number | null, limit_ms: number | null, unsure: boolean}} TrackedRequest
 */

/** @type {RequestStatus[]} */
const OPEN = ["priority_offered", "broadcasting", "accepted", "in_progress"];

/** @param {{status: RequestStatus}} request */
export const isOpen = (request) => OPEN.includes(request.status);

/** @param {{status: RequestStatus}} request */
export const isCancellable = (request) => isOpen(request) && request.status !== "in_progress";

/**
 * Who has it, while that matters.
 * @param {Pick<RequestView, "status" | "assigned_mechanic">} request
 * @returns {string | null}
 */
export const assignedId = ({ status, assigned_mechanic }) =>
  status === "accepted" || status === "in_progress" ? (assigned_mechanic?.id ?? null) : null;

/**
 * Whether whoever has it is connected: as the socket says, until then as the request itself does.
 * @param {Pick<State, "statuses">} state
 * @param {RequestView} request
 * @returns {boolean | null}  null: nobody has it, or nobody knows
 */
export function isThere({ statuses }, request) {
  const id = assignedId(request);
  return id === null ? null : (statuses[id]?.is_online ?? request.assigned_is_online ?? null);
}

/** A request has one or the other: a session that has begun is not waited for. @param {RequestView} request */
const limitIn = ({ start, ends }) => start ?? ends ?? null;

/** The server's; after that a session can no longer be reported. */
const REPORTABLE_MS = 7 * 24 * 3_600_000;

/** @param {Pick<RequestView, "timeline">} request */
export const isReported = ({ timeline }) => timeline.some(({ event }) => event === "reported");

/**
 * Whether its customer may say that something was wrong with the session.
 * @param {RequestView} request
 * @param {number} now_ms  the server's time
 */
export const isReportable = (request, now_ms) =>
  request.status === "completed" &&
  request.completed_at !== null &&
  now_ms < Date.parse(request.completed_at) + REPORTABLE_MS &&
  !isReported(request);

/**
 * How long the whole time to start is, or that of the session, of which `limit_ms` is the end.
 * @param {RequestView} request
 * @returns {number | null}  null: there is no limit, or nobody has told when it began
 */
export function limitLengthMs(request) {
  const limit = limitIn(request);
  const began = request.start ? request.accepted_at : request.timeline.findLast(({ event }) => event === "started")?.at;
  return limit && began ? Date.parse(limit.expires_at) - Date.parse(began) : null;
}

/**
 * Take in a request unless a newer version is known already.
 * @param {Readonly<Record<string, TrackedRequest>>} known
 * @param {RequestView} request
 * @param {number} received_ms
 * @returns {Readonly<Record<string, TrackedRequest>>}
 */
export function withRequest(known, request, received_ms) {
  const old = known[request.id];
  if (old && old.version > request.version) return known;
  const deadline_ms = deadlineOf(request, received_ms, old);
  const limit_ms = limitOf(request, received_ms, old);
  return { ...known, [request.id]: { ...request, deadline_ms, limit_ms, unsure: false } };
}

/**
 * @param {RequestView} request
 * @param {number} received_ms
 * @param {TrackedRequest | undefined} old
 */
function deadlineOf({ offer }, received_ms, old) {
  if (!offer) return null;
  const known =
    old?.offer?.id === offer.id && old.deadline_ms !== null ? { ...old.offer, deadline_ms: old.deadline_ms } : undefined;
  return newestOf(known, offer, received_ms).deadline_ms;
}

/**
 * @param {RequestView} request
 * @param {number} received_ms
 * @param {TrackedRequest | undefined} old
 */
function limitOf(request, received_ms, old) {
  const limit = limitIn(request);
  if (!limit) return null;
  const before = old && limitIn(old);
  const known = before && old.limit_ms !== null ? { ...before, deadline_ms: old.limit_ms } : undefined;
  return newestOf(known, limit, received_ms).deadline_ms;
}

/**
 * Take in the open requests of a welcome; open ones that it no longer names become `unsure`.
 * @param {Readonly<Record<string, TrackedRequest>>} known
 * @param {RequestView[]} requests
 * @param {number} received_ms
 */
export function withSnapshot(known, requests, received_ms) {
  const named = new Set(requests.map((request) => request.id));
  /** @type {Record<string, TrackedRequest>} */
  const checked = {};
  for (const [id, request] of Object.entries(known)) {
    checked[id] = isOpen(request) && !named.has(id) ? { ...request, unsure: true } : request;
  }
  return requests.reduce(
    (all, request) => withRequest(all, request, received_ms),
    /** @type {typeof known} */ (checked),
  );
}

/**
 * @param {State} state
 * @param {RequestView} request
 * @param {number} received_ms
 * @returns {State}
 */
export function withLoaded(state, request, received_ms) {
  const requests = withRequest(state.requests, request, received_ms);
  return requests === state.requests ? state : { ...state, requests };
}

/**
 * @param {State} state
 * @param {string} request_id
 * @returns {State}
 */
export function withFollowed(state, request_id) {
  return state.followed[request_id] ? state : { ...state, followed: { ...state.followed, [request_id]: true } };
}

/**
 * Take in a request, and keep showing it from now on if it is open.
 * @param {State} state
 * @param {RequestView} request
 * @param {number} received_ms
 */
export function withFollowedIfOpen(state, request, received_ms) {
  const next = withLoaded(state, request, received_ms);
  return isOpen(request) && next !== state ? withFollowed(next, request.id) : next;
}

/**
 * Why an action failed was about the request as it was: once that has changed, it is told no longer.
 * @param {State} before
 * @param {State} state
 * @returns {State}
 */
export function withoutOldProblems(before, state) {
  if (state.requests === before.requests) return state;
  const all = Object.entries(state.problems);
  const current = all.filter(([id]) => state.requests[id]?.version === before.requests[id]?.version);
  return current.length === all.length ? state : { ...state, problems: Object.fromEntries(current) };
}

/**
 * The request that a mechanic is busy with.
 * @param {string | undefined} mechanic_id
 * @param {Readonly<Record<string, TrackedRequest>>} requests
 * @returns {TrackedRequest | null}
 */
export function assignedTo(mechanic_id, requests) {
  const theirs = Object.values(requests).filter(
    ({ status, assigned_mechanic }) =>
      (status === "accepted" || status === "in_progress") && (assigned_mechanic?.id ?? mechanic_id) === mechanic_id,
  );
  return newestFirst(theirs)[0] ?? null;
}

/**
 * A customer's open request that was made for a mechanic, or that this mechanic has; of several the newest.
 * @param {string} mechanic_id
 * @param {Readonly<Record<string, TrackedRequest>>} requests
 * @returns {TrackedRequest | null}
 */
export function openWith(mechanic_id, requests) {
  const theirs = Object.values(requests).filter(
    (request) =>
      isOpen(request) &&
      !request.unsure &&
      (request.preferred_mechanic?.id === mechanic_id || assignedId(request) === mechanic_id),
  );
  return newestFirst(theirs)[0] ?? null;
}

/**
 * Newest first: ids sort by creation time.
 * @template {{id: string}} Item
 * @param {Item[]} items
 */
export const newestFirst = (items) => [...items].sort((a, b) => (a.id < b.id ? 1 : -1));

/**
 * The record without one entry.
 * @template Value
 * @param {Readonly<Record<string, Value>>} record
 * @param {string} key
 * @returns {Readonly<Record<string, Value>>}
 */
export function without(record, key) {
  const { [key]: _gone, ...rest } = record;
  return rest;
}
