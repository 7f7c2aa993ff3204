// The search view: live results, filters, and the best sentence of every hit.
import { call } from "./api.js";
import { byId, chips, debounced, el, filterable, marked, plural, problem } from "./dom.js";

const [query, hybrid, count, filters] = ["query", "hybrid", "count", "filters"].map(byId);
// Where a document's title and address are, the best name first. The readers of documents know the same titles; a path
// stands in where there is none.
const TITLES = ["title", "heading", "headline", "subject", "summary", "name", "question", "query", "path"];
const ADDRESSES = ["url", "link", "href"];

const [status, hits, empty] = ["search-status", "hits", "search-empty"].map(byId);
let fields = {};
let newest = null;

export function startSearch(info) {
  fields = info.fields ?? {};
  filters.replaceChildren(...filterable(info).map(filterPill));
  const index = info.index;
  explain(`${plural(index.passages, "passage")} of ${plural(index.documents, "document")}`,
    "A question or a few words will do: what counts is the meaning, not the spelling.");
  const soon = debounced(200, search);
  query.addEventListener("input", soon);
  for (const control of [hybrid, count, filters]) control.addEventListener("change", search);
  byId("search-form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, textarea, select") || !query.offsetParent) return;
    event.preventDefault();
    query.focus();
  });
  if (matchMedia("(hover: hover)").matches) query.focus(); // On a phone this would open the keyboard.
}

function filterPill(name) {
  const options = fields[name].map((value, at) => el("option", { value: at }, String(value)));
  const select = el("select", { "data-field": name }, el("option", { value: "" }, "any"), ...options);
  return el("label", { class: "pill" }, el("span", {}, name), select);
}

/** The chosen filters with their values as the server gave them, numbers included. */
function chosen() {
  const selects = [...filters.querySelectorAll("select")].filter((select) => select.value !== "");
  return Object.fromEntries(selects.map(({ dataset: { field }, value }) => [field, fields[field][value]]));
}

async function search() {
  newest?.abort();
  const text = query.value.trim();
  const mine = (newest = new AbortController());
  empty.hidden = text !== "";
  if (!text) {
    status.textContent = "";
    hits.replaceChildren();
    hits.removeAttribute("aria-busy");
    return;
  }
  hits.setAttribute("aria-busy", "true");
  const filter = chosen();
  const body = { query: text, k: Number(count.value), hybrid: hybrid.checked };
  if (Object.keys(filter).length) body.filter = filter;
  const busy = (seconds) => { status.textContent = `The server is busy, retrying in ${seconds} s…`; };
  const began = performance.now();
  try {
    const answer = await call("search", { body, signal: mine.signal, busy });
    if (mine === newest) showHits(answer.hits, performance.now() - began);
  } catch (error) {
    if (mine !== newest) return;
    status.textContent = "";
    hits.replaceChildren(el("li", {}, problem(error, search)));
  } finally {
    if (mine === newest) hits.removeAttribute("aria-busy");
  }
}

function showHits(found, milliseconds) {
  const rounded = Math.max(1, Math.round(milliseconds));
  const time = rounded < 1000 ? `${rounded} ms` : `${(rounded / 1000).toFixed(1)} s`;
  status.textContent = found.length ? `${plural(found.length, "result")} in ${time}` : `No results (${time})`;
  const best = Math.max(...found.map((hit) => hit.score));
  hits.replaceChildren(...found.map((hit) => hitItem(hit, best)));
  empty.hidden = found.length > 0;
  if (found.length) return;
  const filtered = Object.keys(chosen()).length > 0;
  explain("Nothing found", filtered ? "No passage passes these filters. Try without one." : "Try other words.");
}

function hitItem(hit, best) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", best > 0 ? Math.max(hit.score, 0) / best : 0);
  const score = el("span", { class: "score", title: "Similarity; the bar is relative to the best hit" },
    bar, el("span", {}, el("span", { class: "hidden" }, "score "), hit.score.toFixed(best < 0.1 ? 4 : 3)));
  const { [fieldOf(hit, TITLES, titleOf)]: title, ...untitled } = hit.metadata ?? {};
  const { [fieldOf(hit, ADDRESSES, addressOf)]: address, ...others } = untitled;
  const heading = linked(titleOf(title) ?? String(hit.id), addressOf(address));
  const place = hit.passage > 0 ? ` · passage ${hit.passage + 1}` : "";
  const top = titleOf(title)
    ? [el("div", { class: "head" }, el("h3", {}, heading), score), el("p", { class: "source" }, el("span", {}, hit.id, place))]
    : [el("p", { class: "source" }, el("span", {}, heading, place), score)];
  return el("li", { class: "hit" }, ...top,
    el("p", { class: "passage" }, ...marked(hit.text, hit.highlight)), ...chips(others));
}

/** The first of the names, in any case, under which a hit's metadata holds what `read` can read. */
function fieldOf({ metadata }, names, read) {
  const known = new Map(Object.keys(metadata ?? {}).reverse().map((name) => [name.toLowerCase(), name]));
  return names.map((name) => known.get(name)).find((name) => name !== undefined && read(metadata[name]));
}

const titleOf = (value) => (["string", "number"].includes(typeof value) && String(value).trim()) || null;

/** An address that a link may lead to: of the web alone, since one of `javascript:` would run as the page's own. */
function addressOf(value) {
  if (typeof value !== "string" || !URL.canParse(value)) return null;
  const { protocol, href } = new URL(value);
  return ["http:", "https:"].includes(protocol) ? href : null;
}

const linked = (text, href) => (href ? el("a", { href, target: "_blank", rel: "noopener noreferrer" }, text) : text);

function explain(title, text) {
  empty.replaceChildren(el("h3", {}, title), el("p", {}, text));
}
