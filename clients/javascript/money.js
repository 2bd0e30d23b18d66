/** Amounts of money, as people read them. */

import { DECIMALS, DECIMALS_USUAL, WHOLE } from "./wire.js";

/**
 * "$29.99", "¥1,500", "KWD 9.990". What a browser knows of currencies would not do: of some it counts other decimals than are charged.
 * @param {number} amount  what the server says in members that end in `_cents`: cents, whole yen, thousandths of a dinar
 * @param {string} currency  its code, in any case
 * @param {string} [locale]  whose way of writing; the browser's own if left out
 */
export function money(amount, currency, locale) {
  const code = currency.toLowerCase();
  const decimals = DECIMALS[code] ?? DECIMALS_USUAL;
  const unit = 10 ** decimals;
  const digits = WHOLE.includes(code) && amount % unit === 0 ? 0 : decimals;
  const style = /** @type {const} */ ({ style: "currency", currency });
  const format = new Intl.NumberFormat(locale, { ...style, minimumFractionDigits: digits, maximumFractionDigits: digits });
  return format.format(amount / unit);
}
