// Strokes and boxes: as they are drawn, as the server takes them (shares of width and height), as they are shown.

const MOST_POINTS = 1500;

/** A stroke or box that begins at a point of the picture (in its pixels). */
export function strokeOf(kind, point, radius, size, colour) {
  const share = ({ x, y }) => [within(x / size.width), within(y / size.height)];
  const start = share(point);
  if (kind === "box") {
    return {
      kind, colour, box: [...start, ...start],
      reach(next) { this.box = [...start, ...share(next)]; },
      finished() {
        const [x0, y0, x1, y1] = this.box;
        const wide = Math.abs(x1 - x0) * size.width, high = Math.abs(y1 - y0) * size.height;
        return wide < 4 || high < 4 ? null
          : { kind, colour, box: [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)] };
      },
    };
  }
  return {
    kind, colour, points: [start], radius: radius / Math.max(size.width, size.height), last: point,
    reach(next, least) {
      if (Math.hypot(next.x - this.last.x, next.y - this.last.y) < least) return;
      this.last = next;
      this.points.push(share(next));
    },
    finished() { return { kind, colour, points: thinned(this.points), radius: this.radius }; },
  };
}

const within = (value) => Math.round(Math.min(1, Math.max(0, value)) * 1e5) / 1e5;

function thinned(points) {
  const step = Math.ceil(points.length / MOST_POINTS);
  return step < 2 ? points : points.filter((_, i) => i % step === 0 || i === points.length - 1);
}

/** What the server is told of it. */
export function told({ kind, points, radius, box }) {
  return kind === "box" ? { kind, box } : { kind, points, radius };
}

let stripes = null;

/** "Not it" is striped: it is told from every label's colour, and without colours too. */
function striped(context) {
  if (stripes) return stripes;
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const draw = tile.getContext("2d");
  draw.fillStyle = "#111";
  draw.fillRect(0, 0, 8, 8);
  draw.strokeStyle = "#fff";
  draw.lineWidth = 2.6;
  draw.beginPath();
  for (const [x, y] of [[-2, 2], [0, 8], [6, 10]]) { draw.moveTo(x, y); draw.lineTo(x + (x === 0 ? 8 : 4), y - (x === 0 ? 8 : 4)); }
  draw.stroke();
  stripes = context.createPattern(tile, "repeat");
  return stripes;
}

/** Draw a stroke on a context that is in the picture's pixels. */
export function drawStroke(context, stroke, size, scale, alpha) {
  context.save();
  context.globalAlpha = alpha;
  context.lineCap = context.lineJoin = "round";
  if (stroke.box) drawBox(context, stroke, size, scale, alpha);
  else if (stroke.points?.length) {
    const pattern = stroke.kind === "background" ? striped(context) : null;
    pattern?.setTransform(new DOMMatrix().scale(1 / scale));
    context.strokeStyle = pattern ?? (stroke.kind === "erase" ? "#9aa0a6" : stroke.colour);
    context.lineWidth = Math.max(1, 2 * stroke.radius * Math.max(size.width, size.height));
    context.beginPath();
    stroke.points.forEach(([x, y], i) => {
      if (i === 0) context.moveTo(x * size.width, y * size.height);
      context.lineTo(x * size.width + (i === 0 ? 0.01 : 0), y * size.height);
    });
    context.stroke();
  }
  context.restore();
}

function drawBox(context, { box, colour }, size, scale, alpha) {
  const [x0, y0, x1, y1] = box;
  const rectangle = [x0 * size.width, y0 * size.height, (x1 - x0) * size.width, (y1 - y0) * size.height];
  context.fillStyle = colour;
  context.globalAlpha = alpha * 0.2;
  context.fillRect(...rectangle);
  context.globalAlpha = 1;
  for (const [style, width] of [["rgb(0 0 0 / 0.5)", 3.5], [colour, 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width / scale;
    context.strokeRect(...rectangle);
  }
}
