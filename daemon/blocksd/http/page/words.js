// Turns numbers, times, labels and kinds of changes into words.

const SECONDS = [
  ["year", 31536000],
  ["month", 2592000],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** Return a `<time>`: "3 minutes ago", with the exact time when pointed at. */
export function ago(at) {
  const made = document.createElement("time");
  const date = new Date(at);
  if (!at || Number.isNaN(date.getTime())) return made;
  made.dateTime = at;
  made.title = exact.format(date);
  made.textContent = agoText(date);
  return made;
}

function agoText(date) {
  const seconds = (date.getTime() - Date.now()) / 1000;
  const [unit, size] = SECONDS.find(([, one]) => Math.abs(seconds) >= one) ?? [null, 1];
  return unit === null ? "just now" : relative.format(Math.round(seconds / size), unit);
}

setInterval(() => {
  for (const one of document.querySelectorAll("time[datetime]")) one.textContent = agoText(new Date(one.dateTime));
}, 30_000);

/** Return a number with separators: 12,345. */
export const number = (value) => Number(value).toLocaleString("en");

/** Return a count with its noun: "1 agent", "2 agents". */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Return how many characters a text has, counted as blocksd counts them: in code points. */
export function characters(text) {
  let found = text.length;
  for (let place = 0; place < text.length - 1; place += 1) {
    if ((text.charCodeAt(place) & 0xfc00) === 0xd800 && (text.charCodeAt(place + 1) & 0xfc00) === 0xdc00) {
      found -= 1;
      place += 1;
    }
  }
  return found;
}

/** Return who made a change: an operator's name, if there is one. */
export const authorOf = ({ author, by }) => (by ? `${by} (${author})` : author);

const MIRROR = { level: "in sync", away: "unreachable" };

/** Return the state of the mirror in words. */
export const mirrorWord = (state) => MIRROR[state] ?? state;

/** Return a duration: "3 d 4 h", "12 min". */
export function duration(seconds) {
  const parts = [
    ["d", Math.floor(seconds / 86400)],
    ["h", Math.floor(seconds / 3600) % 24],
    ["min", Math.floor(seconds / 60) % 60],
    ["s", Math.floor(seconds) % 60],
  ];
  const first = parts.findIndex(([, value]) => value > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([, value]) => value)
    .map(([unit, value]) => `${value} ${unit}`)
    .join(" ");
}

/** Return tags with commas between them; one that a comma would part, or that quotes would change, is in quotes. */
export const tagsText = (tags) => tags.map((tag) => (/[,"]|^\s|\s$/.test(tag) ? JSON.stringify(tag) : tag)).join(", ");

/** Return the tags of such a text. */
export function tagsOf(text) {
  const parts = text.match(/\s*"(?:[^"\\]|\\.)*"\s*(?=,|$)|[^,]+/g) ?? [];
  return parts.map((part) => (part.trim().startsWith('"') ? quoted(part.trim()) : part.trim())).filter(Boolean);
}

function quoted(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Return a message as a sentence: with a capital, unless it begins with a command, and a stop at its end. */
export function sentence(message) {
  const begun = /^[a-z](?!locksd )/.test(message) ? message[0].toUpperCase() + message.slice(1) : message;
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}
