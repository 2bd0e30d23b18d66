/** The page for no connection: ask the server again, slower and slower, and open the app when it answers. */

const FIRST_MS = 2_000;
const MOST_MS = 30_000;
const PATIENCE_MS = 8_000;

const trying = document.querySelector("#trying");
let wait_ms = FIRST_MS;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Ask once; while there is no answer, later again. */
async function ask() {
  clearTimeout(timer);
  try {
    const answer = await fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.ok) {
      // It is the app's own address that this page is shown at.
      location.reload();
      return;
    }
  } catch (error) {
    console.info("Not yet:", error);
  }
  wait_ms = Math.min(wait_ms * 2, MOST_MS);
  timer = setTimeout(ask, wait_ms * (0.5 + Math.random() / 2));
}

/** Somebody asks for it, or the browser has noticed something: no reason to wait. */
async function askNow() {
  if (trying) trying.textContent = "Trying…";
  wait_ms = FIRST_MS;
  await ask();
  if (trying) trying.textContent = "Still no connection. The app opens by itself as soon as there is one.";
}

document.querySelector("#again")?.addEventListener("click", () => void askNow());
window.addEventListener("online", () => void askNow());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && void askNow());
timer = setTimeout(ask, wait_ms);

export {};
