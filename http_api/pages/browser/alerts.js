/**
 * Being noticed: a sound made here, vibration, the app's badge, a screen that stays on. Whatever a browser lacks is left out.
 * Sound and vibration need a first touch of the page; browsers ask for that.
 */

/**
 * @import {AlertSettings} from "./alert-settings.js"
 * @import {OfferKind} from "./wire.js"
 */

/** What somebody is to notice: an offer of a kind, that they must start, or that a session is over without their doing. @typedef {OfferKind | "reminder" | "ending"} AlertKind */

/** How often somebody who was asked for by name is called, or who must start, and how long apart. */
const CALLS = 5;
const CALL_EVERY_MS = 6_000;
const GESTURES = /** @type {const} */ (["pointerup", "keydown"]);

/** Tones: when after the start, how high, how long. @type {Record<AlertKind, [at_s: number, hertz: number, length_s: number][]>} */
const TUNES = {
  priority: [
    [0, 660, 0.16],
    [0.18, 880, 0.16],
    [0.36, 1320, 0.34],
    [0.9, 660, 0.16],
    [1.08, 880, 0.16],
    [1.26, 1320, 0.34],
  ],
  broadcast: [
    [0, 740, 0.14],
    [0.17, 988, 0.22],
  ],
  // Level and insistent: nothing new has come, something is waited for.
  reminder: [
    [0, 880, 0.12],
    [0.16, 880, 0.12],
    [0.32, 880, 0.12],
    [0.7, 880, 0.12],
    [0.86, 880, 0.12],
    [1.02, 880, 0.3],
  ],
  // Downwards: it is over.
  ending: [
    [0, 660, 0.16],
    [0.2, 494, 0.3],
  ],
};
/** Milliseconds on and off. @type {Record<AlertKind, number[]>} */
const BUZZES = {
  priority: [250, 120, 250, 120, 500],
  broadcast: [200],
  reminder: [150, 100, 150, 100, 150, 300, 150, 100, 150, 100, 150],
  ending: [400],
};

export class Alerts {
  /** @type {AlertSettings} */
  #settings;
  /** @type {AudioContext | null} */
  #audio = null;
  /** @type {Map<string, ReturnType<typeof setInterval>>} */
  #calls = new Map();
  /** @type {WakeLockSentinel | null} */
  #lock = null;
  #asksForLock = false;
  #on_duty = false;
  #badge = 0;

  /** @param {AlertSettings} settings */
  constructor(settings) {
    this.#settings = settings;
    const touched = () => {
      if (this.#audio === null && "AudioContext" in window) this.#audio = new AudioContext();
      if (this.#audio?.state === "suspended") void this.#audio.resume();
      // Whoever touches the page is here and needs no calling.
      this.hush();
    };
    for (const gesture of GESTURES) document.addEventListener(gesture, touched, { passive: true });
    // The lock ends by itself when the page is hidden.
    document.addEventListener("visibilitychange", () => void this.#keepAwake());
  }

  /** @param {AlertSettings} settings */
  set settings(settings) {
    this.#settings = settings;
    if (!settings.sound && !settings.vibration) this.hush();
    void this.#keepAwake();
  }

  /**
   * Call somebody who was asked for by name, or who must start, and again until they touch the page or it is over.
   * @param {string} id  of the offer, or of the request
   * @param {AlertKind} [kind]
   */
  call(id, kind = "priority") {
    this.sound(kind);
    if (this.#calls.has(id)) return;
    let left = CALLS - 1;
    const timer = setInterval(() => {
      left -= 1;
      if (left <= 0) this.hush(id);
      this.sound(kind);
    }, CALL_EVERY_MS);
    this.#calls.set(id, timer);
  }

  /**
   * Stop calling.
   * @param {string} [about]  id; undefined: for everything
   */
  hush(about) {
    for (const [id, timer] of this.#calls) {
      if (about !== undefined && id !== about) continue;
      clearInterval(timer);
      this.#calls.delete(id);
    }
  }

  /**
   * Once, as for this.
   * @param {AlertKind} kind
   */
  sound(kind) {
    if (this.#settings.sound && this.#audio) {
      // A call on the phone, or a night in the pocket, may have stopped it.
      if (this.#audio.state !== "running") void this.#audio.resume();
      play(this.#audio, TUNES[kind]);
    }
    // Before the first touch a browser refuses, and says so in its console.
    if (this.#settings.vibration && this.#audio) navigator.vibrate?.(BUZZES[kind]);
  }

  /** @param {number} offers  how many are open */
  badge(offers) {
    if (offers === this.#badge || !("setAppBadge" in navigator)) return;
    this.#badge = offers;
    const set = offers ? navigator.setAppBadge(offers) : navigator.clearAppBadge();
    set.catch((error) => console.warn("The badge could not be set:", error));
  }

  /** @param {boolean} on_duty */
  set onDuty(on_duty) {
    if (on_duty === this.#on_duty) return;
    this.#on_duty = on_duty;
    void this.#keepAwake();
  }

  async #keepAwake() {
    if (!this.#wantsLock) {
      const lock = this.#lock;
      this.#lock = null;
      await lock?.release();
      return;
    }
    const has_it = this.#lock !== null && !this.#lock.released;
    if (has_it || this.#asksForLock || document.visibilityState !== "visible" || !("wakeLock" in navigator)) return;
    this.#asksForLock = true;
    try {
      this.#lock = await navigator.wakeLock.request("screen");
    } catch (error) {
      // A battery that is nearly empty, or a page that has just been hidden: it is asked for again when it is shown.
      console.info("The screen may go dark:", error);
    } finally {
      this.#asksForLock = false;
    }
    // Switched off, or gone off duty, while the browser was asked.
    if (!this.#wantsLock) await this.#keepAwake();
  }

  get #wantsLock() {
    return this.#settings.awake && this.#on_duty;
  }
}

/**
 * @param {AudioContext} audio
 * @param {[at_s: number, hertz: number, length_s: number][]} tune
 */
function play(audio, tune) {
  for (const [at_s, hertz, length_s] of tune) {
    const begin_s = audio.currentTime + at_s;
    const tone = new OscillatorNode(audio, { type: "triangle", frequency: hertz });
    const loudness = new GainNode(audio, { gain: 0 });
    // Up and down over a few milliseconds: a tone that is cut off clicks.
    loudness.gain.setValueAtTime(0, begin_s);
    loudness.gain.linearRampToValueAtTime(0.6, begin_s + 0.015);
    loudness.gain.setValueAtTime(0.6, begin_s + length_s - 0.04);
    loudness.gain.linearRampToValueAtTime(0, begin_s + length_s);
    tone.connect(loudness).connect(audio.destination);
    tone.start(begin_s);
    tone.stop(begin_s + length_s);
  }
}
