// The page's frame: tabs, theme, what the server is, and which view opens.
import { call } from "./api.js";
import { byId, el, plural, problem } from "./dom.js";
import { startMap } from "./map.js";
import { startPlayground } from "./playground.js";
import { startSearch } from "./search.js";

const STARTERS = { search: startSearch, playground: startPlayground, map: startMap };
const tabs = [...document.querySelectorAll("[role=tab]")];
const nameOf = (tab) => tab.hash.slice(1);
const started = new Set();
let info = null;

function show() {
  const opening = info.index ? "search" : "playground";
  const name = location.hash.slice(1) in STARTERS ? location.hash.slice(1) : opening;
  for (const tab of tabs) {
    const chosen = nameOf(tab) === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    byId(`${nameOf(tab)}-panel`).hidden = !chosen;
    if (chosen) document.title = `${tab.textContent} – distilface`;
  }
  if (started.has(name)) return;
  started.add(name);
  if (info.index || name === "playground") STARTERS[name](info);
}

function moveBetweenTabs(event) {
  const last = tabs.length - 1;
  const here = tabs.indexOf(event.target.closest("[role=tab]"));
  const goals = { ArrowRight: (here + 1) % tabs.length, ArrowLeft: (here + last) % tabs.length, Home: 0, End: last };
  const to = goals[event.key];
  if (to === undefined && event.key !== " ") return;
  event.preventDefault();
  const tab = tabs[to ?? here];
  tab.focus();
  location.hash = tab.hash;
}

function describe({ model, dimension, index, version }) {
  const facts = [model, plural(dimension, "dimension")];
  if (index) facts.push(plural(index.documents, "document"), plural(index.passages, "passage"));
  byId("facts").replaceChildren(...facts.concat(`distilface ${version}`).map((fact) => el("li", {}, fact)));
}

function explainIndex(panel) {
  const line = (command) => el("code", {}, command);
  panel.replaceChildren(el("div", { class: "empty" }, el("h2", {}, "No index is being served"),
    el("p", {}, "Make one from a text file with a document a line, then serve it:"),
    el("pre", {}, line("distilface index corpus.txt my-index"), "\n", line("distilface serve --index my-index")),
    el("p", {}, "The ", el("a", { href: "#playground" }, "playground"), " needs none.")));
}

async function start() {
  byId("notice").replaceChildren();
  try {
    const waiting = el("p", { class: "status" }, "The server is busy, retrying…");
    const busy = () => byId("notice").replaceChildren(waiting);
    info = await call("info", { busy });
    byId("notice").replaceChildren();
  } catch (error) {
    byId("notice").replaceChildren(problem(error, start));
    return;
  }
  describe(info);
  if (!info.index) document.querySelectorAll(".needs-index").forEach(explainIndex);
  window.addEventListener("hashchange", show);
  show();
}

function startTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const changed = () => {
    byId("theme").setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);
    window.dispatchEvent(new Event("themechange"));
  };
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("distilface-theme", root.dataset.theme);
    changed();
  });
  system.addEventListener("change", changed);
  changed();
}

document.querySelector("[role=tablist]").addEventListener("keydown", moveBetweenTabs);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // The hash is the view's.
  byId("content").focus();
});
startTheme();
start();
