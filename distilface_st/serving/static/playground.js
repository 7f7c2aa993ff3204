// The playground: a heat map of the cosine similarities between a few sentences.
import { call } from "./api.js";
import { byId, debounced, el, problem } from "./dom.js";

const MOST = 20;
const [area, pair, heat] = ["sentences", "pair", "heat"].map(byId);
let newest = null;

export function startPlayground() {
  area.addEventListener("input", debounced(250, compare));
  compare();
}

async function compare() {
  newest?.abort();
  const mine = (newest = new AbortController());
  const lines = area.value.split("\n").map((line) => line.trim()).filter(Boolean);
  const sentences = lines.slice(0, MOST);
  byId("scale").hidden = sentences.length < 2;
  if (sentences.length < 2) {
    heat.replaceChildren();
    pair.textContent = "Write at least two sentences, a line each.";
    return;
  }
  const busy = (seconds) => { pair.textContent = `The server is busy, retrying in ${seconds} s…`; };
  try {
    const { data } = await call("v1/embeddings", { body: { input: sentences }, signal: mine.signal, busy });
    if (mine !== newest) return;
    const cosines = data.map((a) => data.map((b) => dot(a.embedding, b.embedding)));
    heat.replaceChildren(table(sentences, cosines));
    pair.replaceChildren(...inWords(sentences, cosines));
    if (lines.length > MOST) pair.append(` Only the first ${MOST} lines are compared.`);
  } catch (error) {
    if (mine !== newest) return;
    pair.textContent = "";
    heat.replaceChildren(problem(error, compare));
  }
}

/** The cosine: embeddings come as unit vectors. */
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

function table(sentences, cosines) {
  const columns = sentences.map((sentence, i) => el("th", { scope: "col", title: sentence }, String(i + 1)));
  const rows = sentences.map((sentence, i) => el("tr", {},
    el("th", { scope: "row", title: sentence }, el("b", {}, String(i + 1)), el("span", {}, sentence)),
    ...cosines[i].map((cosine, j) => cell(cosine, i === j))));
  return el("table", sentences.length > 10 ? { class: "many" } : {}, 
    el("caption", { class: "hidden" }, "Cosine similarity of every two sentences"),
    el("thead", {}, el("tr", {}, el("td"), ...columns)), el("tbody", {}, ...rows));
}

function cell(cosine, itself) {
  const node = el("td", itself ? { class: "itself" } : {}, shown(cosine));
  node.style.setProperty("--heat", `${(Math.min(Math.max(cosine, 0), 1) * 100).toFixed(1)}%`);
  return node;
}

const shown = (cosine) => cosine.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");

function inWords(sentences, cosines) {
  const pairs = cosines.flatMap((row, i) => row.slice(0, i).map((cosine, j) => [cosine, j, i]));
  const [cosine, first, second] = pairs.reduce((best, other) => (other[0] > best[0] ? other : best));
  const quoted = (i) => el("q", {}, sentences[i]);
  return ["Most alike: ", quoted(first), " and ", quoted(second), `, at ${shown(cosine)}.`];
}
