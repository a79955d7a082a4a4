// The large picture: two canvases, below the picture with its mask, above what the pointer is doing.

import { strokeOf, drawStroke } from "./strokes.js";

const PADDING = 20;
const CLOSEST = 24;
const STEP = 6;

export class Stage {
  /** `done(stroke)` when a stroke or box ends; `touched()` when one begins. */
  constructor(box, base, top, { done, touched }) {
    Object.assign(this, { box, base, top, done, touched });
    this.tool = "object";
    this.brush = 16;
    this.colour = "#3b5bdb";
    this.look = { opacity: 0.45, outline: true, masks: true };
    this.image = this.mask = this.size = null;
    this.shown = { scale: 1, x: 0, y: 0, fitted: true };
    this.strokes = [];
    this.pending = [];
    this.drawing = null;
    this.cursor = null;
    this.crosshair = null;
    this.pointers = new Map();
    this.spaceHeld = false;
    this.tint = document.createElement("canvas");
    this.listen();
    new ResizeObserver(() => this.resize()).observe(box);
    this.resize();
  }

  // What is shown ------------------------------------------------------------------------------------------------

  /** A new picture, of which perhaps only the thumbnail is there yet. `size` as the full picture will have it. */
  setImage(image, size, isNew) {
    this.image = image;
    const changed = !this.size || this.size.width !== size.width || this.size.height !== size.height;
    this.size = size;
    if (isNew) {
      this.mask = null;
      this.strokes = [];
      this.pending = [];
      this.drawing = this.crosshair = null;
    }
    if (isNew || changed) this.fit();
    this.paint();
  }

  setMask(mask) { this.mask = mask; this.paint(); }

  setTool(tool) { this.tool = tool; this.box.dataset.using = tool; this.paintTop(); }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    const centre = { x: this.width / 2 || 0, y: this.height / 2 || 0 };
    this.ratio = ratio;
    for (const canvas of [this.base, this.top, this.tint]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    if (this.width) {
      this.shown.x += width / 2 - centre.x;
      this.shown.y += height / 2 - centre.y;
    }
    this.width = width;
    this.height = height;
    if (this.shown.fitted) this.fit();
    else this.paint(true);
  }

  fitScale() {
    return Math.min((this.width - 2 * PADDING) / this.size.width, (this.height - 2 * PADDING) / this.size.height, 8);
  }

  fit() {
    if (!this.size || !this.width) return;
    const scale = Math.max(0.01, this.fitScale());
    this.shown = { scale, x: (this.width - this.size.width * scale) / 2, y: (this.height - this.size.height * scale) / 2, fitted: true };
    this.paint(true);
  }

  /** Closer or further by a factor, with a point of the window held in place. */
  zoom(factor, at = { x: this.width / 2, y: this.height / 2 }) {
    if (!this.size) return;
    const { scale, x, y } = this.shown;
    const least = this.fitScale() * 0.5;
    const next = Math.min(CLOSEST, Math.max(least, scale * factor));
    this.shown = { scale: next, x: at.x - (at.x - x) * next / scale, y: at.y - (at.y - y) * next / scale, fitted: false };
    this.keepInside();
    this.paint(true);
  }

  pan(dx, dy) {
    this.shown = { ...this.shown, x: this.shown.x + dx, y: this.shown.y + dy, fitted: false };
    this.keepInside();
    this.paint(true);
  }

  keepInside() {
    const margin = 60;
    const { scale } = this.shown;
    this.shown.x = Math.min(this.width - margin, Math.max(margin - this.size.width * scale, this.shown.x));
    this.shown.y = Math.min(this.height - margin, Math.max(margin - this.size.height * scale, this.shown.y));
  }

  // Painting -----------------------------------------------------------------------------------------------------

  paint() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.paintBase();
      this.paintTop();
    });
  }

  place(context) {
    const { scale, x, y } = this.shown;
    context.setTransform(scale * this.ratio, 0, 0, scale * this.ratio, x * this.ratio, y * this.ratio);
  }

  paintBase() {
    const context = this.base.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.base.width, this.base.height);
    if (!this.image || !this.size) return;
    this.place(context);
    context.imageSmoothingEnabled = this.shown.scale * this.ratio < 3;
    context.imageSmoothingQuality = "high";
    const { width, height } = this.size;
    context.drawImage(this.image, 0, 0, width, height);
    if (!this.mask || !this.look.masks) return;
    context.imageSmoothingEnabled = true;
    context.globalAlpha = this.look.opacity;
    context.drawImage(this.mask, 0, 0, width, height);
    context.globalAlpha = 1;
    if (this.look.outline) this.paintOutline(context);
  }

  /** The mask drawn around itself, then cut out of that: a line of the labels' own colours, as wide at any zoom. */
  paintOutline(context) {
    const tint = this.tint.getContext("2d");
    const { width, height } = this.size;
    tint.setTransform(1, 0, 0, 1, 0, 0);
    tint.globalCompositeOperation = "source-over";
    tint.clearRect(0, 0, this.tint.width, this.tint.height);
    this.place(tint);
    const wide = 1.75 / this.shown.scale;
    for (let i = 0; i < 8; i++)
      tint.drawImage(this.mask, Math.cos(i * Math.PI / 4) * wide, Math.sin(i * Math.PI / 4) * wide, width, height);
    tint.globalCompositeOperation = "destination-out";
    tint.drawImage(this.mask, 0, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.shadowColor = "rgb(0 0 0 / 0.5)";
    context.shadowBlur = 2 * this.ratio;
    context.drawImage(this.tint, 0, 0);
    context.restore();
  }

  paintTop() {
    const context = this.top.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.top.width, this.top.height);
    if (!this.size) return;
    this.place(context);
    context.save();
    context.beginPath();
    context.rect(0, 0, this.size.width, this.size.height);
    context.clip();
    if (this.tool === "erase") for (const stroke of this.strokes) drawStroke(context, stroke, this.size, this.shown.scale, 0.5);
    for (const stroke of this.pending) drawStroke(context, stroke, this.size, this.shown.scale, 0.6);
    if (this.drawing?.stroke) drawStroke(context, this.drawing.stroke, this.size, this.shown.scale, 0.75);
    context.restore();
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.paintCursor(context);
  }

  paintCursor(context) {
    const at = this.crosshair ? this.toWindow(this.crosshair) : this.cursor;
    if (!at || this.isPanning()) return;
    const circle = this.tool !== "box";
    for (const [style, width] of [["rgb(0 0 0 / 0.55)", 3], ["#fff", 1.4]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      if (circle) context.arc(at.x, at.y, this.brush, 0, 2 * Math.PI);
      if (!circle || this.crosshair) {
        for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
          context.moveTo(at.x + dx * 4, at.y + dy * 4);
          context.lineTo(at.x + dx * 13, at.y + dy * 13);
        }
      }
      context.stroke();
    }
  }

  // The pointer --------------------------------------------------------------------------------------------------

  isPanning() { return this.tool === "pan" || this.spaceHeld || this.drawing?.kind === "pan"; }

  toPicture({ x, y }) { return { x: (x - this.shown.x) / this.shown.scale, y: (y - this.shown.y) / this.shown.scale }; }

  toWindow({ x, y }) { return { x: x * this.shown.scale + this.shown.x, y: y * this.shown.scale + this.shown.y }; }

  at(event) {
    const box = this.top.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  listen() {
    const { top } = this;
    top.addEventListener("pointerdown", (event) => this.press(event));
    top.addEventListener("pointermove", (event) => this.move(event));
    top.addEventListener("pointerup", (event) => this.release(event));
    top.addEventListener("pointercancel", (event) => this.release(event, true));
    top.addEventListener("pointerleave", () => { if (!this.drawing) { this.cursor = null; this.paintTop(); } });
    top.addEventListener("contextmenu", (event) => event.preventDefault());
    top.addEventListener("wheel", (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === 1 ? 18 : 1);
      this.zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0016)), this.at(event));
    }, { passive: false });
  }

  press(event) {
    if (!this.size) return;
    const at = this.at(event);
    this.pointers.set(event.pointerId, at);
    this.top.setPointerCapture(event.pointerId);
    this.crosshair = null;
    if (this.pointers.size === 2) { this.startPinch(); return; }
    if (this.pointers.size > 2) return;
    if (this.tool === "pan" || this.spaceHeld || event.button === 1) {
      event.preventDefault();
      this.drawing = { kind: "pan" };
      this.box.classList.add("panning");
    } else if (event.button === 0 || event.button === 2) {
      const kind = event.button === 2 && this.tool === "object" ? "background" : this.tool;
      this.begin(kind, this.toPicture(at));
    }
    this.cursor = at;
    this.paintTop();
  }

  begin(kind, point) {
    this.touched();
    this.drawing = { kind, stroke: strokeOf(kind, point, this.brush / this.shown.scale, this.size, this.colour) };
  }

  /** Two fingers move and zoom; what one had begun to draw is forgotten. */
  startPinch() {
    this.drawing = { kind: "pinch" };
    this.cursor = null;
    this.paintTop();
  }

  pinch(before) {
    const [a, b] = [...this.pointers.values()];
    const [c, d] = before;
    const middle = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    this.pan(middle.x - (c.x + d.x) / 2, middle.y - (c.y + d.y) / 2);
    this.zoom(Math.hypot(a.x - b.x, a.y - b.y) / Math.max(1, Math.hypot(c.x - d.x, c.y - d.y)), middle);
  }

  move(event) {
    const at = this.at(event);
    const previous = this.pointers.get(event.pointerId);
    const before = [...this.pointers.values()];
    if (previous) this.pointers.set(event.pointerId, at);
    this.cursor = event.pointerType === "touch" ? null : at;
    if (previous && this.drawing?.kind === "pinch" && this.pointers.size === 2) this.pinch(before);
    else if (previous && this.drawing?.kind === "pan") this.pan(at.x - previous.x, at.y - previous.y);
    else if (previous && this.drawing?.stroke)
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.drawing.stroke.reach(this.toPicture(this.at(one)), 1.5 / this.shown.scale);
    this.paintTop();
  }

  release(event, cancelled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    const { drawing } = this;
    if (drawing?.kind === "pinch" && this.pointers.size) return;
    this.drawing = null;
    this.box.classList.remove("panning");
    if (drawing?.stroke && !cancelled) this.finish(drawing.stroke);
    this.paintTop();
  }

  finish(stroke) {
    const finished = stroke.finished();
    if (finished) this.done(finished);
  }

  /** Forget what is being drawn, or the crosshair; whether there was any. */
  cancel() {
    const had = Boolean(this.drawing?.stroke || this.crosshair);
    this.drawing = this.crosshair = null;
    this.paintTop();
    return had;
  }

  // Without a pointer --------------------------------------------------------------------------------------------

  toggleCrosshair() {
    if (!this.size) return;
    if (this.crosshair) this.cancel();
    else this.crosshair = this.toPicture({ x: this.width / 2, y: this.height / 2 });
    if (this.tool === "pan") this.setTool("object");
    this.paintTop();
  }

  /** Arrow keys move the crosshair, the space bar puts the pen down and lifts it. Whether the key was used. */
  crosshairKey(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.crosshair) return false;
    if (event.key === " ") {
      if (this.drawing?.stroke) {
        const { stroke } = this.drawing;
        this.drawing = null;
        this.finish(stroke);
      } else this.begin(this.tool, this.crosshair);
    } else if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      const step = STEP * (event.shiftKey ? 6 : 1) / this.shown.scale;
      this.crosshair = {
        x: Math.min(this.size.width, Math.max(0, this.crosshair.x + dx * step)),
        y: Math.min(this.size.height, Math.max(0, this.crosshair.y + dy * step)),
      };
      this.drawing?.stroke?.reach(this.crosshair, 0);
    } else return false;
    this.paintTop();
    return true;
  }
}
