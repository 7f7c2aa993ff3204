// Where the map's points are on its canvas, in pixels: the points' bounds, the zoom and the pan.

const MARGIN = 0.92;
const CLOSEST = 40;
const bounds = { x: 0, y: 0, width: 2, height: 2 }; // Of the points: the middle, and how far they reach.
const view = { zoom: 1, x: 0, y: 0 }; // x and y: how far the points' middle is from the canvas's.
export const size = { width: 0, height: 0 };

export const zoom = () => view.zoom;
const unit = () => Math.min(size.width / bounds.width, size.height / bounds.height) * MARGIN * view.zoom;

export const onScreen = ({ x, y }) =>
  [size.width / 2 + view.x + (x - bounds.x) * unit(), size.height / 2 + view.y - (y - bounds.y) * unit()];

/** Makes all of the points fill the canvas at zoom 1. */
export function measure(points) {
  for (const [axis, extent] of [["x", "width"], ["y", "height"]]) {
    const least = points.reduce((value, point) => Math.min(value, point[axis]), Infinity);
    const most = points.reduce((value, point) => Math.max(value, point[axis]), -Infinity);
    if (points.length) Object.assign(bounds, { [axis]: (least + most) / 2, [extent]: Math.max(most - least, 0.1) });
  }
}

/** Zooms so that what is at (x, y) stays there. */
export function zoomAt(factor, x, y) {
  const before = view.zoom;
  view.zoom = Math.min(Math.max(before * factor, 1), CLOSEST);
  const grown = view.zoom / before;
  const [dx, dy] = [x - size.width / 2, y - size.height / 2];
  panBy(dx - (dx - view.x) * grown - view.x, dy - (dy - view.y) * grown - view.y);
}

/** Moves the points, but never so far that they leave the canvas. */
export function panBy(dx, dy) {
  const within = (value, room) => Math.min(Math.max(value, -room), room);
  const room = view.zoom > 1 ? unit() / 2 : 0;
  Object.assign(view, { x: within(view.x + dx, room * bounds.width), y: within(view.y + dy, room * bounds.height) });
}

export function reset() {
  Object.assign(view, { zoom: 1, x: 0, y: 0 });
}
