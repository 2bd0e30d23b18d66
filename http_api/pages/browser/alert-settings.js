/** What this device may do to be noticed. Kept on the device: a phone in a pocket and a desk want different things. */

const KEY = "pitlane.alerts";

/**
 * @typedef {object} AlertSettings
 * @property {boolean} sound
 * @property {boolean} vibration
 * @property {boolean} awake  the screen stays on while on duty
 */

/** @type {Readonly<AlertSettings>} */
const DEFAULTS = { sound: true, vibration: true, awake: false };

/** @returns {AlertSettings} */
export function readAlertSettings() {
  try {
    return settingsFrom(localStorage.getItem(KEY));
  } catch {
    // A browser that keeps nothing still alerts.
    return { ...DEFAULTS };
  }
}

/** @param {AlertSettings} settings */
export function keepAlertSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch (error) {
    console.warn("The browser keeps no settings; they hold until the page is closed.", error);
  }
}

/**
 * What was kept, as far as it makes sense.
 * @param {string | null} text
 * @returns {AlertSettings}
 */
export function settingsFrom(text) {
  const settings = { ...DEFAULTS };
  /** @type {unknown} */
  let kept = null;
  try {
    kept = JSON.parse(text ?? "null");
  } catch {
    return settings;
  }
  for (const name of /** @type {(keyof AlertSettings)[]} */ (Object.keys(DEFAULTS))) {
    const value = /** @type {Record<string, unknown> | null} */ (kept)?.[name];
    if (typeof value === "boolean") settings[name] = value;
  }
  return settings;
}
