// Turns what the page shows into its address after `#`, and back.

const encoded = (text) => text.split("/").map(encodeURIComponent).join("/");

/** Return the address of a view; `name` is a label or an agent's id, `query` says which part of it is shown. */
export function address(view, name = null, query = {}) {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return `#/${view}${name ? `/${encoded(name)}` : ""}${text && `?${text}`}`;
}

/** Return what an address names: {view, name, query}. */
export function place(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  let name = rest.join("/");
  try {
    name = decodeURIComponent(name);
  } catch {
    // Typed by hand: it is taken as it is.
  }
  return { view: view || "blocks", name: name || null, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** Go to an address; in place of the present one, if `isReplaced`. */
export function go(target, isReplaced = false) {
  if (isReplaced) location.replace(target);
  else location.hash = target;
}
