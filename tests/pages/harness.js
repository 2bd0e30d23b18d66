/**
 * The test runner's own interface. Not `node:test`: as Deno has it, what throws outside of a test goes unnoticed, and with it
 * every test that comes after.
 */

import assert from "node:assert/strict";

const { Deno } = /** @type {any} */ (globalThis);

/** @type {(title: string, act: () => void | Promise<void>) => void} */
export const test = Deno.test;
/** @type {(act: () => void | Promise<void>) => void} */
export const beforeEach = Deno.test.beforeEach;
/** @type {(act: () => void | Promise<void>) => void} */
export const afterEach = Deno.test.afterEach;
/** @type {(act: () => void | Promise<void>) => void} */
export const afterAll = Deno.test.afterAll;

/**
 * A table: each claim with what is said and what should be.
 * @param {string} title
 * @param {[claim: string, said: unknown, expected: unknown][]} rows
 */
export function says(title, rows) {
  for (const [claim, said, expected] of rows) test(`${title}: ${claim}`, () => assert.deepEqual(said, expected));
}
