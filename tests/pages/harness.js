/**
 * The test runner's own interface. Not `node:test`: as Deno has it, what throws outside of a test goes unnoticed, and with it
 * every test that comes after.
 */

const { Deno } = /** @type {any} */ (globalThis);

/** @type {(title: string, act: () => void | Promise<void>) => void} */
export const test = Deno.test;
/** @type {(act: () => void | Promise<void>) => void} */
export const beforeEach = Deno.test.beforeEach;
/** @type {(act: () => void | Promise<void>) => void} */
export const afterEach = Deno.test.afterEach;
/** @type {(act: () => void | Promise<void>) => void} */
export const afterAll = Deno.test.afterAll;
