// Shows a conflict in three panes: the text before, the text that is in force now, and yours to decide on.

import { marked } from "./differences.js";
import { button, el, fill } from "./dom.js";
import { gauge } from "./gauge.js";
import { characters } from "./words.js";

/**
 * Show it. `decided(text, version)` saves the text over that version, `later(text)` goes back to the editor, `take()` lets the text that
 * is in force stay, and `keep(text)` is called for each change of your text.
 */
export function showConflict(element, { label, limit, base, mine, theirs, version, author, keep, decided, later, take }) {
  const text = el("textarea.text", { "aria-label": `Your text of ${label}`, value: mine });
  const counter = el("span.counter");
  const showCount = () => fill(counter, gauge(characters(text.value), limit));
  text.addEventListener("input", () => {
    showCount();
    keep(text.value);
  });
  showCount();
  const pane = (title, hint, body) => el("section.pane", { "aria-label": title }, el("h2", {}, title), el("p.muted", {}, hint), body);
  fill(
    element,
    el(
      "p.card.note",
      { role: "alert", tabindex: "-1" },
      el("strong", {}, "Both texts change the same place. "),
      "Make yours what it should be, with what the other one says, and save it. Nothing is lost: each version stays in the history.",
    ),
    el(
      "div.panes",
      {},
      pane("Before", "What you began with.", marked(base, theirs, "Text before")),
      pane("Now in force", `Version ${version}, by ${author}.`, marked(theirs, base, "Text in force")),
      pane("Yours", "Edit it here.", text),
    ),
    el(
      "div.actions",
      {},
      counter,
      button("Back to the editor", () => later(text.value), "button"),
      button("Take the text in force", take, "button"),
      button("Save my text", () => decided(text.value, version), "button.primary"),
    ),
  );
  text.focus();
}
