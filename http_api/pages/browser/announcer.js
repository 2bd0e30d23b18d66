/** One polite live region for the whole page (regions made on the fly are often not read out), and its visible sister. */

const SHOWN_MS = 6_000;
/** Long enough to be picked up, short enough not to be found again by somebody reading through the page. */
const SAID_MS = 1_000;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let saidTimer;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/**
 * Have assistive technology say something when it next pauses.
 * @param {string} text
 */
export function announce(text) {
  const region = document.getElementById("announcer");
  if (!region || !text) return;
  region.textContent = text;
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => (region.textContent = ""), SAID_MS);
}

/**
 * Say it, and show it for a few seconds: for outcomes that have no place of their own on the page.
 * @param {string} text
 */
export function tell(text) {
  announce(text);
  show(text);
}

/**
 * Show it for a few seconds: for what is said together with something else.
 * @param {string} text
 */
export function show(text) {
  const toast = document.getElementById("toast");
  if (!toast) return;
  toast.textContent = text;
  toast.hidden = false;
  letGoOnceSeen();
}

/** What was said while nobody could see the page stays until somebody does. */
function letGoOnceSeen() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const toast = document.getElementById("toast");
    if (!toast) return;
    if (document.visibilityState === "visible") toast.hidden = true;
    else document.addEventListener("visibilitychange", letGoOnceSeen, { once: true });
  }, SHOWN_MS);
}
