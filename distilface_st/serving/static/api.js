// Requests to the server: waits when it is busy, and asks for the API key when it wants one.
import { byId } from "./dom.js";

const KEY = "distilface-key";
const RETRIES = 8;
const LONGEST_WAIT = 30;

/** Fetches `path` (a POST when there is a body) and returns the JSON. `busy(seconds)` is told of every wait. */
export async function call(path, { body, signal, busy = () => {} } = {}) {
  for (let retries = 0; ;) {
    const key = sessionStorage.getItem(KEY);
    const response = await send(path, body, key, signal);
    if (response.ok) return response.json();
    if (response.status === 401) {
      const newer = sessionStorage.getItem(KEY) !== key; // Another request may have asked meanwhile.
      if (!newer && !(await askForKey(key !== null))) throw new Error("This server asks for an API key.");
      signal?.throwIfAborted();
    } else if (response.status === 429 && retries++ < RETRIES) {
      const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST_WAIT);
      busy(seconds);
      await pause(seconds, signal);
    } else throw new Error(await reason(response));
  }
}

async function send(path, body, key, signal) {
  const headers = new Headers(body && { "Content-Type": "application/json" });
  if (key) headers.set("Authorization", `Bearer ${key}`);
  try {
    return await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is distilface serve still running?");
  }
}

async function reason(response) {
  if (response.status === 429) return "The server is still busy.";
  const answer = await response.json().catch(() => ({}));
  const said = answer.error?.message ?? answer.error ?? answer.detail;
  return typeof said === "string" ? said : `The server answered ${response.status} ${response.statusText}`.trim() + ".";
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

let asking = null;

/** Opens the dialog once, however many requests want the key; resolves to whether one was given. */
function askForKey(refused) {
  asking ??= new Promise((resolve) => {
    const [dialog, form, input] = [byId("key-dialog"), byId("key-form"), byId("key")];
    byId("key-note").textContent = refused ? "That key was not accepted." : "It is kept until you close this tab.";
    input.value = "";
    let given = false;
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, input.value);
      given = true;
      dialog.close();
    };
    byId("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => { asking = null; resolve(given); };
    dialog.showModal();
  });
  return asking;
}
