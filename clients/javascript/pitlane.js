/**
 * Pitlane's client: for pages, for apps built on the web, for programs in Node (22 or newer) and Deno. No dependency, no build.
 *
 * A client tells what happens by calling the functions that it was given; all of them may be left out, and none is called
 * after `stop()`. Instants (`deadline_ms`, `received_ms`) are on the scale of `performance.now()`, which a wrong or changed
 * clock of the device does not touch. Everything that waits has a bound. `README.md` beside this file shows how to use it;
 * the parts are `connection.js` (a line that stays alive), `offers.js` and `answers.js` (what a mechanic knows and says).
 */

export { backoffMs, pollInMs, thenAfter } from "./backoff.js";
export { ServerClock } from "./clock.js";
export { CustomerClient } from "./customer.js";
export { MechanicClient } from "./mechanic.js";
export { money } from "./money.js";
export { PitlaneError, Rest } from "./rest.js";
export { CLOSE_CODES, WATCH_MAX } from "./wire.js";
