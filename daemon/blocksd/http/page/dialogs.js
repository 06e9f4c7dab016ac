// Asks and tells: dialogs, and notices that go by themselves.

import { button, el, fill } from "./dom.js";
import { forgetEntries, keepEntries, valueOf } from "./entries.js";
import { sentence } from "./words.js";

const SECONDS = 6;
const MOST = 3;

/** Show a notice at the edge of the page; with an action ([text, function]) it stays a little longer. */
export function notice(text, { isError = false, action = null } = {}) {
  const place = document.getElementById("notices");
  const made = el(`div.notice${isError ? ".error" : ""}`, {}, el("span", {}, text));
  const go = () => made.remove();
  if (action) made.append(button(action[0], async () => (go(), await action[1]()), "button.link"));
  made.append(el("button.close", { type: "button", "aria-label": "Close", onclick: go }, "×"));
  place.append(made);
  while (place.children.length > MOST) place.firstChild.remove();
  if (!isError) setTimeout(go, (action ? 2 : 1) * SECONDS * 1000);
}

// An error is of what was shown: it goes when something else is.
addEventListener("hashchange", () => {
  for (const one of document.querySelectorAll("#notices .error")) one.remove();
});

/** Run a function; if it is refused, say why. Return its result, or undefined. */
export async function attempt(run) {
  try {
    return await run();
  } catch (error) {
    if (error.name !== "AbortError") notice(sentence(error.message), { isError: true });
    if (!("status" in error) && error.name !== "AbortError") console.error(error);
    return undefined;
  }
}

/**
 * Show a form in a dialog. `accept(form)` runs when it is accepted; the dialog closes if it does not throw, and says why otherwise.
 * Return a promise of what `accept` returned, or undefined if it was cancelled. With `kept`, a name, what is entered in `inputs` is
 * kept until it is accepted or cancelled: a reload or Escape loses none of it.
 */
export function ask({ title, body, yes, accept, kept = null, inputs = {}, isDangerous = false }) {
  return new Promise((resolve) => {
    let result;
    const wrong = el("p.wrong", { role: "alert" });
    const before = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, valueOf(input)]));
    const changed = () => Object.keys(inputs).filter((name) => valueOf(inputs[name]) !== before[name]);
    const wasKept = kept !== null && keepEntries(kept, inputs, changed);
    const forget = () => kept && forgetEntries(kept);
    const submit = el(`button${isDangerous ? ".danger" : ".primary"}`, { type: "submit" }, yes);
    const form = el(
      "form",
      { method: "dialog" },
      el("h2", { id: "dialog-title" }, title),
      body,
      wasKept && el("p.card.note", {}, "What you entered before is still here. Cancel discards it."),
      wrong,
      el("div.actions", {}, button("Cancel", () => (forget(), dialog.close()), "button"), submit),
    );
    const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, form);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (submit.disabled) return;
      submit.disabled = true;
      fill(wrong);
      try {
        result = await accept(form);
        forget();
        dialog.close();
      } catch (error) {
        fill(wrong, sentence(error.message));
      } finally {
        submit.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
