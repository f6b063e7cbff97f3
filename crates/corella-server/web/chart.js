// A line chart in SVG. Few lines, no library: the log is thinned to what a screen can show.

const NS = "http:" + "//www.w3.org/2000/svg";
const [HEIGHT, LEFT, BOTTOM] = [260, 52, 24];
const MOST = 800;

/** `lines`: [{ name, className, points: [[x, y], …] }]. Returns an SVG element `width` pixels wide. */
export function lineChart(lines, label, width) {
  const thinned = lines.map((line) => ({ ...line, points: thin(line.points.filter(([, y]) => Number.isFinite(y))) }));
  const all = thinned.flatMap((line) => line.points);
  const svg = node("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "chart", role: "img", "aria-label": label });
  if (all.length === 0) return svg;
  const [x0, last] = range(all.map((p) => p[0]));
  const x1 = Math.max(last, 1);
  const ticks = niceTicks(...range(all.map((p) => p[1])));
  const [y0, y1] = [ticks[0], ticks[ticks.length - 1]];
  const px = (x) => LEFT + ((x - x0) / Math.max(1e-9, x1 - x0)) * (width - LEFT - 10);
  const py = (y) => HEIGHT - BOTTOM - ((y - y0) / Math.max(1e-9, y1 - y0)) * (HEIGHT - BOTTOM - 10);
  for (const tick of ticks) {
    svg.append(node("line", { x1: LEFT, x2: width - 10, y1: py(tick), y2: py(tick), class: "grid" }), text(LEFT - 6, py(tick) + 4, short(tick), "end"));
  }
  for (const tick of niceTicks(x0, x1).filter((t) => t >= x0 && t <= x1)) svg.append(text(px(tick), HEIGHT - 6, short(tick), "middle"));
  for (const line of thinned) {
    svg.append(node("polyline", { class: "line " + (line.className ?? ""), points: line.points.map(([x, y]) => px(x).toFixed(1) + "," + py(y).toFixed(1)).join(" ") }));
  }
  return svg;
}

function node(name, attributes) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(x, y, content, anchor) {
  const element = node("text", { x, y, "text-anchor": anchor });
  element.textContent = content;
  return element;
}

/** The least and the largest: a function takes only so many arguments, and a run has more updates. */
const range = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);

/** Means of equal stretches. */
function thin(points) {
  if (points.length <= MOST) return points;
  const size = points.length / MOST;
  return Array.from({ length: MOST }, (_, i) => {
    const part = points.slice(Math.floor(i * size), Math.floor((i + 1) * size));
    return [part[part.length - 1][0], part.reduce((n, p) => n + p[1], 0) / part.length];
  });
}

/** Five or so round numbers around a range. */
export function niceTicks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const power = Math.pow(10, Math.floor(Math.log10(span / 4)));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => span / s <= 5);
  const first = Math.floor(low / step);
  return Array.from({ length: Math.ceil(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

const short = (n) => (Math.abs(n) >= 1e6 ? n / 1e6 + " M" : Math.abs(n) >= 1e4 ? n / 1e3 + " k" : String(n));
