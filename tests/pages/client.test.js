/**
 * The two clients against a real server that a test plays: what an app is told, and that no answer to an offer is lost or
 * doubled. The clients' own time passes only when a test says so.
 */

import assert from "node:assert/strict";

import { CustomerClient, MechanicClient } from "../../clients/javascript/pitlane.js";
import { afterAll, afterEach, beforeEach, test } from "./harness.js";
import { aCustomerWelcome, aMechanicWelcome, anOffer, aRequest, aStatus } from "./samples.js";
import { pass, sleep, timeBeginsAnew, timers, until, waits } from "./time.js";

/** @import {Outcome} from "../../clients/javascript/answers.js" */

const SOCKET_TIMEOUT_MS = 5_000;
const SETTLE_MAX_MS = 30_000;

// ---- the server ---------------------------------------------------------------------------------------------------

/** What came over each socket. @typedef {{heard: any[], line: WebSocket}} Visit */
/** @type {Visit[]} */
let visits = [];
/** What came by REST. @type {{call: string, body: any}[]} */
let asked = [];
/** @type {any} */
let welcome = aMechanicWelcome();
/** "held": not while the test lasts. @type {Map<string, [status: number, body: any] | "held">} */
let answers = new Map();
/** @type {(() => void)[]} */
const held = [];
let opens = true;

const { Deno } = /** @type {any} */ (globalThis);
const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (/** @type {Request} */ request) => {
  const { pathname, search } = new URL(request.url);
  if (pathname.startsWith("/api/")) {
    const call = `${request.method} ${pathname}${search}`;
    const text = await request.text();
    asked.push({ call, body: text ? JSON.parse(text) : null });
    const answer = answers.get(call) ?? [500, { code: "unexpected", detail: `Nobody expects ${call}.` }];
    if (answer === "held") {
      return new Promise((resolve) => held.push(() => resolve(new Response(null, { status: 503 }))));
    }
    const [status, body] = answer;
    const type = status < 400 ? "application/json" : "application/problem+json";
    return new Response(status === 204 ? null : JSON.stringify(body), { status, headers: { "content-type": type } });
  }
  if (!opens) return new Response(null, { status: 403 });
  const { socket, response } = Deno.upgradeWebSocket(request);
  /** @type {Visit} */
  const visit = { heard: [], line: socket };
  socket.onopen = () => {
    visits.push(visit);
    say(welcome);
  };
  socket.onmessage = (/** @type {MessageEvent} */ { data }) => visit.heard.push(JSON.parse(data));
  return response;
});
afterAll(() => server.shutdown());

/** @param {any[]} messages */
const say = (...messages) => messages.forEach((message) => visits.at(-1)?.line.send(JSON.stringify(message)));
/** What the newest connection has heard, of one type. @param {string} type @returns {any[]} */
const heard = (type) => visits.at(-1)?.heard.filter((message) => message.type === type) ?? [];
/** @param {string} code */
const refusal = (code, status = 409) => /** @type {[number, any]} */ ([status, { code, detail: `It is ${code}.` }]);
/** @param {string} call */
const calls = (call) => asked.filter((one) => one.call === call).length;

// ---- the app ------------------------------------------------------------------------------------------------------

/** @type {any[][]} */
let told = [];
/** @type {{type: string}[]} */
let messages = [];
const base = `http://127.0.0.1:${server.addr.port}`;
/** Writes down each call of one of these names. @param {string[]} names */
const notes = (...names) =>
  Object.fromEntries(names.map((name) => [name, (/** @type {any[]} */ ...about) => told.push([name, ...about])]));
const keeps = { message: (/** @type {any} */ message) => messages.push(message) };
/** @type {MechanicClient} */
let mechanic;
/** @type {CustomerClient} */
let customer;

beforeEach(() => {
  timeBeginsAnew();
  [visits, asked, told, messages, answers, opens] = [[], [], [], [], new Map(), true];
  welcome = aMechanicWelcome();
  mechanic = new MechanicClient(
    { base },
    { ...keeps, ...notes("offer", "withdrawn", "availability", "request", "requestLost", "error", "signedOut") },
  );
  customer = new CustomerClient({ base }, { ...keeps, ...notes("status", "request", "favoritePrompt", "error") });
});
afterEach(() => {
  mechanic.stop();
  customer.stop();
  held.splice(0).forEach((release) => release());
});

/** @param {MechanicClient | CustomerClient} client */
async function live(client) {
  const before = messages.length;
  client.start();
  await until("the welcome", () => client.state === "live" && messages.length > before);
}

/** The line breaks, and the next one is up. @param {MechanicClient | CustomerClient} client */
async function reconnected(client) {
  visits.at(-1)?.line.close(1011);
  await until("the loss", () => client.state === "reconnecting");
  await back(client);
}

/** @param {MechanicClient | CustomerClient} client */
async function back(client) {
  const before = visits.length;
  pass(500);
  await until("the next welcome", () => client.state === "live" && visits.length > before);
}

const offer = anOffer({ offer_id: "o1", request_id: "r1" });
const mine = aRequest({ status: "accepted", version: 2, assigned_mechanic: { id: "m1", name: "Mike's Garage" } });
/** What was told of offers, as `name offer_id …`. */
const ofOffers = () =>
  told.filter(([name]) => name === "offer" || name === "withdrawn").map((
    [name, about, ...more],
  ) => [name, about.offer_id, ...more]);

/** A live mechanic with one open offer. */
async function offered() {
  await live(mechanic);
  say({ type: "offer", offer });
  await until("the offer", () => told.some(([name]) => name === "offer"));
}

// ---- offers -------------------------------------------------------------------------------------------------------

test("an offer is told once, and acknowledged each time it comes, also from a welcome", async () => {
  await offered();
  say({ type: "offer", offer }, { type: "offer", offer });
  await until("three acknowledgements", () => heard("offer_ack").length === 3);
  assert.deepEqual(heard("offer_ack")[2], { type: "offer_ack", offer_id: "o1" });
  welcome = aMechanicWelcome({ offers: [offer] });
  await reconnected(mechanic);
  await until("one more", () => heard("offer_ack").length === 1);
  assert.deepEqual(ofOffers(), [["offer", "o1", true]]);
  assert.deepEqual(
    mechanic.offers.map(({ offer_id }) => offer_id),
    ["o1"],
  );
});

test("what a person could see is said at once and once, and again after a reconnect", async () => {
  await offered();
  mechanic.seen("o1");
  mechanic.seen("o1");
  mechanic.seen("never heard of");
  await until("the word", () => heard("offer_ack").length === 2);
  assert.deepEqual(heard("offer_ack")[1], { type: "offer_ack", offer_id: "o1", seen: true });
  welcome = aMechanicWelcome({ offers: [offer] });
  await reconnected(mechanic);
  await until("the word again", () => heard("offer_ack").length === 1);
  assert.deepEqual(heard("offer_ack"), [{ type: "offer_ack", offer_id: "o1", seen: true }]);
});

test("an offer that is gone is told with its reason, and comes back without being news", async () => {
  await offered();
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "taken", by_you: true });
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" }, { type: "offer", offer });
  await until("the return", () => ofOffers().length === 3);
  await reconnected(mechanic);
  await until("the welcome that leaves it out", () => ofOffers().length === 4);
  assert.deepEqual(ofOffers(), [
    ["offer", "o1", true],
    ["withdrawn", "o1", "taken", true],
    ["offer", "o1", false],
    ["withdrawn", "o1", null, false],
  ]);
});

// ---- accept and decline -------------------------------------------------------------------------------------------

/** @param {"accept" | "decline"} answer */
const path = (answer) => `POST /api/offers/o1/${answer}`;

test("an accept is answered over the socket, and two taps are one", async () => {
  await offered();
  const [first, second] = [mechanic.accept("o1"), mechanic.accept("o1")];
  await until("the accept", () => heard("accept").length === 1);
  say({ type: "offer_accepted", offer_id: "o1", request: mine });
  assert.deepEqual(await first, { outcome: "accepted", request: mine });
  assert.equal(await second, await first);
  await until("the request", () => told.some(([name]) => name === "request"));
  assert.deepEqual([heard("accept").length, asked, mechanic.offers], [1, [], []]);
  say({ type: "offer", offer }, { type: "heartbeat_ack", server_time: "" }, { type: "error", code: "x", message: "" });
  await until("what came after", () => told.some(([name]) => name === "error"));
  assert.deepEqual(ofOffers(), [["offer", "o1", true]], "a late repeat brings nothing back");
  assert.deepEqual(
    [...timers.values()].filter(({ at_ms }) => at_ms === SETTLE_MAX_MS),
    [],
    "nothing is waited for any more",
  );
});

test("an accept that loses is refused in the server's words, and the app hears of it by its outcome alone", async () => {
  await offered();
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" });
  say({ type: "error", code: "offer_gone", message: "Another mechanic was faster.", ref: "o1" });
  assert.deepEqual(await outcome, { outcome: "refused", code: "offer_gone", message: "Another mechanic was faster." });
  await until("its end", () => mechanic.offers.length === 0);
  assert.deepEqual([ofOffers(), told.filter(([name]) => name === "error")], [[["offer", "o1", true]], []]);
});

test("an accept whose socket dies before the answer is settled by REST, and the messages say so, too", async () => {
  await offered();
  answers.set(path("accept"), [200, { request: mine }]);
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  visits.at(-1)?.line.close(1011);
  assert.deepEqual(await outcome, { outcome: "accepted", request: mine });
  assert.equal(calls(path("accept")), 1);
  await until("the message", () => messages.at(-1)?.type === "offer_accepted");
  assert.deepEqual(told.at(-1), ["request", mine]);
});

test("an accept that a half-open socket swallows is settled by REST after a while", async () => {
  await offered();
  answers.set(path("accept"), [200, { request: mine }]);
  const outcome = mechanic.accept("o1");
  pass(SOCKET_TIMEOUT_MS - 1);
  await sleep(10);
  assert.deepEqual(asked, []);
  pass(1);
  assert.equal((await outcome).outcome, "accepted");
});

test("while nobody answers, REST is asked again and again, and a welcome with the session settles it as well", async () => {
  await offered();
  answers.set(path("accept"), [503, {}]);
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  visits.at(-1)?.line.close(1011);
  /** The socket's next try and that by REST wait for the same time. @param {number} wait_ms */
  const both = (wait_ms) => until("two waits", () => waits.filter((one) => one === wait_ms).length === 2);
  await both(250);
  opens = false;
  pass(250);
  await both(500);
  assert.equal(calls(path("accept")), 2);
  opens = true;
  welcome = aMechanicWelcome({ request: mine });
  pass(500);
  assert.deepEqual(await outcome, { outcome: "accepted", request: mine });
});

test("a repeated accept that is refused may have won before: only whoever has the request can read it", async () => {
  for (
    const [read, outcome] of /** @type {[[number, any], string][]} */ ([
      [[200, aRequest({ ...mine, status: "completed" })], "accepted"],
      [refusal("not_found", 404), "refused"],
    ])
  ) {
    mechanic.stop();
    told = [];
    await offered();
    answers.set(path("accept"), refusal("offer_gone"));
    answers.set("GET /api/requests/r1", read);
    const said = mechanic.accept("o1");
    await until("the accept", () => heard("accept").length === 1);
    visits.at(-1)?.line.close(1011);
    assert.equal((await said).outcome, outcome);
  }
});

test("an accept that was never sent before is refused without another look", async () => {
  await offered();
  visits.at(-1)?.line.close(1011);
  await until("the loss", () => mechanic.state === "reconnecting");
  answers.set(path("accept"), refusal("already_in_session"));
  const said = await mechanic.accept("o1");
  assert.deepEqual(said, { outcome: "refused", code: "already_in_session", message: "It is already_in_session." });
  assert.equal(asked.length, 1);
  assert.equal(mechanic.offers.length, 1, "it is still open, for after the session");
});

test("a server that does not know itself is asked again", async () => {
  await offered();
  answers.set(path("accept"), [200, { request: mine }]);
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  say({ type: "error", code: "unavailable", message: "Please try again.", ref: "o1" });
  assert.equal((await outcome).outcome, "accepted");
  assert.deepEqual(
    messages.filter(({ type }) => type === "error"),
    [],
  );
});

test("after half a minute the app is told that nobody knows, and what was held back with it", async () => {
  await offered();
  answers.set(path("accept"), "held");
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" }, { type: "heartbeat_ack", server_time: "" });
  say({ type: "error", code: "unavailable", message: "", ref: "o1" });
  await until("the question", () => calls(path("accept")) === 1);
  assert.equal(ofOffers().length, 1);
  for (let passed_ms = 0; passed_ms < SETTLE_MAX_MS; passed_ms += 1_000) {
    pass(1_000);
    say({ type: "heartbeat_ack", server_time: "" });
  }
  assert.equal((await outcome).outcome, "unknown");
  await until("the withdrawal", () => ofOffers().length === 2);
  assert.deepEqual(ofOffers()[1], ["withdrawn", "o1", "taken", false]);
});

test("a decline is done when the withdrawal comes, or by REST, and never comes back", async () => {
  await offered();
  const outcome = mechanic.decline("o1", "too far");
  await until("the decline", () => heard("decline").length === 1);
  assert.deepEqual(heard("decline")[0], { type: "decline", offer_id: "o1", reason: "too far" });
  assert.equal((/** @type {any} */ (await mechanic.accept("o1"))).code, "answer_pending");
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "declined" });
  assert.deepEqual(await outcome, { outcome: "declined" });

  say({ type: "offer", offer: { ...offer, offer_id: "o2" } });
  await until("the next", () => told.length > 1);
  visits.at(-1)?.line.close(1011);
  await until("the loss", () => mechanic.state === "reconnecting");
  answers.set("POST /api/offers/o2/decline", [204, null]);
  assert.deepEqual(await mechanic.decline("o2"), { outcome: "declined" });
  assert.deepEqual(asked[0]?.body, { reason: null });
  await until("the message", () => messages.at(-1)?.type === "offer_withdrawn");
  welcome = aMechanicWelcome({ offers: [offer, { ...offer, offer_id: "o2" }] });
  await back(mechanic);
  assert.deepEqual([mechanic.offers, ofOffers().length], [[], 2]);
});

test("whoever stops leaves nobody waiting", async () => {
  await offered();
  const [outcome, duty] = [mechanic.accept("o1"), mechanic.setDuty(false)];
  mechanic.stop();
  const settled = /** @type {[Outcome, boolean]} */ (await Promise.all([outcome, duty]));
  assert.deepEqual([settled[0].outcome, settled[1], timers.size], ["unknown", false, 0]);
});

test("whoever stops amid a message is told nothing more of it, and knows nothing of it after a later start", async () => {
  welcome = aMechanicWelcome({ offers: [offer, anOffer({ offer_id: "o2", request_id: "r2" })], request: mine });
  /** @type {string[]} */
  const calls = [];
  const hasty = new MechanicClient({ base }, {
    offer({ offer_id }, is_new) {
      calls.push(`${offer_id} ${is_new}`);
      hasty.stop();
    },
    request: ({ id }) => calls.push(id),
  });
  hasty.start();
  await until("the first offer", () => calls.length > 0);
  assert.deepEqual([calls, hasty.offers, hasty.state], [["o1 true"], [], "closed"]);
  hasty.start();
  await until("the same offer", () => calls.length > 1);
  assert.deepEqual(calls, ["o1 true", "o1 true"]);
});

// ---- duty and requests --------------------------------------------------------------------------------------------

test("a change of duty is answered, said again where the line broke before, and given up after ten seconds", async () => {
  await live(mechanic);
  const first = mechanic.setDuty(false);
  await until("the wish", () => heard("set_availability").length === 1);
  say({ type: "availability", on_duty: false, availability: "off_duty" });
  assert.equal(await first, true);
  assert.equal(told.at(-1)?.[0], "availability");

  const second = mechanic.setDuty(false);
  welcome = aMechanicWelcome({ on_duty: true });
  await reconnected(mechanic);
  await until("the wish again", () => heard("set_availability").length === 1);
  say({ type: "availability", on_duty: false, availability: "off_duty" });
  assert.equal(await second, true);

  const third = mechanic.setDuty(true);
  pass(10_000);
  assert.equal(await third, false);
});

test("a request is told in each version once, and one that a welcome leaves out is asked about", async () => {
  welcome = aMechanicWelcome({ request: mine });
  await live(mechanic);
  say({ type: "request_update", request: { ...mine, version: 1 } }, { type: "request_update", request: mine });
  say({ type: "request_update", request: { ...mine, version: 3, status: "in_progress" } });
  await until("the news", () => told.length === 2);
  assert.deepEqual(
    told.map(([name, request]) => [name, request.version]),
    [
      ["request", 2],
      ["request", 3],
    ],
  );
  answers.set("GET /api/requests/r1", refusal("not_found", 404));
  welcome = aMechanicWelcome();
  await reconnected(mechanic);
  await until("the answer", () => told.length === 3);
  assert.deepEqual(told[2], ["requestLost", "r1"]);
});

// ---- the customer -------------------------------------------------------------------------------------------------

const many = Array.from({ length: 120 }, (_, number) => `m${number}`);

test("whom a customer watches is kept, and said anew after each reconnect, a hundred at a time", async () => {
  welcome = aCustomerWelcome();
  customer.watch(["m0", "m1"]);
  await live(customer);
  customer.watch(many);
  customer.watch(["m1"]);
  customer.unwatch(["m1", "never"]);
  await until("the last word", () => heard("unwatch").length === 1);
  assert.deepEqual(
    heard("watch").map(({ mechanic_ids }) => mechanic_ids.length),
    [2, 100, 18],
  );
  assert.deepEqual(heard("unwatch")[0].mechanic_ids, ["m1"]);
  await reconnected(customer);
  await until("all of them", () => heard("watch").length === 2);
  assert.deepEqual(
    heard("watch").flatMap(({ mechanic_ids }) => mechanic_ids).sort(),
    many.filter((id) => id !== "m1").sort(),
  );
});

test("whoever was signed out and starts again knows what they knew, and watches whom they watched", async () => {
  welcome = aCustomerWelcome();
  customer.watch(["m1"]);
  await live(customer);
  visits.at(-1)?.line.close(4401);
  await until("signed out", () => customer.state === "closed");
  await live(customer);
  await until("the watch", () => visits.length === 2 && heard("watch").length === 1);
  customer.stop();
  assert.equal(customer.watched.size, 0, "whoever stops for good leaves nothing to the next");
});

test("of a watched mechanic only what is news is told, alone or among many", async () => {
  welcome = aCustomerWelcome();
  customer.watch(["m1", "m2"]);
  await live(customer);
  const newer = aStatus({ version: 2 });
  say(
    { type: "statuses", statuses: [aStatus(), aStatus({ mechanic_id: "m2" }), aStatus({ mechanic_id: "m3" })] },
    { type: "status", ...newer },
    { type: "status", ...aStatus() },
    { type: "favorite_prompt", request_id: "r1", mechanic: { id: "m1", name: "Mike's Garage" } },
  );
  await until("the last", () => told.at(-1)?.[0] === "favoritePrompt");
  assert.deepEqual(
    told.map(([name, about]) => [name, about.mechanic_id, about.version]),
    [
      ["status", "m1", 1],
      ["status", "m2", 1],
      ["status", "m1", 2],
      ["favoritePrompt", undefined, undefined],
    ],
  );
});

// ---- where sockets do not get through -----------------------------------------------------------------------------

/** @param {MechanicClient | CustomerClient} client */
async function polling(client) {
  opens = false;
  client.start();
  for (let tries = 0; client.state !== "polling"; tries += 1) {
    assert.ok(tries < 100, "never polled");
    pass(500);
    await sleep(5);
  }
}

test("by polling a mechanic hears of offers once, accepts by REST, and is not shown again what they have taken", async () => {
  answers.set("GET /api/offers", [200, { offers: [offer] }]);
  answers.set("GET /api/requests?limit=10", [200, { requests: [], next_cursor: null }]);
  await polling(mechanic);
  const before = calls("GET /api/offers");
  pass(4_000);
  await until("another poll", () => calls("GET /api/offers") > before && messages.length > 1);
  assert.deepEqual(ofOffers(), [["offer", "o1", true]]);
  answers.set(path("accept"), [200, { request: mine }]);
  answers.set("GET /api/requests?limit=10", [200, { requests: [mine], next_cursor: null }]);
  const at = calls("GET /api/offers");
  assert.equal((await mechanic.accept("o1")).outcome, "accepted");
  await until("the poll that follows", () => calls("GET /api/offers") > at && messages.at(-1)?.type === "polled");
  assert.deepEqual([ofOffers(), mechanic.offers], [[["offer", "o1", true]], []]);
});

test("by polling a customer hears of their requests and of whom they watch, as of news only", async () => {
  customer.watch(many);
  answers.set("GET /api/requests?limit=10", [200, { requests: [aRequest()], next_cursor: null }]);
  for (const ids of [many.slice(0, 100), many.slice(100)]) {
    answers.set(`GET /api/mechanics/status?ids=${ids.join(",")}`, [200, {
      statuses: [aStatus({ mechanic_id: ids[0] ?? "" })],
    }]);
  }
  await polling(customer);
  const before = messages.length;
  pass(4_000);
  await until("another poll", () => messages.length > before);
  assert.deepEqual(
    told.map(([name, about]) => [name, about.id ?? about.mechanic_id]),
    [
      ["request", "r1"],
      ["status", "m0"],
      ["status", "m100"],
    ],
  );
});

test("outside of a browser it has to be said where the server is", () => {
  assert.throws(() => new CustomerClient(), /base/);
});
