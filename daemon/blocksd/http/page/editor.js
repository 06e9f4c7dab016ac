// Edits the text of a block. What is typed stays until it is saved: here, in a draft, and through conflicts and failures.

import { showConflict } from "./conflict.js";
import { notice } from "./dialogs.js";
import { button, el, fill } from "./dom.js";
import * as drafts from "./drafts.js";
import { gauge } from "./gauge.js";
import { bringBack, get, newKey, post } from "./gateway.js";
import { authorOf, characters, sentence } from "./words.js";

/** Show the editor; return the function that takes a newer block, or null when the block is gone. */
export function showEditor(element, app, block, signal, close) {
  const { label } = block;
  const found = drafts.draftOf(label);
  let present = block;
  let base = found?.base ?? block.version;
  let isTyped = found !== null;
  let [isSaving, key, keyOf] = [false, null, null];

  const text = el("textarea.text", { "aria-label": `Text of ${label}`, spellcheck: "true", value: found?.text ?? block.value });
  const counter = el("span.counter", { "aria-live": "off" });
  const notes = el("div.notes", { role: "status" });
  const wrong = el("div.wrong", { role: "alert" });
  const save = button("Save", () => saveText(), "button.primary", { title: "Ctrl+S" });
  const panes = el("div.panes-place");
  const form = el(
    "div.editor",
    {},
    text,
    el("div.actions", {}, counter, button("Close", leave, "button", { title: "Escape" }), save),
  );
  element.append(notes, wrong, form, panes);

  function showCount() {
    fill(counter, gauge(characters(text.value), present.limit));
  }

  function typed() {
    isTyped = text.value !== present.value || base !== present.version;
    if (isTyped) keepDraft();
    else drafts.forget(label);
    showCount();
    showNotes();
    dispatchEvent(new Event("blocksd-drafts"));
  }

  function keepDraft() {
    if (!drafts.keep(label, { text: text.value, base, id: block.id })) {
      fill(wrong, "The browser keeps no draft of this text: it is in this page alone until you save it.");
    }
  }

  function showNotes() {
    const lines = [];
    if (isTyped && present.version !== base) {
      lines.push(
        el("p.card.note", {}, `Version ${present.version}, by ${authorOf(present)}, came since you began with version ${base}. When you save, both texts are merged.`),
      );
    } else if (isTyped && found && text.value === found.text) {
      lines.push(
        el("p.card.note", {}, "This is your text that was not saved. ", button("Discard it", discard, "button.link")),
      );
    }
    fill(notes, lines);
  }

  function discard() {
    drafts.forget(label);
    close();
    dispatchEvent(new Event("blocksd-drafts"));
  }

  function leave() {
    if (isTyped) notice("Your text is not saved yet. It is kept in this browser, under this block.");
    else drafts.forget(label);
    close();
  }

  /** Save the text. `from` is the version that it was made of. */
  async function saveText(from = base) {
    if (isSaving) return;
    if (!isTyped && text.value === present.value) return close();
    isSaving = true;
    fill(wrong);
    const sent = text.value;
    // A text that is sent again, because no answer came, is saved once.
    if (keyOf !== `${from} ${sent}`) [key, keyOf] = [newKey(), `${from} ${sent}`];
    try {
      saved(await post(["merge", label], { value: sent, base: from }, { key }), sent);
    } catch (error) {
      if (error.code === "merge_conflict" && typeof error.facts.theirs === "string") decide(error.facts);
      else if (error.code === "version_conflict") await rebase(from).catch(failed);
      else failed(error);
    } finally {
      isSaving = false;
    }
  }

  /** The block had another label at that version, which is no base under this one: find the same text under this one, or decide. */
  async function rebase(from) {
    const read = async (version) => (await get(["version", label], { version }, { signal })).block?.value ?? "";
    const [newest, { items }, text] = await Promise.all([get(["blocks", label], {}, { signal }), get(["versions", label], {}, { signal }), read(from)]);
    const renamed = items.find((one) => one.kind === "renamed" && one.version > from);
    present = newest;
    if (renamed === undefined || (await read(renamed.version)) !== text) return decide({ base: text, theirs: newest.value, version: newest.version });
    base = renamed.version;
    keepDraft();
    isSaving = false;
    return saveText();
  }

  function saved(made, sent) {
    present = made;
    if (text.value === sent) {
      drafts.forget(label);
      isTyped = false;
      dispatchEvent(new Event("blocksd-drafts"));
      notice(made.value === sent ? `Saved as version ${made.version}.` : `Saved as version ${made.version}, merged with what others wrote.`);
      return close();
    }
    // More was typed meanwhile. It was made of what was sent: if others changed that, the old base merges with them again.
    if (made.value === sent) base = made.version;
    typed();
    return undefined;
  }

  function failed(error) {
    // A refusal is kept under its key: what is sent next is another request. Without an answer it may have been done.
    if (error.status && error.status < 500) keyOf = null;
    const more =
      error.status === 404
        ? button("Bring the block back, and save", saveAgain, "button")
        : error.code === "read_only"
          ? null
          : button("Try again", () => saveText(), "button");
    fill(wrong, el("p", {}, el("strong", {}, "Not saved: "), sentence(error.message), " Your text is kept in this browser."), more);
  }

  async function saveAgain() {
    fill(wrong);
    try {
      present = await bringBack(label);
      await saveText();
    } catch (error) {
      failed(error);
    }
  }

  function decide(facts) {
    form.hidden = true;
    fill(notes);
    const decided = (final, theirs) => {
      text.value = final;
      end();
      base = theirs;
      keepDraft();
      isTyped = true;
      showCount();
      return saveText(theirs);
    };
    const end = () => {
      form.hidden = false;
      fill(panes);
      showNotes();
      text.focus();
    };
    showConflict(panes, {
      label,
      limit: present.limit,
      base: facts.base ?? "",
      mine: text.value,
      theirs: facts.theirs,
      version: facts.version,
      author: present.version === facts.version ? present.author : "another",
      keep: (final) => {
        text.value = final;
        keepDraft();
      },
      decided,
      later: (final) => {
        text.value = final;
        typed();
        end();
      },
      take: () => {
        drafts.forget(label);
        isTyped = false;
        dispatchEvent(new Event("blocksd-drafts"));
        notice(`Version ${facts.version} stays as it is.`);
        close();
      },
    });
  }

  text.addEventListener("input", typed);
  form.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
      event.preventDefault();
      saveText();
    } else if (event.key === "Escape") leave();
  });
  showCount();
  showNotes();
  text.focus();

  return (newer) => {
    if (newer === null) {
      fill(notes, el("p.card.note", {}, "The block was deleted meanwhile. Your text stays here; saving brings the block back if you wish."));
      return;
    }
    if (!isTyped && !isSaving && panes.childElementCount === 0) {
      // Nothing was typed: the newer text takes its place, and the cursor stays.
      const { selectionStart, selectionEnd } = text;
      if (text.value !== newer.value) {
        text.value = newer.value;
        text.setSelectionRange(selectionStart, selectionEnd);
      }
      base = newer.version;
    }
    present = newer;
    showCount();
    if (!form.hidden) showNotes();
  };
}
