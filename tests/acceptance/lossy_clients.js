/**
 * Several mechanics and a customer behind a bad network, each an app built on Pitlane's client. What the apps are told is
 * written to standard output, a JSON object per line; a line on standard input ends it.
 *
 *     deno run --allow-net=127.0.0.1 lossy_clients.js '{"seed": 7, "lossy": …, "direct": …, "customer": …, "mechanics": …}'
 *
 * `lossy` and `direct` are two addresses of one server. Accounts are `{id, token}`.
 */

import { CustomerClient, MechanicClient, PitlaneError, Rest } from "../../clients/javascript/pitlane.js";
import { Chance } from "../pages/chance.js";

const { Deno } = /** @type {any} */ (globalThis);
/** @type {{seed: number, lossy: string, direct: string, customer: Account, mechanics: Account[]}} */
const { seed, lossy, direct, customer, mechanics } = JSON.parse(Deno.args[0]);
/** @typedef {{id: string, token: string}} Account */

const chance = new Chance(seed);
Math.random = () => chance.share();

const ACCEPTS = 0.8;
const THINKS_MAX_MS = 400;
const SETTLED_MS = 200;
let running = true;

/**
 * @param {string} who
 * @param {string} what
 * @param {Record<string, unknown>} [more]
 */
const tell = (who, what, more = {}) => console.log(JSON.stringify({ at_ms: Math.round(performance.now()), who, what, ...more }));
/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// How often each handshake was tried, which only the sockets themselves know.
globalThis.WebSocket = class extends WebSocket {
  /** @param {string | URL} url */
  constructor(url) {
    super(url);
    tell("network", "handshake");
  }
};

/**
 * On a good line: the session itself is not what is tried here.
 * @param {Account} account
 * @param {string} request_id
 */
async function serve({ id, token }, request_id) {
  const rest = new Rest({ base: direct, token });
  for (const action of ["start", "complete"]) {
    try {
      await rest.call("POST", `/api/requests/${request_id}/${action}`);
    } catch (error) {
      tell(id, "not_served", { request_id, code: error instanceof PitlaneError ? error.code : String(error) });
    }
  }
}

/** @param {Account} account */
function aMechanic(account) {
  const { id, token } = account;
  /** Taken by an answer that came home, or by one that nobody knew of: both are served. @type {Set<string>} */
  const sessions = new Set();
  /** @param {string} request_id */
  const begin = (request_id) => {
    if (sessions.has(request_id)) return;
    sessions.add(request_id);
    void serve(account, request_id);
  };
  const client = new MechanicClient(
    { base: lossy, token },
    {
      state: (state) => tell(id, "state", { state }),
      offer(offer, is_new) {
        tell(id, "offer", { offer_id: offer.offer_id, request_id: offer.request_id, kind: offer.kind, is_new });
        void consider(offer.offer_id);
      },
      withdrawn: (offer, reason) => tell(id, "withdrawn", { offer_id: offer.offer_id, reason }),
      request(request) {
        tell(id, "request", { request_id: request.id, status: request.status, version: request.version });
        if (request.status === "accepted") begin(request.id);
      },
      error: ({ code, ref }) => tell(id, "error", { code, ref }),
      signedOut: () => tell(id, "signed_out"),
    },
  );
  /** @param {string} offer_id */
  async function consider(offer_id) {
    client.seen(offer_id);
    const answer = chance.share() < ACCEPTS ? "accept" : "decline";
    for (;;) {
      await sleep(chance.share() * THINKS_MAX_MS);
      if (!running || !client.offers.some((offer) => offer.offer_id === offer_id)) return;
      tell(id, "answers", { offer_id, answer });
      const said = await client[answer](offer_id);
      const { request, ...outcome } = { request: null, ...said };
      tell(id, "outcome", { offer_id, answer, ...outcome, request_id: request?.id });
      // After the session that is in the way, or once somebody can be reached, it is tried again.
      const again = said.outcome === "unknown" || (said.outcome === "refused" && said.code === "already_in_session");
      if (!again) return;
      await sleep(SETTLED_MS);
    }
  }
  client.start();
  return client;
}

const watching = new CustomerClient(
  { base: lossy, token: customer.token },
  {
    state: (state) => tell(customer.id, "state", { state }),
    request: ({ id, status, version }) => tell(customer.id, "request", { request_id: id, status, version }),
    status: ({ mechanic_id, version, availability }) => tell(customer.id, "status", { mechanic_id, version, availability }),
    error: ({ code, ref }) => tell(customer.id, "error", { code, ref }),
    signedOut: () => tell(customer.id, "signed_out"),
  },
);
watching.watch(mechanics.map(({ id }) => id));
watching.start();
const clients = mechanics.map(aMechanic);

await Deno.stdin.read(new Uint8Array(1));
running = false;
[watching, ...clients].forEach((client) => client.stop());
Deno.exit(0);
