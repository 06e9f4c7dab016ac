// Makes elements of the page. Texts become text nodes, never markup.

/**
 * Return an element. `what` is a tag with classes ("button.quiet"); a property that starts with "on" is a listener, `true`
 * sets an empty attribute, and null or false leaves it out.
 */
export function el(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const made = document.createElement(tag || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Return a button that runs a function; while the function's promise is open, the button takes no clicks. */
export function button(text, run, what = "button", properties = {}) {
  const made = el(what, { type: "button", ...properties }, text);
  made.addEventListener("click", async (event) => {
    if (made.getAttribute("aria-disabled") === "true") return;
    made.setAttribute("aria-disabled", "true");
    try {
      await run(event);
    } finally {
      made.removeAttribute("aria-disabled");
    }
  });
  return made;
}

/** Put these children in place of those that an element has. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let counter = 0;

/** Return a labelled field: a label above an input, a select or a textarea. */
export function field(label, input, hint = null) {
  input.id ||= `field-${(counter += 1)}`;
  const note = hint && el("span.hint", { id: `${input.id}-hint` }, hint);
  if (note) input.setAttribute("aria-describedby", note.id);
  return el("div.field", {}, el("label", { for: input.id }, label), input, note);
}

/** Return a function that calls another one once, when no call came for so many milliseconds. */
export function later(milliseconds, run) {
  let timer = null;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...args), milliseconds);
  };
}
