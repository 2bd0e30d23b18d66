/** The worker, in a browser that a test plays. */

import assert from "node:assert/strict";

import { deviceName } from "../../http_api/pages/browser/device-name.js";
import { test } from "./harness.js";
import { asked, expect } from "./server.js";

await import("../../http_api/pages/browser/worker.js");

/** @param {string} endpoint */
const aSubscription = (endpoint) => ({ endpoint, toJSON: () => ({ endpoint, keys: { p256dh: "p", auth: "a" } }) });

test("a browser whose address changes keeps its name in the list of devices", async () => {
  expect("GET /api/push/key", { status: 200, body: { public_key: "AQID" } });
  expect("POST /api/push/subscriptions", { status: 201, body: {} });
  expect("DELETE /api/push/subscriptions", { status: 204 });
  /** @type {Promise<unknown>[]} */
  const works = [];
  const event = Object.assign(new Event("pushsubscriptionchange"), {
    oldSubscription: aSubscription("https://push.example/1"),
    newSubscription: aSubscription("https://push.example/2"),
    waitUntil: (/** @type {Promise<unknown>} */ work) => works.push(work),
  });
  globalThis.dispatchEvent(event);
  await Promise.all(works);
  assert.deepEqual(asked.slice(1).map(({ call, body }) => [call, body.endpoint, body.label]), [
    ["POST /api/push/subscriptions", "https://push.example/2", deviceName()],
    ["DELETE /api/push/subscriptions", "https://push.example/1", undefined],
  ]);
});
