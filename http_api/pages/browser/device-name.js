/** What to call this browser. The page and its worker say the same: a device keeps its name when its address changes. */

/**
 * A person finds it again in the list of devices.
 * @param {string} [agent]  what another browser calls itself; this one's own if it is left out
 */
export function deviceName(agent = navigator.userAgent) {
  const first = (/** @type {[RegExp, string][]} */ names) => names.find(([pattern]) => pattern.test(agent))?.[1];
  const program = first([
    [/Edg/, "Edge"],
    [/SamsungBrowser/, "Samsung Internet"],
    [/OPR/, "Opera"],
    [/Firefox|FxiOS/, "Firefox"],
    [/Chrome|CriOS/, "Chrome"],
    [/Safari/, "Safari"],
  ]);
  const system = first([
    [/iPhone/, "iPhone"],
    [/iPad/, "iPad"],
    [/Android/, "Android"],
    [/Windows/, "Windows"],
    [/CrOS/, "ChromeOS"],
    [/Mac/, "Mac"],
    [/Linux/, "Linux"],
  ]);
  return [program ?? "Browser", system].filter(Boolean).join(" on ");
}
