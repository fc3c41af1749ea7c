// What the pointer does on the large matrix: zoom with Ctrl or Cmd and the wheel, pan, brush a region with Shift.
// In: events of the canvas, where its cells are. Out: viewports, and whether a click was the end of a drag.
import { type Cleanup, h } from "../shared/dom";
import { blockAt, type MatrixGeometry, rightOf } from "./paint_matrix";
import { moved, size, type Viewport, zoomed } from "./viewport";

export interface GestureHost {
  readonly canvas: HTMLCanvasElement;
  geometry(): MatrixGeometry | null;
  view(): Viewport;
  whole(): Viewport;
  /** The viewport moves on; a brushed one can be left again. */
  look(view: Viewport, brushed: boolean): void;
}

/** A pointer that moves less than this clicks. */
const STEADY = 4;
/** How fast the wheel zooms, per pixel; and a line of a wheel that counts lines. */
const WHEEL = 0.0025;
const LINE = 32;

type Point = readonly [x: number, y: number];

export class Gestures {
  /** The region that is being brushed. */
  readonly rubber = h("div", { class: "lt-rubber", hidden: true });
  private start: { at: Point; view: Viewport; brush: boolean } | null = null;
  private wheeled = 1;
  /** Something is being dragged. */
  moving = false;
  /** The last press became a drag: the click that ends it chooses nothing. */
  dragged = false;

  constructor(
    cleanup: Cleanup,
    private readonly host: GestureHost,
  ) {
    const { canvas } = host;
    cleanup.on<WheelEvent>(canvas, "wheel", (e) => this.wheel(e), { passive: false });
    cleanup.on<PointerEvent>(canvas, "pointerdown", (e) => this.press(e));
    // The host's selection stays as it is.
    cleanup.on<MouseEvent>(canvas, "mousedown", (e) => e.shiftKey && e.preventDefault());
    cleanup.on<PointerEvent>(canvas, "pointermove", (e) => this.move(e));
    cleanup.on<PointerEvent>(canvas, "pointerup", (e) => this.release(e));
    cleanup.on(canvas, "pointercancel", () => this.stop());
    cleanup.on<MouseEvent>(canvas, "dblclick", (e) => this.zoom(4, this.point(e)));
  }

  /** A place of the canvas, as the geometry counts; in whole pixels, as clicks come, so that all events agree. */
  point(e: MouseEvent): Point {
    const box = this.host.canvas.getBoundingClientRect();
    const scale = (this.host.geometry()?.width ?? box.width) / (box.width || 1);
    return [(Math.floor(e.clientX) - box.left) * scale, (Math.floor(e.clientY) - box.top) * scale];
  }

  /** Gives up what is being dragged; true when there was something. */
  stop(): boolean {
    const had = this.moving;
    this.start = null;
    this.moving = false;
    this.rubber.hidden = true;
    return had;
  }

  private zoom(factor: number, [x, y]: Point): void {
    const g = this.host.geometry();
    const at = g && blockAt(g, inside(x, g.left, rightOf(g)), inside(y, g.top, g.top + g.rows * g.cellY));
    if (!at) return;
    const next = zoomed(this.host.view(), this.host.whole(), factor, at.rows[0], at.keys[0]);
    this.host.look(next, false);
  }

  private wheel(e: WheelEvent): void {
    if (!e.ctrlKey && !e.metaKey) return;
    e.preventDefault();
    const pixels = e.deltaMode === 0 ? e.deltaY : e.deltaY * LINE;
    // Small steps add up until they are a whole token.
    this.wheeled *= Math.exp(-Math.max(-200, Math.min(200, pixels)) * WHEEL);
    const view = this.host.view();
    const before = size(view.rows);
    if (Math.round(before / this.wheeled) === before) return;
    this.zoom(this.wheeled, this.point(e));
    this.wheeled = 1;
  }

  private press(e: PointerEvent): void {
    if (e.button !== 0) return;
    this.dragged = false;
    const at = this.point(e);
    const g = this.host.geometry();
    if (!g || !blockAt(g, ...at)) return;
    this.start = { at, view: this.host.view(), brush: e.shiftKey };
  }

  private move(e: PointerEvent): void {
    const { start } = this;
    const g = this.host.geometry();
    if (!start || !g) return;
    const [x, y] = this.point(e);
    const [dx, dy] = [x - start.at[0], y - start.at[1]];
    if (!this.moving) {
      if (Math.hypot(dx, dy) < STEADY) return;
      this.moving = this.dragged = true;
      this.host.canvas.setPointerCapture?.(e.pointerId);
    }
    if (start.brush) {
      const [x0, x1] = [start.at[0], x].map((v) => inside(v, g.left, rightOf(g))).sort((a, b) => a - b);
      const [y0, y1] = [start.at[1], y]
        .map((v) => inside(v, g.top, g.top + g.rows * g.cellY))
        .sort((a, b) => a - b);
      this.rubber.hidden = false;
      Object.assign(this.rubber.style, {
        transform: `translate(${x0}px, ${y0}px)`,
        width: `${x1! - x0!}px`,
        height: `${y1! - y0!}px`,
      });
      return;
    }
    const rows = -Math.round(dy / g.cellY);
    const keys = -Math.round(dx / g.cellX);
    this.host.look(moved(start.view, this.host.whole(), rows, keys), false);
  }

  private release(e: PointerEvent): void {
    const { start } = this;
    const g = this.host.geometry();
    if (!this.stop() || !start) return;
    if (!start.brush || !g) return;
    const corner = ([x, y]: Point) =>
      blockAt(g, inside(x, g.left, rightOf(g)), inside(y, g.top, g.top + g.rows * g.cellY));
    const [a, b] = [corner(start.at), corner(this.point(e))];
    if (!a || !b) return;
    const rows = [Math.min(a.rows[0], b.rows[0]), Math.max(a.rows[1], b.rows[1])] as const;
    const keys = [Math.min(a.keys[0], b.keys[0]), Math.max(a.keys[1], b.keys[1])] as const;
    this.host.look({ rows, keys }, true);
  }
}

/** The nearest place between two edges that is still inside. */
function inside(v: number, from: number, to: number): number {
  return Math.max(from, Math.min(to - 0.01, v));
}
