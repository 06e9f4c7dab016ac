// Shows the fields of a block, and changes those that are edited.

import { attempt, notice } from "./dialogs.js";
import { button, el, field, fill } from "./dom.js";
import { forgetEntries, keepEntries, putValue, valueOf } from "./entries.js";
import { patch } from "./gateway.js";
import { ago, sentence, tagsOf, tagsText } from "./words.js";

const READERS = {
  description: { get: (block) => block.description ?? "", set: (text) => text || null },
  limit: { get: (block) => String(block.limit), set: (text) => Number(text) },
  tags: { get: (block) => tagsText(block.tags), set: tagsOf },
  metadata: { get: (block) => JSON.stringify(block.metadata, null, 2), set: (text) => parsed(text) },
  read_only: { get: (block) => block.read_only, set: (value) => value },
  hidden: { get: (block) => block.hidden, set: (value) => value },
  is_template: { get: (block) => block.is_template, set: (value) => value },
};
const FOR_AGENTS = ["description"];

/** Show them; return the function that takes a newer block. Entries that are being edited stay. */
export function showFields(element, app, block, signal) {
  let present = block;
  const inputs = {
    description: el("textarea", { rows: "2" }),
    limit: el("input", { type: "number", min: "1", step: "1", required: true }),
    tags: el("input", { autocomplete: "off" }),
    metadata: el("textarea.code", { rows: "4", spellcheck: "false" }),
    read_only: el("input", { type: "checkbox" }),
    hidden: el("input", { type: "checkbox" }),
    is_template: el("input", { type: "checkbox" }),
  };
  const changed = () => Object.keys(inputs).filter((name) => valueOf(inputs[name]) !== READERS[name].get(present));
  const entered = () => Object.fromEntries(Object.keys(inputs).map((name) => [name, valueOf(inputs[name])]));
  const put = (name) => putValue(inputs[name], READERS[name].get(present));
  for (const name of Object.keys(inputs)) {
    put(name);
    inputs[name].disabled = !app.mayWrite || (!app.mayAll && !FOR_AGENTS.includes(name));
  }
  const kept = `fields:${block.id}`;
  const isBack = keepEntries(kept, inputs, changed);
  const check = (name, text) => el("label.check", {}, inputs[name], ` ${text}`);
  const submit = el("button.primary", { type: "submit" }, "Save fields");
  const discard = button("Discard", () => (forgetEntries(kept), take(present, entered())));
  const wrong = el("p.wrong", { role: "alert" });
  const facts = el("dl.pairs");
  element.append(
    el(
      "form.fields",
      {
        onsubmit: (event) => {
          event.preventDefault();
          attempt(save);
        },
        oninput: showDiscard,
      },
      isBack && el("p.card.note", {}, "What you entered and did not save is still here."),
      field("Description", inputs.description, "Tells agents what the block is for, and how to use it."),
      field("Limit in characters", inputs.limit),
      field("Tags", inputs.tags, "With commas between them."),
      check("read_only", "Read-only: agents may not change it"),
      check("hidden", "Hidden: in no prompt, and not in Letta's lists"),
      check("is_template", "A template: in no prompt"),
      field("Metadata", inputs.metadata, "A JSON object."),
      wrong,
      app.mayWrite && el("div.actions", {}, discard, submit),
    ),
    facts,
  );
  showFacts();
  showDiscard();

  function showDiscard() {
    discard.hidden = changed().length === 0;
  }

  function showFacts() {
    const pairs = [["Id", present.id], ["Version", present.version], ["Created", ago(present.created_at)], ["Changed", [ago(present.at), ` by ${present.author}`]], ["Digest", present.digest]];
    fill(facts, pairs.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  async function save() {
    const names = changed();
    fill(wrong);
    if (!names.length) return notice("No field is changed.");
    try {
      const sent = entered();
      const body = Object.fromEntries(names.map((name) => [name, READERS[name].set(valueOf(inputs[name]))]));
      take(await patch(["blocks", block.label], body, { version: present.version, signal }), sent);
      forgetEntries(kept);
      notice("Saved.");
    } catch (error) {
      if (signal.aborted) return;
      const more = error.status === 412 ? " The block changed meanwhile: look at it, and save again." : "";
      fill(wrong, `${sentence(error.message)}${more} What you entered is still here.`);
    }
  }

  /** Show a newer block. What is edited stays, unless it is still what was `sent`. */
  function take(newer, sent = null) {
    const mine = changed().filter((name) => sent?.[name] !== valueOf(inputs[name]));
    present = newer;
    for (const name of Object.keys(inputs)) if (!mine.includes(name)) put(name);
    showFacts();
    showDiscard();
    if (sent) fill(wrong);
  }

  return (newer) => newer && take(newer);
}

function parsed(text) {
  try {
    return text.trim() ? JSON.parse(text) : {};
  } catch (error) {
    throw new Error(`Metadata is no JSON: ${error.message}.`);
  }
}
