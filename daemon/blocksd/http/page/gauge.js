// Shows how much of its limit a text takes.

import { el } from "./dom.js";
import { number } from "./words.js";

const NEAR = 0.9;

/** Return a gauge of characters against the limit; a small one has no words beside it. */
export function gauge(size, limit, { isSmall = false } = {}) {
  const part = limit > 0 ? size / limit : 1;
  const kind = part > 1 ? "over" : part >= NEAR ? "near" : "good";
  const text = `${number(size)} of ${number(limit)} characters`;
  const bar = el("span.bar", {});
  bar.style.width = `${Math.min(100, Math.max(size ? 2 : 0, part * 100))}%`;
  const track = el("span.track", {}, bar);
  if (isSmall) return el(`span.gauge.small.${kind}`, { title: text, role: "img", "aria-label": text }, track);
  return el(`span.gauge.${kind}`, {}, track, el("span.text", {}, text, part > 1 && `, ${number(size - limit)} too many`));
}
