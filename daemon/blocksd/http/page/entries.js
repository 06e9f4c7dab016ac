// Keeps what is entered in a form and not sent yet for as long as the tab lasts, so that no way to elsewhere loses it.

const PREFIX = "blocksd:form:";

/** Return what an input of a form holds. */
export const valueOf = (input) => (input.type === "checkbox" ? input.checked : input.value);

/** Put a value into an input. */
export function putValue(input, value) {
  if (input.type === "checkbox") input.checked = value;
  else input.value = value;
}

/**
 * Put what was kept under this name into the inputs, which are named, and keep from now on what `changed()` names of them.
 * Return true if something was kept.
 */
export function keepEntries(name, inputs, changed) {
  const kept = Object.entries(read(name)).filter(([one]) => Object.hasOwn(inputs, one) && !inputs[one].disabled);
  for (const [one, value] of kept) putValue(inputs[one], value);
  const keep = () => write(name, Object.fromEntries(changed().map((one) => [one, valueOf(inputs[one])])));
  for (const input of Object.values(inputs)) input.addEventListener("input", keep);
  return kept.length > 0;
}

/** Forget what is kept under this name. */
export const forgetEntries = (name) => write(name, {});

function read(name) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + name)) ?? {};
  } catch {
    return {};
  }
}

function write(name, values) {
  try {
    if (Object.keys(values).length) sessionStorage.setItem(PREFIX + name, JSON.stringify(values));
    else sessionStorage.removeItem(PREFIX + name);
  } catch {
    // The browser keeps nothing: what is entered is in this page alone.
  }
}
