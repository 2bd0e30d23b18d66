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
/** What came by REST, and whose it said that it is. @type {{call: string, body: any, account: string | null}[]} */
let asked = [];
/** @type {any} */
let welcome = aMechanicWelcome();
/** "held": until it is released; then as is said by then. @type {Map<string, [status: number, body: any, retry_after?: string] | "held">} */
let answers = new Map();
/** @type {(() => void)[]} */
const held = [];
const release = () => held.splice(0).forEach((one) => one());
let opens = true;

const { Deno } = /** @type {any} */ (globalThis);
const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (/** @type {Request} */ request) => {
  const { pathname, search } = new URL(request.url);
  if (pathname.startsWith("/api/")) {
    const call = `${request.method} ${pathname}${search}`;
    const text = await request.text();
    asked.push({ call, body: text ? JSON.parse(text) : null, account: request.headers.get("pitlane-account") });
    if (answers.get(call) === "held") await new Promise((release) => held.push(() => release(undefined)));
    const answer = answers.get(call) ?? [500, { code: "unexpected", detail: `Nobody expects ${call}.` }];
    const [status, body, retry_after] = answer === "held" ? [503, null] : answer;
    const type = status < 400 ? "application/json" : "application/problem+json";
    const headers = { "content-type": type, ...(retry_after ? { "retry-after": retry_after } : {}) };
    const is_empty = body === null && status < 400;
    return new Response(is_empty ? null : JSON.stringify(body), { status, headers });
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
  release();
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
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" });
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" }, { type: "offer", offer });
  await until("the return", () => ofOffers().length === 3);
  await reconnected(mechanic);
  await until("the welcome that leaves it out", () => ofOffers().length === 4);
  assert.deepEqual(ofOffers(), [
    ["offer", "o1", true],
    ["withdrawn", "o1", "taken", false],
    ["offer", "o1", false],
    ["withdrawn", "o1", null, false],
  ]);
});

test("an offer that is gone because its kind was switched off comes back when the kind is switched on again", async () => {
  await offered();
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "declined" }, { type: "offer", offer });
  await until("the return", () => ofOffers().length === 3);
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  say({ type: "offer_withdrawn", offer_id: "o1", reason: "declined" });
  say({ type: "error", code: "offer_gone", message: "You have switched off sessions of this kind.", ref: "o1" });
  assert.equal((await outcome).outcome, "refused");
  say({ type: "offer", offer });
  await until("the next return", () => ofOffers().length === 4);
  assert.deepEqual(ofOffers(), [
    ["offer", "o1", true],
    ["withdrawn", "o1", "declined", false],
    ["offer", "o1", false],
    ["offer", "o1", false],
  ]);
});

test("what was answered on another device does not come back", async () => {
  for (const reason of ["taken", "declined"]) {
    mechanic.stop();
    told = [];
    await offered();
    say({ type: "offer_withdrawn", offer_id: "o1", reason, by_you: true }, { type: "offer", offer });
    say({ type: "availability", on_duty: true, availability: "available" });
    await until("what came after", () => told.at(-1)?.[0] === "availability");
    assert.deepEqual(ofOffers(), [["offer", "o1", true], ["withdrawn", "o1", reason, true]]);
  }
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

const broadcast = anOffer({ offer_id: "o2", request_id: "r1", kind: "broadcast" });
const others = anOffer({ offer_id: "o3", request_id: "r9", kind: "broadcast" });

/** After the priority window has ended: the old card, the broadcast's, and one of another request. */
async function offeredTwice() {
  await offered();
  say({ type: "offer", offer: broadcast }, { type: "offer", offer: others });
  await until("all of them", () => mechanic.offers.length === 3);
  told = [];
}

test("a late accept of the priority offer takes the broadcast's card, too, for good", async () => {
  await offeredTwice();
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  say({ type: "offer_accepted", offer_id: "o1", request: mine });
  assert.equal((await outcome).outcome, "accepted");
  await until("the request", () => told.some(([name]) => name === "request"));
  assert.deepEqual(ofOffers(), [["withdrawn", "o2", "taken", true]]);
  assert.deepEqual(mechanic.offers.map(({ offer_id }) => offer_id), ["o3"]);
  say({ type: "offer_withdrawn", offer_id: "o2", reason: "taken", by_you: true }, { type: "offer", offer: broadcast });
  say({ type: "availability", on_duty: true, availability: "busy" });
  await until("what came after", () => told.at(-1)?.[0] === "availability");
  assert.equal(ofOffers().length, 1);
});

test("whoever accepts both cards of a request has it by either, and by REST as well", async () => {
  await offeredTwice();
  const outcomes = [mechanic.accept("o1"), mechanic.accept("o2")];
  await until("both", () => heard("accept").length === 2);
  say({ type: "offer_accepted", offer_id: "o1", request: mine });
  assert.deepEqual(await Promise.all(outcomes), Array(2).fill({ outcome: "accepted", request: mine }));

  mechanic.stop();
  await offeredTwice();
  answers.set(path("accept"), [200, { request: mine }]);
  const outcome = mechanic.accept("o1");
  pass(SOCKET_TIMEOUT_MS);
  assert.equal((await outcome).outcome, "accepted");
  await until("the withdrawal", () => ofOffers().length === 1);
  assert.deepEqual(ofOffers(), [["withdrawn", "o2", "taken", true]]);
});

test("a session that was accepted elsewhere takes all its cards, somebody else's takes none", async () => {
  await offeredTwice();
  say({ type: "request_update", request: { ...mine, assigned_mechanic: { id: "m2", name: "Sarah" } } });
  say({ type: "request_update", request: { ...mine, version: 3 } });
  await until("both", () => told.filter(([name]) => name === "request").length === 2);
  assert.deepEqual(told.map(([name, about]) => about.offer_id ?? `${name} ${about.version}`), ["request 2", "o1", "o2", "request 3"]);
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
  assert.deepEqual(told.at(-1), ["request", mine, null]);
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

// What the socket says first may be about the try that came second: it must not hide that the other one has won.
const over = aRequest({ ...mine, version: 4, status: "completed" });

/** An accept that nobody answered within half a minute. */
async function unanswered() {
  await offered();
  answers.set(path("accept"), "held");
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  for (let passed_ms = 0; passed_ms < SETTLE_MAX_MS; passed_ms += 1_000) {
    pass(1_000);
    say({ type: "heartbeat_ack", server_time: "" });
    await sleep(1);
  }
  assert.equal((await outcome).outcome, "unknown");
  release();
  asked = [];
}

test("an accept that was never answered is not called lost because the next one is refused over the socket", async () => {
  for (
    const [read, outcome] of /** @type {[[number, any], string][]} */ ([
      [[200, over], "accepted"],
      [refusal("not_found", 404), "refused"],
    ])
  ) {
    mechanic.stop();
    told = [];
    await unanswered();
    // It has left the table meanwhile, as an offer does that somebody has.
    say({ type: "offer_withdrawn", offer_id: "o1", reason: "taken" });
    await until("the withdrawal", () => mechanic.offers.length === 0);
    answers.set(path("accept"), refusal("offer_gone"));
    answers.set("GET /api/requests/r1", read);
    const said = mechanic.accept("o1");
    await until("the next accept", () => heard("accept").length === 2);
    say({ type: "error", code: "offer_gone", message: "It is gone.", ref: "o1" });
    assert.equal((await said).outcome, outcome);
    assert.deepEqual(told.filter(([name]) => name === "error"), []);

    const again = mechanic.accept("o1");
    await until("one more", () => heard("accept").length === 3);
    const before = asked.length;
    say({ type: "error", code: "offer_gone", message: "It is gone.", ref: "o1" });
    assert.equal((await again).outcome, "refused");
    assert.equal(asked.length, before, "whose it is has been found out");
  }
});

test("what the socket says while REST is asked is not the end of an accept", async () => {
  await offered();
  answers.set(path("accept"), "held");
  const outcome = mechanic.accept("o1");
  pass(SOCKET_TIMEOUT_MS);
  await until("the question", () => calls(path("accept")) === 1);
  say({ type: "error", code: "already_in_session", message: "You have one.", ref: "o1" });
  say({ type: "availability", on_duty: true, availability: "busy" });
  await until("what came after", () => told.at(-1)?.[0] === "availability");
  answers.set(path("accept"), [200, { request: mine }]);
  release();
  assert.deepEqual(await outcome, { outcome: "accepted", request: mine });
  assert.equal(calls(path("accept")), 1);
});

test("of an accept that was refused only for now, the other try may win before the next one", async () => {
  await offered();
  answers.set(path("accept"), refusal("already_in_session"));
  answers.set("GET /api/requests/r1", refusal("not_found", 404));
  const first = mechanic.accept("o1");
  pass(SOCKET_TIMEOUT_MS);
  assert.deepEqual(await first, {
    outcome: "refused",
    code: "already_in_session",
    message: "It is already_in_session.",
  });
  answers.set(path("accept"), refusal("offer_gone"));
  answers.set("GET /api/requests/r1", [200, over]);
  const second = mechanic.accept("o1");
  await until("the next accept", () => heard("accept").length === 2);
  say({ type: "error", code: "offer_gone", message: "It is gone.", ref: "o1" });
  assert.deepEqual(await second, { outcome: "accepted", request: over });
});

test("an accept that was sent once and refused for now leaves no doubt", async () => {
  await offered();
  for (const count of [1, 2]) {
    const said = mechanic.accept("o1");
    await until("the accept", () => heard("accept").length === count);
    say({ type: "error", code: "already_in_session", message: "You have one.", ref: "o1" });
    assert.deepEqual(await said, { outcome: "refused", code: "already_in_session", message: "You have one." });
  }
  assert.deepEqual(asked, []);
});

test("an answer to an accept that names no request says nothing, and it is asked again", async () => {
  for (const [status, body] of /** @type {[number, any][]} */ ([[200, null], [204, null], [200, {}]])) {
    mechanic.stop();
    [told, asked] = [[], []];
    await offered();
    answers.set(path("accept"), [status, body]);
    const outcome = mechanic.accept("o1");
    await until("the accept", () => heard("accept").length === 1);
    say({ type: "error", code: "unavailable", message: "", ref: "o1" });
    waits.length = 0;
    await until("the wait", () => waits.includes(250));
    answers.set(path("accept"), [200, { request: mine }]);
    pass(250);
    assert.deepEqual(await outcome, { outcome: "accepted", request: mine });
  }
});

test("a server that says when to ask again is not asked before, whatever the socket says", async () => {
  await offered();
  const [, unavailable] = refusal("unavailable");
  answers.set(path("accept"), [503, unavailable, "20"]);
  const outcome = mechanic.accept("o1");
  await until("the accept", () => heard("accept").length === 1);
  say({ type: "error", code: "unavailable", message: "", ref: "o1" });
  await until("the wait", () => waits.includes(20_000));
  answers.set(path("accept"), [200, { request: mine }]);
  say({ type: "error", code: "unavailable", message: "", ref: "o1" });
  visits.at(-1)?.line.close(1011);
  await until("the loss", () => mechanic.state === "reconnecting");
  opens = false;
  pass(19_999);
  await sleep(20);
  assert.equal(calls(path("accept")), 1);
  pass(1);
  assert.equal((await outcome).outcome, "accepted");
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

test("a request is told with when what it waits for is over, by the earliest reading", async () => {
  await live(mechanic);
  const start = { expires_at: "2026-11-22T09:35:00.000Z", expires_in_ms: 300_000 };
  const ends = { expires_at: "2026-11-22T10:16:00.000Z", expires_in_ms: 2_700_000 };
  say({ type: "request_update", request: { ...mine, start } });
  await until("the first", () => told.length === 1);
  const first_ms = told[0]?.[2];
  assert.ok(Math.abs(first_ms - performance.now() - 300_000) < 1_000);
  // Held up for a minute on its way.
  say({ type: "request_update", request: { ...mine, version: 3, start: { ...start, expires_in_ms: 360_000 } } });
  say({ type: "request_update", request: { ...mine, version: 4, status: "in_progress", ends } });
  say({ type: "request_update", request: { ...mine, version: 5, status: "completed" } });
  await until("the others", () => told.length === 4);
  assert.equal(told[1]?.[2], first_ms);
  assert.ok(told[2]?.[2] > first_ms + 2_000_000);
  assert.equal(told[3]?.[2], null);
});

test("what is done with a request is told like any change, and a refusal says why", async () => {
  welcome = aMechanicWelcome({ request: mine });
  await live(mechanic);
  const begun = { ...mine, version: 3, status: /** @type {const} */ ("in_progress") };
  answers.set("POST /api/requests/r1/start", [200, { request: begun }]);
  assert.deepEqual(await mechanic.act("r1", "start"), begun);
  assert.deepEqual(told.at(-1), ["request", begun, null]);
  answers.set("POST /api/requests/r1/release", refusal("wrong_state"));
  await assert.rejects(mechanic.act("r1", "release"), { code: "wrong_state", mayRetry: false });
  welcome = aCustomerWelcome({ requests: [begun] });
  await live(customer);
  answers.set("POST /api/requests/r1/report", [200, { request: { ...begun, version: 5, status: "completed" } }]);
  await customer.act("r1", "report", { reason: "nobody came" });
  assert.deepEqual(asked.at(-1)?.body, { reason: "nobody came" });
  answers.set("POST /api/requests/r1/find-another", refusal("wrong_state"));
  await assert.rejects(customer.act("r1", "find-another", { mechanic_id: "m1" }), { code: "wrong_state" });
  assert.deepEqual(asked.at(-1)?.body, { mechanic_id: "m1" });
  // What only a proxy says may be said again.
  answers.set("POST /api/requests/r1/complete", [200, {}]);
  await assert.rejects(customer.act("r1", "complete"), { code: "unreadable", mayRetry: true });
});

test("what was asked for one account is not told to the next", async () => {
  welcome = aMechanicWelcome({ request: mine });
  for (const answer of /** @type {[number, any][]} */ ([
    [200, { ...mine, version: 3, status: "completed" }],
    refusal("not_found", 404),
  ])) {
    told = [];
    answers.set("GET /api/requests/r1", "held");
    welcome = aMechanicWelcome({ request: mine });
    await live(mechanic);
    welcome = aMechanicWelcome();
    await reconnected(mechanic);
    await until("the question", () => held.length === 1);
    mechanic.stop();
    // The next one has a session of the same id: only so can anything be lost to them.
    welcome = aMechanicWelcome({ request: mine });
    await live(mechanic);
    answers.set("GET /api/requests/r1", answer);
    release();
    await sleep(30);
    assert.deepEqual(
      told.map(([name, about]) => [name, about.version]),
      [["request", 2], ["request", 2]],
    );
    mechanic.stop();
  }
});

/** The cookie is somebody else's by now: the next line is theirs. @param {MechanicClient | CustomerClient} client */
async function exchanged(client) {
  visits.at(-1)?.line.close(1011);
  await until("the loss", () => client.state === "reconnecting");
  const before = visits.length;
  pass(500);
  await until("the next line, and its end", () => visits.length > before && client.state === "closed");
}

test("a line that is somebody else's is none: nothing of it is told, and no answer goes out in their name", async () => {
  await offered();
  welcome = aMechanicWelcome({ mechanic_id: "m2", offers: [{ ...offer, offer_id: "o2" }], request: mine });
  const before = messages.length;
  await exchanged(mechanic);
  assert.deepEqual(told.map(([name]) => name), ["offer", "signedOut"]);
  assert.deepEqual([messages.length, heard("offer_ack")], [before, []]);

  answers.set(path("accept"), refusal("unauthenticated", 401));
  answers.set("GET /api/requests/r1", refusal("unauthenticated", 401));
  await mechanic.accept("o1");
  assert.deepEqual(asked[0]?.account, "m1", "so that the server can tell that the cookie is not theirs");

  mechanic.stop();
  await live(mechanic);
  assert.deepEqual(mechanic.offers.map(({ offer_id }) => offer_id), ["o2"], "whoever stops makes room for the next");
});

test("whose a client is may be said before the first welcome, and holds for what is polled", async () => {
  welcome = aCustomerWelcome({ account_id: "c2" });
  customer.start("c1");
  await until("its end", () => visits.length === 1 && customer.state === "closed");
  assert.deepEqual(messages, []);
  customer.stop();

  opens = false;
  customer.start("c1");
  for (let tries = 0; asked.length === 0; tries += 1) {
    assert.ok(tries < 100, "never polled");
    pass(500);
    await sleep(5);
  }
  assert.deepEqual([...new Set(asked.map(({ account }) => account))], ["c1"]);
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

test("whoever is no mechanic is not watched again", async () => {
  welcome = aCustomerWelcome();
  customer.watch(["m1", "m2", "gone"]);
  await live(customer);
  say({ type: "error", code: "mechanic_not_found", message: "There is no such mechanic.", ref: "gone" });
  say({ type: "error", code: "invalid_message", message: "No.", ref: "m2" });
  await until("both errors", () => told.length === 2);
  assert.deepEqual([...customer.watched], ["m1", "m2"]);
  await reconnected(customer);
  await until("the watch", () => heard("watch").length === 1);
  assert.deepEqual(heard("watch")[0].mechanic_ids, ["m1", "m2"]);
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
  answers.set("GET /api/requests?limit=20", [200, { requests: [], next_cursor: null }]);
  await polling(mechanic);
  const before = calls("GET /api/offers");
  pass(4_000);
  await until("another poll", () => calls("GET /api/offers") > before && messages.length > 1);
  assert.deepEqual(ofOffers(), [["offer", "o1", true]]);
  answers.set(path("accept"), [200, { request: mine }]);
  answers.set("GET /api/requests?limit=20", [200, { requests: [mine], next_cursor: null }]);
  const at = calls("GET /api/offers");
  assert.equal((await mechanic.accept("o1")).outcome, "accepted");
  await until("the poll that follows", () => calls("GET /api/offers") > at && messages.at(-1)?.type === "polled");
  assert.deepEqual([ofOffers(), mechanic.offers], [[["offer", "o1", true]], []]);
});

test("by polling a customer hears of their requests and of whom they watch, as of news only", async () => {
  customer.watch(many);
  answers.set("GET /api/requests?limit=20", [200, { requests: [aRequest()], next_cursor: null }]);
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
