/** The server's key for push, and what a page may know of a subscription. Pure, but for the browser's own digest. */

/**
 * @param {string} text  base64url, as the server gives it
 * @returns {Uint8Array<ArrayBuffer>}  as `pushManager.subscribe` wants it
 */
export function keyBytes(text) {
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/");
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}  base64url without padding
 */
export function base64url(bytes) {
  const base64 = btoa(String.fromCharCode(...bytes));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/**
 * By what the server's list names a subscription: its endpoint is a secret.
 * @param {string} endpoint
 */
export async function endpointHash(endpoint) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(endpoint));
  return base64url(new Uint8Array(digest));
}
