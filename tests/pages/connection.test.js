/**
 * One connection that stays alive, against a real server. The client's own time passes only when a test says so, and a draw
 * is always the middle: nothing here depends on how fast the machine is.
 */

import assert from "node:assert/strict";

import { ServerClock } from "../../clients/javascript/clock.js";
import { Connection } from "../../clients/javascript/connection.js";
import { PitlaneError, Rest } from "../../clients/javascript/rest.js";
import { afterAll, afterEach, beforeEach, test } from "./harness.js";
import { aCustomerWelcome, aRequest } from "./samples.js";
import { pass, sleep, timeBeginsAnew, timers, until, waits } from "./time.js";

/** @import {ConnectionState} from "../../clients/javascript/connection.js" */
/** @import {Token} from "../../clients/javascript/rest.js" */

const BEAT_MS = 10_000;
const WELCOME_TIMEOUT_MS = 10_000;
const PROBE_TIMEOUT_MS = 4_000;
const STABLE_AFTER_MS = 10_000;
const RETRY_AFTER_S = 30;

// ---- the server ---------------------------------------------------------------------------------------------------

/**
 * One connection as the server sees it.
 * @typedef {{path: string, ticket: string | null, heard: string[], line: WebSocket, closed: number | null}} Visit
 */

/** @type {Visit[]} */
let visits = [];
/** What was asked by REST, with the credentials that came along. @type {string[]} */
let asked = [];
const MANNERS = {
  opens: true,
  welcomes: true,
  answers: true,
  knows: true,
  refused: "",
  is_busy: false,
  is_proxy: false,
  polls: "nothing",
};
let manners = MANNERS;

const { Deno } = /** @type {any} */ (globalThis);
const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (/** @type {Request} */ request) => {
  const { pathname: path, searchParams } = new URL(request.url);
  if (path.startsWith("/api/")) {
    asked.push(`${request.method} ${path} ${request.headers.get("authorization")}`);
    if (manners.is_proxy) {
      return new Response("<h1>Sign in to the guest network</h1>", {
        status: 401,
        headers: { "content-type": "text/html" },
      });
    }
    if (manners.is_busy) {
      return new Response(JSON.stringify({ code: "unavailable", detail: "Please try again." }), {
        status: 503,
        headers: { "content-type": "application/problem+json", "retry-after": `${RETRY_AFTER_S}` },
      });
    }
    const knows = manners.knows && request.headers.get("authorization") !== `Bearer ${manners.refused}`;
    const body = knows ? { ticket: `ticket${asked.length}` } : { code: "unauthenticated", detail: "Sign in." };
    const type = knows ? "application/json" : "application/problem+json";
    return new Response(JSON.stringify(body), {
      status: knows ? 200 : 401,
      headers: { "content-type": type },
    });
  }
  /** @type {Visit} */
  const visit = {
    path,
    ticket: searchParams.get("ticket"),
    heard: [],
    line: /** @type {any} */ (null),
    closed: null,
  };
  visits.push(visit);
  if (!manners.opens) return new Response(null, { status: 401 });
  const { socket, response } = Deno.upgradeWebSocket(request);
  visit.line = socket;
  socket.onopen = () => manners.welcomes && socket.send(JSON.stringify(WELCOME));
  socket.onmessage = (/** @type {MessageEvent} */ { data }) => {
    visit.heard.push(data);
    if (manners.answers && data === HEARTBEAT) socket.send('{"type":"heartbeat_ack","server_time":""}');
  };
  socket.onclose = (/** @type {CloseEvent} */ { code }) => (visit.closed = code);
  return response;
});
afterAll(() => server.shutdown());

const WELCOME = aCustomerWelcome({ heartbeat_interval_s: BEAT_MS / 1_000 });
const HEARTBEAT = '{"type":"heartbeat"}';
const NEWER = '{"type":"of_a_newer_server"}';

/** The newest connection. */
const line = () => /** @type {WebSocket} */ (visits.at(-1)?.line);
const beats = () => visits.at(-1)?.heard.filter((text) => text === HEARTBEAT).length;

// ---- the page -----------------------------------------------------------------------------------------------------

const tab = { window: new EventTarget(), document: Object.assign(new EventTarget(), { visibilityState: "visible" }) };
let is_online = true;
Object.assign(globalThis, tab);
Object.defineProperty(navigator, "onLine", { get: () => is_online });

/** @type {ConnectionState[]} */
let states = [];
/** @type {any[]} */
let messages = [];
let signed_out = 0;
let lost = 0;
let polls = 0;
/** @type {Connection<"/ws/customer">} */
let connection;

/** @param {Token} [token] */
function aConnection(token) {
  const base = `http://127.0.0.1:${server.addr.port}/`;
  const clock = new ServerClock();
  return new Connection(
    "/ws/customer",
    { base, clock, rest: new Rest({ base, clock, token }) },
    {
      message: (message) => messages.push(message),
      state: (state) => states.push(state),
      signedOut: () => (signed_out += 1),
      lost: () => (lost += 1),
      async poll() {
        polls += 1;
        if (manners.polls === "nothing") await new Promise(() => {});
        if (manners.polls === "fails") throw new PitlaneError("network", "Nobody is there.");
        if (manners.polls === "knows nobody") {
          throw new PitlaneError("unauthenticated", "Sign in.", { status: 401, is_ours: true });
        }
        if (manners.polls === "is busy") {
          throw new PitlaneError("unavailable", "", { status: 503, is_ours: true, retry_after_s: RETRY_AFTER_S });
        }
        if (manners.polls === "is a proxy") throw new PitlaneError("http_401", "Refused.", { status: 401 });
      },
    },
  );
}

beforeEach(() => {
  timeBeginsAnew();
  [visits, asked, states, messages] = [[], [], [], []];
  [signed_out, lost, polls, is_online] = [0, 0, 0, true];
  manners = { ...MANNERS };
  connection = aConnection();
});
afterEach(() => connection.stop());

/** @param {ConnectionState} state */
const isNow = (state) => until(state, () => states.at(-1) === state);

async function live() {
  connection.start();
  await isNow("live");
}

/**
 * The line is lost; return how long the page is going to wait.
 * @param {number} [code]
 */
async function lostBy(code) {
  line().close(code);
  await isNow("reconnecting");
  return waits.at(-1);
}

/** The wait is over, and the server is there. */
async function back() {
  pass(waits.at(-1) ?? 0);
  await isNow("live");
}

// ---- the dialogue -------------------------------------------------------------------------------------------------

test("the line is up once the server has said welcome, and not before", async () => {
  manners.welcomes = false;
  connection.start();
  await until("a connection", () => line()?.readyState === WebSocket.OPEN);
  assert.equal(visits[0]?.path, "/ws/customer");
  assert.deepEqual([states, connection.send({ type: "watch", mechanic_ids: [] })], [["connecting"], false]);
  line().send(JSON.stringify(WELCOME));
  await isNow("live");
  assert.equal(connection.send({ type: "watch", mechanic_ids: ["m1"] }), true);
  await until("the message", () => visits[0]?.heard.includes('{"type":"watch","mechanic_ids":["m1"]}'));
});

test("messages are told with when they came; what is no message is not", async () => {
  await live();
  const before_ms = performance.now();
  const update = JSON.stringify({ type: "request_update", request: aRequest() });
  for (const text of ["{", "null", "7", "[]", '"text"', "{}", '{"type":1}', NEWER, update]) line().send(text);
  await until("the update", () => messages.length === 3);
  assert.deepEqual(
    messages.map(({ type }) => type),
    ["welcome", "of_a_newer_server", "request_update"],
  );
  assert.ok(messages[2].received_ms >= before_ms && messages[2].received_ms <= performance.now());
});

test("starting twice is starting once", async () => {
  await live();
  connection.start();
  await sleep(20);
  assert.equal(visits.length, 1);
});

test("the first beat falls into the interval, and each next one an interval later", async () => {
  await live();
  pass(BEAT_MS / 2 - 1);
  await sleep(5);
  assert.equal(beats(), 0);
  pass(1);
  for (const count of [1, 2, 3]) {
    await until("an answer", () => messages.length === 1 + count);
    assert.equal(beats(), count);
    pass(BEAT_MS);
  }
  assert.equal(visits.length, 1, "answered beats keep the line");
});

test("without a pace of the server's the client has its own", async () => {
  manners.welcomes = false;
  connection.start();
  await until("a connection", () => line()?.readyState === WebSocket.OPEN);
  line().send('{"type":"welcome"}');
  await isNow("live");
  assert.equal(waits.at(-1), 10_000, "half of twenty seconds");
});

test("a beat that nobody answered until the next one means that the line is dead", async () => {
  manners.answers = false;
  await live();
  pass(BEAT_MS / 2);
  await until("a beat", () => beats() === 1);
  assert.equal(states.at(-1), "live");
  pass(BEAT_MS);
  assert.equal(states.at(-1), "reconnecting");
  await until("the goodbye", () => visits[0]?.closed !== null);
  assert.equal(beats(), 1);
});

test("anything that is heard is a sign of life", async () => {
  manners.answers = false;
  await live();
  pass(BEAT_MS / 2);
  line().send(NEWER);
  await until("the message", () => messages.length === 2);
  pass(BEAT_MS);
  await until("the next beat", () => beats() === 2);
  assert.equal(states.at(-1), "live");
});

test("a server that opens and then says nothing is given up, and not before its time", async () => {
  manners.welcomes = false;
  connection.start();
  await until("a connection", () => line()?.readyState === WebSocket.OPEN);
  tab.window.dispatchEvent(new Event("online"));
  assert.deepEqual(waits, [WELCOME_TIMEOUT_MS], "whoever is connecting already need not hurry");
  pass(WELCOME_TIMEOUT_MS - 1);
  assert.equal(states.at(-1), "connecting");
  pass(1);
  assert.equal(states.at(-1), "reconnecting");
});

test("after a close the client waits as the table says", async () => {
  await live();
  // The middle of 500 · 2⁰, of 2,000 · 2¹, and of the upper half of 15,000 · 2².
  for (const [code, wait_ms] of /** @type {const} */ ([
    [1011, 250],
    [1012, 2_000],
    [1008, 45_000],
  ])) {
    assert.equal(await lostBy(code), wait_ms);
    await back();
  }
});

test("no wait is cut short", async () => {
  await live();
  await lostBy(1011);
  pass(249);
  await sleep(20);
  assert.equal(visits.length, 1);
  pass(1);
  await isNow("live");
  assert.equal(visits.length, 2);
});

test("an expired token ends it: nothing is tried again until somebody has signed in", async () => {
  await live();
  line().close(4401);
  await until("signed out", () => signed_out === 1);
  assert.deepEqual(states, ["connecting", "live", "closed"]);
  assert.equal(timers.size, 0);
});

/** Everything that a try waits for: its welcome, and then the next try. */
const WAITS_OF_A_TRY = 2;

/** @param {number} count  of tries that have failed by now */
const failed = (count) =>
  until("a failure", () => visits.length === count && waits.length === WAITS_OF_A_TRY * count);

test("each failure doubles the wait", async () => {
  manners.opens = false;
  connection.start();
  const seen = [];
  for (let count = 1; count <= 6; count += 1) {
    await failed(count);
    seen.push(waits.at(-1));
    pass(waits.at(-1) ?? 0);
  }
  assert.deepEqual(seen, [250, 500, 1_000, 2_000, 4_000, 8_000]);
  assert.deepEqual(states, ["connecting", "reconnecting"]);
});

test("where a handshake keeps failing it is asked whether anybody is signed in; if nobody is, that ends it", async () => {
  manners.opens = false;
  connection.start();
  await failed(1);
  assert.deepEqual(asked, []);
  pass(waits.at(-1) ?? 0);
  await until("the question", () => asked.length === 1);
  assert.deepEqual(asked, ["GET /api/me null"]);

  connection.stop();
  timeBeginsAnew();
  [visits, states] = [[], []];
  manners.knows = false;
  connection.start();
  await failed(1);
  pass(waits.at(-1) ?? 0);
  await until("signed out", () => signed_out === 1);
  assert.deepEqual([states, timers.size], [["connecting", "reconnecting", "closed"], 0]);
});

test("whoever was welcome does not doubt that they are signed in, and hears each time that a line is lost", async () => {
  await live();
  for (let count = 1; count <= 3; count += 1) {
    await lostBy(1011);
    assert.equal(lost, count);
    await back();
  }
  assert.deepEqual([asked, polls], [[], 0]);
});

test("only a line that has held for a while has earned a fresh start", async () => {
  await live();
  assert.equal(await lostBy(1011), 250);
  await back();
  pass(STABLE_AFTER_MS - 1);
  assert.equal(await lostBy(1011), 500);
  await back();
  pass(STABLE_AFTER_MS);
  assert.equal(await lostBy(1011), 250);
});

test("whoever comes back, or back online, does not sit out a long wait", async () => {
  await live();
  for (const [target, name] of /** @type {[EventTarget, string][]} */ ([
    [tab.window, "online"],
    [tab.window, "pageshow"],
    [tab.document, "visibilitychange"],
  ])) {
    await lostBy(1008);
    target.dispatchEvent(new Event(name));
    assert.equal(waits.at(-1), 250, name);
    await back();
  }
});

test("who hurries and fails waits longer again, but not as long as before", async () => {
  await live();
  for (const wait_ms of [250, 500, 1_000]) {
    assert.equal(await lostBy(1011), wait_ms);
    await back();
  }
  assert.equal(await lostBy(1011), 2_000);
  manners.opens = false;
  tab.window.dispatchEvent(new Event("online"));
  pass(250);
  await until("a failure", () => waits.at(-1) === 500);
});

test("a tab that is being hidden is no reason to hurry", async () => {
  await live();
  await lostBy(1008);
  tab.document.visibilityState = "hidden";
  tab.document.dispatchEvent(new Event("visibilitychange"));
  tab.document.visibilityState = "visible";
  assert.equal(waits.at(-1), 11_250);
});

test("a line that may be dead is asked at once, and given up if it does not answer soon", async () => {
  await live();
  tab.window.dispatchEvent(new Event("online"));
  await until("the answer", () => messages.length === 2);
  assert.equal(beats(), 1, "before its time");
  pass(PROBE_TIMEOUT_MS);
  assert.equal(states.at(-1), "live", "it has answered");

  manners.answers = false;
  tab.window.dispatchEvent(new Event("offline"));
  assert.equal(states.at(-1), "live", "the hint may be wrong");
  pass(PROBE_TIMEOUT_MS);
  assert.equal(states.at(-1), "reconnecting");
});

test("a dead line is given up in time, however often it is asked", async () => {
  await live();
  manners.answers = false;
  for (let asked_ms = 0; asked_ms < PROBE_TIMEOUT_MS; asked_ms += 1_000) {
    assert.equal(states.at(-1), "live");
    tab.window.dispatchEvent(new Event("online"));
    pass(1_000);
  }
  assert.equal(states.at(-1), "reconnecting");
  await until("the goodbye", () => visits[0]?.closed !== null);
  assert.equal(beats(), 1, "the others had nothing to add");
  manners.answers = true;
  await back();
  tab.window.dispatchEvent(new Event("online"));
  await until("the answer", () => beats() === 1 && messages.at(-1)?.type === "heartbeat_ack");
  tab.window.dispatchEvent(new Event("online"));
  await until("the next answer", () => beats() === 2);
});

test("without a network the page says so, where it has heard nothing better", async () => {
  manners.welcomes = false;
  connection.start();
  is_online = false;
  tab.window.dispatchEvent(new Event("offline"));
  assert.equal(states.at(-1), "offline");
  await until("a connection", () => line()?.readyState === WebSocket.OPEN);
  is_online = true;
  line().close(1011);
  await isNow("reconnecting");
});

test("whoever stops says goodbye, is told nothing more, and may start again", async () => {
  await live();
  const [first] = visits;
  connection.stop();
  line().send(NEWER);
  assert.equal(connection.send({ type: "watch", mechanic_ids: [] }), false);
  await until("the goodbye", () => first?.closed === 1000);
  tab.window.dispatchEvent(new Event("online"));
  assert.deepEqual([states, messages.length, timers.size], [["connecting", "live", "closed"], 1, 0]);
  connection.stop();
  assert.equal(states.length, 3, "stopping twice is stopping once");
  await live();
  assert.equal(visits.length, 2);
});

test("whoever stops while waiting does not come back, whatever happens to the tab", async () => {
  await live();
  await lostBy(1011);
  connection.stop();
  for (const name of ["online", "pageshow", "offline"]) tab.window.dispatchEvent(new Event(name));
  tab.document.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual([states.at(-1), timers.size], ["closed", 0]);
});

test("who is sent to sign in and comes back is let in at once; who is sent away again has to wait", async () => {
  await live();
  line().close(4401);
  await until("signed out", () => signed_out === 1);
  await live();
  line().close(4401);
  await until("signed out again", () => signed_out === 2);
  timeBeginsAnew();
  connection.start();
  assert.deepEqual(waits, [4_000]);
  await back();
  pass(STABLE_AFTER_MS);
  line().close(4401);
  await until("signed out once more", () => signed_out === 3);
  await live();
});

// ---- tickets ------------------------------------------------------------------------------------------------------

test("with a token every connection gets a ticket of its own", async () => {
  connection = aConnection("t0ken");
  await live();
  await lostBy(1011);
  await back();
  assert.deepEqual(asked, Array(2).fill("POST /api/ws-ticket Bearer t0ken"));
  assert.deepEqual(
    visits.map(({ ticket }) => ticket),
    ["ticket1", "ticket2"],
  );
});

test("a token that is good for nothing any more ends it before a socket is tried", async () => {
  connection = aConnection("t0ken");
  manners.knows = false;
  connection.start();
  await until("signed out", () => signed_out === 1);
  assert.deepEqual([states, visits, timers.size], [["connecting", "closed"], [], 0]);
});

/** A connection whose tokens are these, in turn; the last for ever. @param {string[]} tokens */
const withTokens = (...tokens) => aConnection(() => (tokens.length > 1 ? tokens.shift() : tokens[0]) ?? "");
const ticketsFor = (/** @type {string[]} */ ...tokens) => tokens.map((token) => `POST /api/ws-ticket Bearer ${token}`);

test("a socket whose token has ended is opened anew with another, each time that it has held for a while", async () => {
  connection = withTokens("one", "two", "three");
  await live();
  for (const count of [1, 2]) {
    pass(STABLE_AFTER_MS);
    assert.equal(await lostBy(4401), 250);
    assert.equal(lost, count, "and with it what was on its way");
    await back();
  }
  assert.deepEqual([asked, signed_out], [ticketsFor("one", "two", "three"), 0]);
});

test("where there is no other token than the one that was refused, that ends it", async () => {
  connection = withTokens("one");
  await live();
  await lostBy(4401);
  pass(250);
  await until("signed out", () => signed_out === 1);
  assert.deepEqual([asked, states.at(-1), timers.size], [ticketsFor("one"), "closed", 0]);
});

test("a fresh token that is refused as well ends it", async () => {
  connection = withTokens("one", "two", "three");
  await live();
  await lostBy(4401);
  await back();
  line().close(4401);
  await until("signed out", () => signed_out === 1);
  assert.deepEqual([asked, states.at(-1)], [ticketsFor("one", "two"), "closed"]);
});

test("a token that is refused a ticket is replaced at once, if there is another, and once", async () => {
  manners.refused = "one";
  connection = withTokens("one", "two");
  await live();
  assert.deepEqual([asked, states], [ticketsFor("one", "two"), ["connecting", "live"]]);
  connection.stop();

  asked = [];
  connection = withTokens("one");
  connection.start();
  await until("signed out", () => signed_out === 1);
  assert.deepEqual(asked, ticketsFor("one"), "the same would be refused again");

  asked = [];
  manners.knows = false;
  connection = withTokens("one", "two", "three");
  connection.start();
  await until("signed out", () => signed_out === 2);
  assert.deepEqual(asked, ticketsFor("one", "two"));
});

test("while no other token can be had just now, it is tried again as after any failure", async () => {
  let is_there = true;
  let token = "one";
  connection = aConnection(() => {
    if (!is_there) throw new Error("The shop is closed.");
    return token;
  });
  await live();
  is_there = false;
  await lostBy(4401);
  pass(250);
  await until("the next wait", () => waits.at(-1) === 500);
  [is_there, token] = [true, "two"];
  await back();
  assert.deepEqual([asked, signed_out], [ticketsFor("one", "two"), 0]);
});

test("a proxy's page in place of a ticket is a failed try, and signs out nobody", async () => {
  connection = aConnection("t0ken");
  manners.is_proxy = true;
  connection.start();
  await isNow("reconnecting");
  manners.is_proxy = false;
  await back();
  assert.equal(signed_out, 0);
});

test("a proxy's page in place of a poll, or of who is here, signs out nobody", async () => {
  manners.is_proxy = true;
  manners.polls = "is a proxy";
  await blocked();
  await until("a poll", () => waits.includes(2 * POLL_MS));
  assert.ok(asked.includes("GET /api/me null"));
  assert.deepEqual([signed_out, states.at(-1)], [0, "reconnecting"]);
});

test("whoever hurries waits all the same until the server lets them try again", async () => {
  connection = aConnection("t0ken");
  manners.is_busy = true;
  connection.start();
  await isNow("reconnecting");
  assert.equal(waits.at(-1), RETRY_AFTER_S * 1_000);
  manners.is_busy = false;
  tab.window.dispatchEvent(new Event("online"));
  pass(RETRY_AFTER_S * 1_000 - 1);
  await sleep(20);
  assert.equal(asked.length, 1);
  pass(1);
  assert.equal(waits.at(-1), 250, "and hurries then");
  await back();
});

test("what has changed by REST is not polled before the server lets it be asked again", async () => {
  manners.polls = "is busy";
  await blocked();
  await until("the wait", () => waits.includes(RETRY_AFTER_S * 1_000));
  connection.pollAgain();
  tab.window.dispatchEvent(new Event("online"));
  pass(RETRY_AFTER_S * 1_000 - 1);
  await sleep(20);
  assert.equal(polls, 1);
  pass(1);
  assert.equal(polls, 2);
});

test("where there is no token just now, it is tried again as after any failure", async () => {
  let is_there = false;
  connection = aConnection(async () => {
    if (!is_there) throw new Error("The shop is closed.");
    return "t0ken";
  });
  connection.start();
  await isNow("reconnecting");
  is_there = true;
  await back();
  assert.deepEqual(asked, ["POST /api/ws-ticket Bearer t0ken"]);
});

test("whoever stops while the ticket is on its way opens no socket", async () => {
  connection = aConnection("t0ken");
  connection.start();
  connection.stop();
  await until("the call or its end", () => asked.length <= 1);
  await sleep(20);
  assert.deepEqual([visits, timers.size], [[], 0]);
});

// ---- where sockets do not get through -----------------------------------------------------------------------------

const POLL_MS = 4_000;

/** Fail `UNWELCOMED_MAX` times, so that polling begins. */
async function blocked() {
  manners.opens = false;
  connection.start();
  for (let count = 1; count <= 3; count += 1) {
    if (count > 1) pass(waits.at(-1) ?? 0);
    await until("a failure", () => visits.length === count && waits.length >= WAITS_OF_A_TRY * count);
  }
}

test("after three tries without a welcome it is polled, and after that the socket is tried but seldom", async () => {
  manners.polls = "works";
  await blocked();
  await isNow("polling");
  assert.deepEqual(states, ["connecting", "reconnecting", "polling"]);
  assert.equal(polls, 1);
  // It gets one more chance soon: what had failed may have been the server, not the socket.
  pass(500);
  await until("one more try", () => visits.length === 4 && waits.at(-1) === 11_250);
  pass(POLL_MS);
  await until("the next poll", () => polls > 1);
  assert.equal(visits.length, 4, "seldom");
  assert.equal(states.at(-1), "polling");
});

test("a socket that gets through again is the end of polling", async () => {
  manners.polls = "works";
  await blocked();
  await isNow("polling");
  manners.opens = true;
  pass(500);
  await isNow("live");
  const before = polls;
  pass(10 * POLL_MS);
  assert.equal(polls, before);
});

test("where REST does not get through either, that is no polling, and the socket is tried as before", async () => {
  manners.polls = "fails";
  await blocked();
  await until("a poll", () => waits.includes(2 * POLL_MS));
  assert.deepEqual(states, ["connecting", "reconnecting"]);
  pass(1_000);
  await until("the next try", () => visits.length === 4 && waits.includes(2_000));
  manners.polls = "works";
  pass(2 * POLL_MS);
  await isNow("polling");
});

test("a poll that is told that nobody is signed in ends it", async () => {
  manners.polls = "knows nobody";
  await blocked();
  await until("signed out", () => signed_out === 1);
  assert.deepEqual([states.at(-1), timers.size], ["closed", 0]);
});

test("what has changed by REST is polled at once", async () => {
  manners.polls = "works";
  await blocked();
  await isNow("polling");
  connection.pollAgain();
  assert.equal(polls, 2);
});
