// Small helpers for the page's elements. Data only ever becomes text: nothing here parses HTML.

export const byId = (id) => document.getElementById(id);

/** A new element: `el("a", { href: "#x", class: "y" }, "text", child)`. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** The text with characters start to end marked. Offsets count code points, as Python's do, not UTF-16 units. */
export function marked(text, span) {
  if (!span) return [text];
  const characters = Array.from(text);
  const piece = (from, to) => characters.slice(from, to).join("");
  return [piece(0, span[0]), el("mark", {}, piece(...span)), piece(span[1])];
}

/** Metadata as a list of small key and value chips. */
export function chips(metadata) {
  const text = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));
  const shown = (value) => (Array.isArray(value) ? value.map(text).join(", ") : text(value));
  const pairs = Object.entries(metadata ?? {}).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, shown(value))));
  return pairs.length ? [el("dl", { class: "chips" }, ...pairs)] : [];
}

/** Names of the fields worth choosing a value of: not those whose values belong to one document each. */
export const filterable = ({ fields = {}, unique = [] }) => Object.keys(fields).filter((name) => !unique.includes(name));

/** What went wrong, and a button that tries again. */
export function problem(error, again) {
  return el("div", { class: "problem", role: "alert" }, el("p", {}, error.message),
    el("button", { type: "button", click: again }, "Try again"));
}

export function debounced(milliseconds, action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
