/** A server on this machine that the pages' calls reach, and what each test makes it answer. */

import { createServer } from "node:http";

import { afterAll, beforeEach } from "./harness.js";

/** @import {AddressInfo} from "node:net" */

/**
 * `account`: whose call it is, as it says itself.
 * @typedef {{call: string, key: string | undefined, type: string | undefined, account: string | undefined, body: any}} Asked
 */
/**
 * "lost": the server hears the call, and its answer does not arrive. "held": there is no answer for as long as the test lasts.
 * @typedef {{status: number, body?: unknown, type?: string, headers?: Record<string, string>} | "lost" | "held"} Answer
 */

/** What was asked in this test, in order. @type {Asked[]} */
export const asked = [];
/** @type {Map<string, Answer[]>} */
const expected = new Map();

/**
 * Let the calls of one kind be answered so, in turn. A call that nobody expects fails.
 * @param {string} call  such as `GET /api/plans`
 * @param {...Answer} answers
 */
export const expect = (call, ...answers) => void expected.set(call, answers);

/**
 * @param {string} code
 * @param {number} [status]
 * @returns {{status: number, body: unknown}}
 */
export const refusal = (code, status = 409) => ({
  status,
  body: { type: "", title: "", status, code, detail: `It is ${code}.` },
});

/** @param {string | string[] | undefined} header */
const text_of = (header) => (typeof header === "string" ? header : undefined);

const server = createServer((request, response) => {
  let text = "";
  request.on("data", (part) => (text += part));
  request.on("end", () => {
    const call = `${request.method} ${request.url}`;
    const key = request.headers["idempotency-key"];
    const body = text ? JSON.parse(text) : null;
    const { "content-type": type, "pitlane-account": account } = request.headers;
    asked.push({ call, key: text_of(key), type, account: text_of(account), body });
    const answer = expected.get(call)?.shift();
    if (answer === "held") return;
    if (answer === "lost") {
      request.socket.destroy();
      return;
    }
    if (!answer) {
      response.writeHead(500, { "content-type": "application/problem+json" });
      response.end(JSON.stringify({ code: "unexpected", detail: `Nobody expects ${call}.` }));
      return;
    }
    const answered_type = answer.type ?? (answer.status < 400 ? "application/json" : "application/problem+json");
    response.writeHead(answer.status, {
      ...(answer.body === undefined ? {} : { "content-type": answered_type }),
      ...answer.headers,
    });
    response.end(typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body));
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  asked.length = 0;
  expected.clear();
});

/** The address of the page. */
export const base = `http://127.0.0.1:${/** @type {AddressInfo} */ (server.address()).port}`;

const { fetch } = globalThis;
globalThis.fetch = (/** @type {any} */ path, /** @type {RequestInit | undefined} */ options) =>
  fetch(new URL(path, base), options);
