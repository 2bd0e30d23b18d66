/** What travels between the pages and the server: the client's own words, which `python -m http_api.pages.wire_js` writes. */

export * from "../../../clients/javascript/wire.js";
