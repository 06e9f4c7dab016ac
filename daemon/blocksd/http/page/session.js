// Signs in with a token, and out.

import { el, field, fill } from "./dom.js";
import { Refused, get, post, remove } from "./gateway.js";

const PATIENCE_SECONDS = 2;

/** Return who is signed in: {role, name, agent, tokens}; null if a token is needed. Waits for a gateway that does not serve. */
export async function readSession() {
  for (;;) {
    try {
      const found = await get(["session"]);
      return found.role === null ? null : found;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      fill(document.getElementById("main"), el("p.empty", { role: "alert" }, error.message));
      await new Promise((resolve) => setTimeout(resolve, PATIENCE_SECONDS * 1000));
    }
  }
}

let open = null;

/** Ask for a token over what is shown, which stays as it is. Return the session. */
export function signIn() {
  open ??= new Promise((resolve) => {
    const token = el("input", { type: "password", autocomplete: "current-password", required: true, name: "token" });
    const wrong = el("p.wrong", { role: "alert" });
    const form = el(
      "form",
      {},
      el("h2", { id: "sign-in" }, "Sign in"),
      field("Token", token, "A line of the gateway's tokens file, without the role. The browser keeps a cookie, not the token."),
      wrong,
      el("div.actions", {}, el("button.primary", { type: "submit" }, "Sign in")),
    );
    const dialog = el("dialog", { "aria-labelledby": "sign-in" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const session = await post(["session"], { token: token.value.trim() });
        dialog.remove();
        open = null;
        resolve(session);
      } catch (error) {
        fill(wrong, error.status === 401 ? "No caller has this token." : error.message);
        token.select();
      }
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return open;
}

/** Sign out, and begin again. */
export async function signOut() {
  await remove(["session"]).catch(() => {});
  location.reload();
}
