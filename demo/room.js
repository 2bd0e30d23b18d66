/** The demo's room: says every second that this side is here, and shows whether the other one is. */

/**
 * @typedef {object} Told
 * @property {"waiting" | "accepted" | "in_progress" | "over"} stage
 * @property {"customer" | "mechanic"} role
 * @property {string} you
 * @property {string | null} other `null`: nobody has the request now.
 * @property {boolean} is_other_here
 */

const EVERY_MS = 1000;
const token = new URLSearchParams(location.search).get("token") ?? "";

/** Whom we have seen here: "not yet" and "no longer" are two things. @type {Set<string>} */
const seen = new Set();
let is_asking = false;
let is_closed = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let next;

/** @param {string} id */
function part(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * Only what differs: the same text again would be read out again.
 * @param {string} id
 * @param {string} text
 */
function say(id, text) {
  const node = part(id);
  if (node.textContent !== text) node.textContent = text;
}

/** @param {string} text */
function close(text) {
  is_closed = true;
  part("people").hidden = true;
  document.title = "Session · Pitlane";
  say("stage", text);
}

/** @param {Told} told */
function otherText({ other, is_other_here, stage }) {
  if (other === null) return "Nobody has this request now";
  if (is_other_here) return `${other} has arrived`;
  if (seen.has(other)) return `${other} has left`;
  return stage === "over" ? `${other} did not come` : `${other} has not arrived yet`;
}

/** @param {Told} told */
function stageText({ stage, role, other }) {
  switch (stage) {
    case "waiting":
      return "Another mechanic is being asked. The page that you came from says how it goes.";
    case "accepted":
      return role === "customer"
        ? `The session begins when ${other} presses Start.`
        : "The session begins when you press Start, on the page that you came from.";
    case "in_progress":
      return "The session is in progress.";
    case "over":
      return "This session is over. You can close this tab.";
  }
}

/** @param {Told} told */
function show(told) {
  if (told.other !== null && told.is_other_here) seen.add(told.other);
  const other = otherText(told);
  part("people").hidden = false;
  part("other").classList.toggle("here", told.is_other_here);
  say("you", `You, ${told.you}`);
  say("other-text", other);
  say("stage", stageText(told));
  if (told.other !== null) say("title", `Session with ${told.other}`);
  // Seen also when another tab is in front.
  document.title = `${other} · Pitlane`;
  if (told.stage === "over") is_closed = true;
}

async function ask() {
  if (is_asking || is_closed) return;
  is_asking = true;
  clearTimeout(next);
  try {
    const headers = { Authorization: `Bearer ${token}` };
    const answer = await fetch(`${location.pathname}/here`, { method: "POST", headers });
    if (answer.status === 403) close("This link is no longer good. Press Join on the page of your request again.");
    else if (!answer.ok) say("stage", "The server does not answer just now. Trying again…");
    else {
      const told = await answer.json();
      if (told.stage === "gone") close("This request is no longer yours. You can close this tab.");
      else show(told);
    }
  } catch {
    say("stage", "No connection just now. Trying again…");
  } finally {
    is_asking = false;
    if (!is_closed) next = setTimeout(ask, EVERY_MS);
  }
}

// A browser slows the clocks of tabs that nobody looks at.
document.addEventListener("visibilitychange", ask);
ask();
