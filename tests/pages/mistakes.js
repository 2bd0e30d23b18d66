/**
 * What the type check has to find: each line is wrong in the way that is said above it, and the check fails where one is
 * not. Never run.
 */

import { CustomerClient, MechanicClient } from "../../clients/javascript/pitlane.js";
import { makeCheckout } from "../../http_api/pages/browser/api.js";
import { CheckoutKey } from "../../http_api/pages/browser/booking.js";
import { Part } from "../../http_api/pages/browser/elements.js";
import { initialState } from "../../http_api/pages/browser/state.js";
import { reduce } from "../../http_api/pages/browser/store.js";
import { carryOut } from "../../http_api/pages/browser/verbs.js";
import { CLOSE_CODES } from "../../http_api/pages/browser/wire.js";

const nothing = () => {};
const mechanic = new MechanicClient();
const customer = new CustomerClient();

// @ts-expect-error  there is no such message
mechanic.send({ type: "acept", offer_id: "o1" });
// @ts-expect-error  a member is missing
mechanic.send({ type: "accept" });
// @ts-expect-error  a member has another name
mechanic.send({ type: "accept", offer: "o1" });
// @ts-expect-error  a member is of another type
mechanic.send({ type: "set_availability", on_duty: "yes" });
// @ts-expect-error  the message is for the other socket
customer.send({ type: "accept", offer_id: "o1" });
// @ts-expect-error  a member that the message does not have
customer.send({ type: "watch", mechanic_ids: [], for: "ever" });

new CustomerClient(
  {},
  {
    message(message) {
      // @ts-expect-error  no offer comes to a customer
      if (message.type === "offer") nothing();
      // @ts-expect-error  a request has no such member
      if (message.type === "request_update") message.request.state;
    },
    // @ts-expect-error  nobody calls this
    ofer: nothing,
  },
);
// @ts-expect-error  an outcome is waited for
mechanic.accept("o1").outcome;
// @ts-expect-error  a customer takes no offers
customer.accept("o1");

// @ts-expect-error  the body has no such member
makeCheckout({ plan: "p", routing_type: "broadcast", mechanic_id: "m1" }, "key");
// @ts-expect-error  there is no such kind of routing
new CheckoutKey().for({ plan: "p", routing_type: "anybody" });
// @ts-expect-error  a message off the socket says when it was received
reduce(initialState, { type: "heartbeat_ack", server_time: "" });
// @ts-expect-error  a code need not be in the table
CLOSE_CODES[4999].length;

// @ts-expect-error  nobody knows this verb
new Part().say("acept-offer", "o1");
// @ts-expect-error  what the verb is about is missing
new Part().say("accept-offer");
// @ts-expect-error  the verb is about something else
carryOut(document, { "set-duty": (/** @type {string} */ offer_id) => offer_id });
