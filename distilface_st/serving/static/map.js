// The map view: a canvas scatter plot of passages with pan, zoom, keyboard, and the neighbours of a point.
import { call } from "./api.js";
import { byId, chips, el, filterable, plural, problem } from "./dom.js";
import { measure, onScreen, panBy, reset, size, zoom, zoomAt } from "./view.js";

const COLOURS = 8; // The last one is for every value that is not among the commonest seven.
const [canvas, tip, colour, legend] = ["canvas", "tip", "colour", "legend"].map(byId);
const [status, selectedBox, list, spoken] = ["map-status", "selected", "neighbours", "map-spoken"].map(byId);
const context = canvas.getContext("2d");
const pointers = new Map();
let points = [];
let palette = {};
let active = null;
let selected = null;
let neighbours = new Set();
let newest = null;
let frame = 0;

export async function startMap(info) {
  status.textContent = "Drawing the map…";
  const busy = (seconds) => { status.textContent = `The server is busy, retrying in ${seconds} s…`; };
  try {
    ({ points } = await call("map?n=1000", { busy }));
  } catch (error) {
    status.textContent = "";
    selectedBox.replaceChildren(problem(error, () => { selectedBox.replaceChildren(); startMap(info); }));
    return;
  }
  canvas.setAttribute("aria-label", `Map of ${plural(points.length, "passage")}: near means alike in meaning`);
  clear();
  measure(points);
  offerColours(filterable(info));
  listen();
  readPalette();
}

const keyOf = ({ id, passage }) => JSON.stringify([id, passage]);
// Drawing

function readPalette() {
  const probe = canvas.parentElement.appendChild(el("i", { hidden: "" }));
  const read = (name) => { probe.style.setProperty("color", `var(--${name})`); return getComputedStyle(probe).color; };
  palette = { accent: read("accent"), ink: read("ink"), ground: read("ground") };
  palette.kinds = Array.from({ length: COLOURS }, (_, i) => read(`kind-${i}`));
  probe.remove();
  redraw();
}

function redraw() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(draw);
}

function draw() {
  const ratio = devicePixelRatio;
  Object.assign(size, { width: canvas.clientWidth, height: canvas.clientHeight });
  canvas.width = Math.round(size.width * ratio);
  canvas.height = Math.round(size.height * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const near = points.filter((point) => neighbours.has(keyOf(point)) && point !== selected);
  if (selected) drawLines(near);
  const radius = (points.length > 400 ? 2.75 : 3.5) * Math.min(1.8, Math.sqrt(zoom()));
  for (const point of points) drawPoint(point, radius, selected ? 0.22 : 0.78);
  for (const point of near) drawPoint(point, radius + 2, 1, palette.ground);
  if (selected) drawPoint(selected, radius + 3.5, 1, palette.ink);
  if (active && active !== selected) drawPoint(active, radius + 2.5, 1, palette.ink);
  placeTip();
}

function drawLines(near) {
  Object.assign(context, { strokeStyle: palette.accent, lineWidth: 1, globalAlpha: 0.45 });
  context.beginPath();
  for (const point of near) {
    context.moveTo(...onScreen(selected));
    context.lineTo(...onScreen(point));
  }
  context.stroke();
}

function drawPoint(point, radius, alpha, ring) {
  context.globalAlpha = alpha;
  context.fillStyle = point.kind === undefined ? palette.accent : palette.kinds[point.kind];
  context.beginPath();
  context.arc(...onScreen(point), radius, 0, 2 * Math.PI);
  context.fill();
  if (ring) Object.assign(context, { strokeStyle: ring, lineWidth: 1.75 }), context.stroke();
}

function placeTip() {
  tip.hidden = !active;
  if (!active) return;
  const [x, y] = onScreen(active);
  tip.style.setProperty("left", `${Math.max(8, Math.min(x - tip.offsetWidth / 2, size.width - tip.offsetWidth - 8))}px`);
  tip.style.setProperty("top", `${y - tip.offsetHeight - 14 < 8 ? y + 14 : y - tip.offsetHeight - 14}px`);
}

// Colouring by a metadata field

function offerColours(fields) {
  const names = fields.filter((name) => points.some(({ metadata }) => metadata?.[name] !== undefined));
  byId("colour-pill").hidden = names.length === 0;
  colour.replaceChildren(el("option", { value: "" }, "none"), ...names.map((name) => el("option", {}, name)));
  colour.addEventListener("change", colourPoints);
}

function colourPoints() {
  const valueOf = ({ metadata }) => String(metadata?.[colour.value] ?? "none");
  const counts = new Map();
  for (const point of points) counts.set(valueOf(point), (counts.get(valueOf(point)) ?? 0) + 1);
  const common = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const values = common.length > COLOURS ? [...common.slice(0, COLOURS - 1), "other"] : common;
  const kindOf = (value) => (values.includes(value) ? values.indexOf(value) : COLOURS - 1);
  for (const point of points) point.kind = colour.value ? kindOf(valueOf(point)) : undefined;
  const shown = colour.value ? values : [];
  legend.replaceChildren(...shown.map((value, i) => {
    const dot = el("i");
    dot.style.setProperty("background", `var(--kind-${i})`);
    return el("li", {}, dot, value);
  }));
  redraw();
}

// Reading a point and its neighbours

function setActive(point, aloud = false) {
  if (point !== active) {
    active = point;
    if (point) tip.replaceChildren(el("b", {}, String(point.id)), el("span", {}, point.text));
    redraw();
  }
  if (aloud && point) spoken.textContent = `${point.id}: ${point.text}`;
}

function clear() {
  newest?.abort();
  [active, selected, neighbours] = [null, null, new Set()];
  selectedBox.replaceChildren();
  list.replaceChildren();
  status.textContent = `${plural(points.length, "passage")}. Choose a point to see what is nearest in meaning.`;
  redraw();
}

/** Shows the neighbours of a passage, which may be a point of the map or a hit that is not on it. */
async function choose(passage) {
  newest?.abort();
  const mine = (newest = new AbortController());
  selected = points.find((point) => keyOf(point) === keyOf(passage)) ?? null;
  setActive(null);
  neighbours = new Set();
  list.replaceChildren();
  selectedBox.replaceChildren(el("div", { class: "chosen" }, el("p", { class: "source" }, String(passage.id)),
    el("p", { class: "passage" }, passage.text), ...chips(passage.metadata)));
  status.textContent = "Looking for its neighbours…";
  redraw();
  const busy = (seconds) => { status.textContent = `The server is busy, retrying in ${seconds} s…`; };
  try {
    const { hits } = await call("search", { body: { query: passage.text, k: 11 }, signal: mine.signal, busy });
    if (mine !== newest) return;
    const others = hits.filter((hit) => hit.id !== passage.id).slice(0, 10); // Its own document is the first.
    neighbours = new Set(others.map(keyOf));
    list.replaceChildren(...others.map(neighbourItem));
    status.textContent = `${plural(others.length, "nearest passage")}`;
    redraw();
  } catch (error) {
    if (mine !== newest) return;
    status.textContent = "";
    list.replaceChildren(el("li", {}, problem(error, () => choose(passage))));
  }
}

function neighbourItem(hit) {
  const point = points.find((other) => keyOf(other) === keyOf(hit)) ?? null;
  const peek = () => setActive(point);
  const unpeek = () => setActive(null);
  const peeks = { mouseenter: peek, mouseleave: unpeek, focus: peek, blur: unpeek };
  return el("li", {}, el("button", { type: "button", click: () => choose(hit), ...peeks },
    el("span", { class: "source" }, el("span", {}, String(hit.id)), el("span", { class: "score" }, hit.score.toFixed(3))),
    el("span", { class: "text" }, hit.text)));
}

// Pointers and keys

function listen() {
  new ResizeObserver(redraw).observe(canvas);
  window.addEventListener("themechange", readPalette);
  canvas.addEventListener("pointerdown", press);
  canvas.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, release);
  canvas.addEventListener("pointerleave", () => { if (!pointers.size) setActive(null); });
  canvas.addEventListener("wheel", (event) => {
    if (zoom() === 1 && event.deltaY > 0 && !event.ctrlKey) return; // Nothing to zoom out of: the page scrolls.
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("keydown", key);
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) setActive(selected ?? inTheMiddle(), true);
  });
  canvas.addEventListener("blur", () => setActive(null));
  byId("zoom-in").addEventListener("click", () => zoomBy(1.5));
  byId("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  byId("zoom-fit").addEventListener("click", fit);
}

function zoomBy(factor, x = size.width / 2, y = size.height / 2) {
  zoomAt(factor, x, y);
  moved();
}

function pan(dx, dy) {
  panBy(dx, dy);
  moved();
}

function fit() {
  reset();
  moved();
}

function moved() {
  canvas.classList.toggle("zoomed", zoom() > 1);
  redraw();
}

function nearest(x, y, within = Infinity) {
  let [best, least] = [null, within];
  for (const point of points) {
    const [px, py] = onScreen(point);
    const distance = Math.hypot(px - x, py - y);
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

const inTheMiddle = () => nearest(size.width / 2, size.height / 2);
const under = (event) => nearest(event.offsetX, event.offsetY, event.pointerType === "touch" ? 26 : 14);

function press(event) {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY, moved: false });
}

function move(event) {
  const pointer = pointers.get(event.pointerId);
  if (!pointer) {
    setActive(under(event));
    canvas.classList.toggle("over", active !== null);
    return;
  }
  const [dx, dy] = [event.offsetX - pointer.x, event.offsetY - pointer.y];
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const apart = (x, y) => Math.hypot(x - other.x, y - other.y) || 1;
    zoomBy(apart(event.offsetX, event.offsetY) / apart(pointer.x, pointer.y), other.x, other.y);
    other.moved = true;
  } else if (!pointer.moved && Math.hypot(dx, dy) <= 4) return; // A hand that shakes while it clicks.
  else pan(dx, dy);
  Object.assign(pointer, { x: event.offsetX, y: event.offsetY, moved: true });
}

function release(event) {
  const pointer = pointers.get(event.pointerId);
  pointers.delete(event.pointerId);
  if (event.type === "pointercancel" || !pointer || pointer.moved) return;
  const point = under(event);
  if (point) choose(point);
}

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function key(event) {
  const [closer, further] = [() => zoomBy(1.5), () => zoomBy(1 / 1.5)];
  const read = () => active && choose(active);
  const actions = { Enter: read, Escape: clear, "+": closer, "=": closer, "-": further, 0: fit };
  const action = event.key in DIRECTIONS ? () => step(DIRECTIONS[event.key]) : actions[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action();
}

/** Moves to the nearest point in a direction, points straight ahead before those at its side. */
function step([rightwards, downwards]) {
  const from = active ?? selected;
  if (!from) return setActive(inTheMiddle(), true);
  const [x, y] = onScreen(from);
  const cost = (point) => {
    const [dx, dy] = [onScreen(point)[0] - x, onScreen(point)[1] - y];
    const along = dx * rightwards + dy * downwards;
    const aside = Math.abs(dx * downwards) + Math.abs(dy * rightwards);
    return along > 0.5 ? along + 2 * aside : Infinity;
  };
  const next = points.reduce((best, point) => (cost(point) < cost(best) ? point : best), from);
  if (next === from) return undefined;
  const [nx, ny] = onScreen(next);
  if (nx < 0 || ny < 0 || nx > size.width || ny > size.height) pan(size.width / 2 - nx, size.height / 2 - ny);
  return setActive(next, true);
}
