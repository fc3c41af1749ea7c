// The grid: one canvas with all heads, the rings over it, its preview card and its DOM twin.
// In: data, state, theme, width. Out: which head the user previews, locks, isolates or brushes.
import { css } from "../shared/colour";
import { Cleanup, Floating, Frame, h, reducedMotion, Timer } from "../shared/dom";
import { weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { GridData, Head } from "./data";
import { type Cell, CellIndex, type Layout, layoutGrid, placeCells } from "./layout";
import { GridPainter } from "./paint_grid";
import { matrixGeometry, paintMatrix } from "./paint_matrix";
import type { Scale } from "./scale";
import { Twin } from "./twin";

export interface GridEvents {
  lock(head: Head): void;
  isolate(head: Head): void;
  brush(heads: Head[]): void;
  /** A click where no head is. */
  outside(): void;
}

export interface GridState {
  readonly width: number;
  readonly ratio: number;
  readonly theme: Theme;
  readonly scale: Scale;
  readonly sinkAside: boolean;
  readonly ranked: boolean;
  readonly statistic: string;
  readonly kept: Uint8Array;
  readonly filtered: boolean;
  readonly isolated: Head | null;
  readonly locked: Head | undefined;
  readonly running: number | null;
  /** Rows of tokens from here on are not there (yet); Infinity = all are. */
  readonly until: number;
}

const DIMMED = 0.36;
const FADE = 120;
const MOVE = 200;
const PREVIEW_DELAY = 80;
const PREVIEW_SIZE = 124;

let views = 0;

export class GridView {
  readonly element = h("div", { class: "lt-grid" });
  layout: Layout | null = null;
  readonly canvas = h("canvas", { role: "img" });
  private readonly cleanup = new Cleanup();
  private readonly painter = new GridPainter();
  private readonly hoverRing = h("div", { class: "lt-ring lt-ring-hover", hidden: true });
  private readonly lockRing = h("div", { class: "lt-ring lt-ring-lock", hidden: true });
  private readonly focusRing = h("div", { class: "lt-ring lt-ring-focus", hidden: true });
  private readonly rubber = h("div", { class: "lt-rubber", hidden: true });
  private readonly card = new Floating("lt-card");
  private readonly cardCanvas = h("canvas", { "aria-hidden": "true" });
  private readonly cardText = h("div", { class: "lt-card-text" });
  private readonly twin: Twin;
  private readonly delay: Timer;
  private readonly frame: Frame;
  private data: GridData | null = null;
  private state: GridState | null = null;
  private index: CellIndex | null = null;
  private hovered: Head | null = null;
  private cursor: Head | null = null;
  private focused = false;
  /** The focus came by keyboard: only then its ring is drawn. */
  private byKeys = true;
  private x = new Float32Array(0);
  private y = new Float32Array(0);
  private alpha = new Float32Array(0);
  private fromX = new Float32Array(0);
  private fromY = new Float32Array(0);
  private fromAlpha = new Float32Array(0);
  private moveStart = Number.NEGATIVE_INFINITY;
  private fadeStart = Number.NEGATIVE_INFINITY;
  private placed = "";
  private described = "";
  private ordered: readonly Head[] | null = null;

  constructor(private readonly events: GridEvents) {
    this.twin = new Twin("Attention heads", "grid", (row, column) => this.say(row, column), String(++views));
    this.delay = new Timer(this.cleanup);
    this.frame = new Frame(this.cleanup, (now) => this.draw(now));
    this.card.element.append(this.cardCanvas, this.cardText);
    this.element.append(
      this.canvas,
      this.hoverRing,
      this.lockRing,
      this.focusRing,
      this.rubber,
      this.twin.element,
      this.card.element,
    );
    const { cleanup, canvas } = this;
    cleanup.on<PointerEvent>(canvas, "pointermove", (e) => this.point(e));
    cleanup.on(canvas, "pointerleave", () => this.hover(null));
    cleanup.on<PointerEvent>(canvas, "pointerdown", (e) => this.down(e));
    cleanup.on<MouseEvent>(canvas, "click", (e) => this.click(e));
    cleanup.on<MouseEvent>(canvas, "dblclick", (e) => this.double(e));
    cleanup.on(this.twin.element, "focus", () => this.focus(true));
    cleanup.on(this.twin.element, "blur", () => this.focus(false));
    cleanup.on(window, "scroll", () => this.hover(null), { capture: true, passive: true });
    cleanup.add(() => this.card.hide());
  }

  /** Shows data in a state. */
  show(data: GridData, state: GridState): void {
    const fresh = this.data === null || !this.data.shares(data);
    const widened = this.state?.width !== state.width;
    // A layer's window is known when it has run, and gets its own line under the cells.
    const relaid = fresh || widened || this.data?.facts.layers !== data.facts.layers;
    this.data = data;
    this.state = state;
    if (data.facts.layers.length === 0) return;
    if (relaid) this.layout = layoutGrid(data, state.width);
    const layout = this.layout!;
    if (fresh) this.painter.forget();
    const order = state.ranked ? data.ranked(state.statistic) : null;
    if (relaid || order !== this.ordered || !this.index)
      this.index = new CellIndex(placeCells(data, layout, order), layout, data.rows);
    this.ordered = order;
    this.retarget(relaid);
    if (relaid) this.size(layout);
    this.describe();
    this.rings();
    this.draw(performance.now());
  }

  private size(layout: Layout): void {
    this.canvas.style.width = `${layout.width}px`;
    this.canvas.style.height = `${layout.height}px`;
    this.element.style.height = `${layout.height}px`;
    this.element.style.width = layout.beside ? `${layout.width}px` : "";
  }

  /** New thumbnails of a layer, or of all: they are drawn again. */
  refresh(layer?: number): void {
    this.painter.forget(layer);
  }

  get previewing(): boolean {
    return this.card.shown;
  }

  hidePreview(): void {
    this.delay.stop();
    this.card.hide();
  }

  /** The box of a head's ring on the canvas, for pictures. */
  boxOf(head: Head | undefined): { x: number; y: number; width: number; height: number } | null {
    const cell = head && this.index?.cells[head.index];
    const size = (this.layout?.cell ?? 0) + 2;
    return cell ? { x: cell.x - 1, y: cell.y - 1, width: size, height: size } : null;
  }

  destroy(): void {
    this.cleanup.run();
  }

  /** Keys of the grid region; true when the key was used. */
  key(event: KeyboardEvent): boolean {
    const { index, state } = this;
    if (!index || !state || event.altKey || event.ctrlKey || event.metaKey) return false;
    const from = this.cursorCell();
    if (!from) return false;
    if (event.key === "Enter") {
      if (event.shiftKey) this.events.isolate(from.head);
      else this.events.lock(from.head);
      return true;
    }
    const steps: Record<string, () => Cell> = {
      ArrowLeft: () => index.step(from, -1, 0),
      ArrowRight: () => index.step(from, 1, 0),
      ArrowUp: () => index.step(from, 0, -1),
      ArrowDown: () => index.step(from, 0, 1),
      PageUp: () => index.step(from, -5, 0),
      PageDown: () => index.step(from, 5, 0),
      Home: () => index.end(from, false),
      End: () => index.end(from, true),
    };
    const step = steps[event.key];
    if (!step) return false;
    this.moveCursor(step().head);
    return true;
  }

  private moveCursor(head: Head): void {
    this.byKeys = true;
    this.cursor = head;
    this.hovered = head;
    this.rings();
    this.showTwin();
    this.preview(head);
  }

  private cursorCell(): Cell | undefined {
    const head = this.cursor ?? this.state?.locked ?? this.data?.heads[0];
    return head && this.index?.cells[head.index];
  }

  private focus(on: boolean): void {
    this.focused = on;
    if (on && !this.cursor) this.cursor = this.state?.locked ?? this.data?.heads[0] ?? null;
    if (!on) {
      this.hover(null);
      this.byKeys = true;
    }
    this.rings();
    this.showTwin();
  }

  private showTwin(): void {
    const cell = this.cursorCell();
    if (!cell || !this.layout || !this.data || !this.index) return;
    const columns = this.data.facts.layers.length;
    const column = this.layout.bands[cell.band]!.from + cell.column;
    this.twin.show(this.data.rows, columns, cell.row, column, (r, c) => {
      const at = this.cellAt(r, c);
      return same(at?.head, this.state?.locked);
    });
  }

  private cellAt(row: number, column: number): Cell | undefined {
    const band = this.layout?.bands.findIndex((b) => column >= b.from && column < b.to) ?? -1;
    return band < 0 ? undefined : this.index?.get(band, column - this.layout!.bands[band]!.from, row);
  }

  /** A head in words, for the twin. */
  private say(row: number, column: number): string | null {
    const cell = this.cellAt(row, column);
    const { data, state } = this;
    if (!cell || !data || !state) return null;
    return describeHead(data, cell.head, state.statistic, state.kept[cell.head.index] === 1);
  }

  private describe(): void {
    const { data, state, canvas } = this;
    if (!data || !state) return;
    const kept = state.kept.reduce((n, k) => n + k, 0);
    const what = `Attention of ${data.heads.length} heads in ${data.facts.layers.length} layers, ${kept} kept`;
    const words = state.locked ? describeHead(data, state.locked, state.statistic, true) : "";
    if (this.described === words + what) return;
    this.described = words + what;
    canvas.setAttribute("aria-label", words ? `${words}. ${what}` : what);
    this.twin.label = `Attention heads: rows are heads, columns are layers. ${what}. Enter locks, Shift Enter isolates`;
    if (this.focused) this.showTwin();
  }

  /** New goals for places and strengths; motion starts only where something really changes. */
  private retarget(jump: boolean): void {
    const { data, state, index } = this;
    if (!data || !state || !index) return;
    const n = data.heads.length;
    const now = performance.now();
    const still = jump || reducedMotion() || this.alpha.length !== n;
    const placed = `${state.ranked ? state.statistic : ""},${state.width}`;
    if (this.alpha.length !== n) {
      for (const name of ["x", "y", "alpha", "fromX", "fromY", "fromAlpha"] as const)
        this[name] = new Float32Array(n);
    }
    if (placed !== this.placed && !still) {
      this.fromX.set(this.x);
      this.fromY.set(this.y);
      this.moveStart = now;
    }
    this.placed = placed;
    if (still) this.moveStart = this.fadeStart = Number.NEGATIVE_INFINITY;
    else if (data.heads.some((h) => this.goal(h) !== this.alpha[h.index])) {
      this.fromAlpha.set(this.alpha);
      this.fadeStart = now;
    }
  }

  private goal(head: Head): number {
    const { isolated, kept } = this.state!;
    if (isolated) return same(isolated, head) ? 1 : 0;
    return kept[head.index] ? 1 : DIMMED;
  }

  private draw(now: number): void {
    const { data, state, layout, index } = this;
    if (!data || !state || !layout || !index) return;
    const moved = ease((now - this.moveStart) / MOVE);
    const faded = ease((now - this.fadeStart) / FADE);
    for (const c of index.cells) {
      const i = c.head.index;
      this.x[i] = moved >= 1 ? c.x : this.fromX[i]! + (c.x - this.fromX[i]!) * moved;
      this.y[i] = moved >= 1 ? c.y : this.fromY[i]! + (c.y - this.fromY[i]!) * moved;
      const goal = this.goal(c.head);
      this.alpha[i] = faded >= 1 ? goal : this.fromAlpha[i]! + (goal - this.fromAlpha[i]!) * faded;
    }
    this.painter.paint(this.canvas, {
      ...state,
      data,
      layout,
      cells: index.cells,
      x: this.x,
      y: this.y,
      alpha: this.alpha,
      statisticLabel: data.facts.statistics.find((f) => f.key === state.statistic)?.label ?? state.statistic,
    });
    if (moved < 1 || faded < 1) this.frame.ask();
  }

  private rings(): void {
    const at = (ring: HTMLElement, head: Head | null | undefined, out: number) => {
      const cell = head ? this.index?.cells[head.index] : undefined;
      ring.hidden = !cell;
      if (!cell || !this.layout) return;
      const size = this.layout.cell + 2 * out;
      ring.style.transform = `translate(${cell.x - out}px, ${cell.y - out}px)`;
      ring.style.width = ring.style.height = `${size}px`;
    };
    at(this.lockRing, this.state?.locked, 2);
    const focus = this.focused && this.byKeys ? this.cursor : null;
    const ringed = same(this.hovered, this.state?.locked) || (focus && same(this.hovered, focus));
    at(this.hoverRing, ringed ? null : this.hovered, 2);
    at(this.focusRing, focus, 4);
  }

  private local(e: MouseEvent): [number, number] {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.layout && box.width > 0 ? this.layout.width / box.width : 1;
    return [(e.clientX - box.left) * scale, (e.clientY - box.top) * scale];
  }

  private under(e: MouseEvent): Head | null {
    const head = this.index?.hit(...this.local(e))?.head ?? null;
    return head && this.state?.isolated && !same(this.state.isolated, head) ? null : head;
  }

  private point(e: PointerEvent): void {
    if (e.pointerType === "touch" || e.buttons !== 0) return;
    this.hover(this.under(e));
  }

  private hover(head: Head | null): void {
    if (same(head, this.hovered)) return;
    this.hovered = head;
    this.canvas.style.cursor = head ? "pointer" : "";
    this.rings();
    this.delay.stop();
    if (!head) this.card.hide();
    else if (this.card.shown) this.preview(head);
    else this.delay.start(PREVIEW_DELAY, () => this.preview(head));
  }

  private click(e: MouseEvent): void {
    if (e.shiftKey) return;
    const head = this.under(e);
    if (!head) {
      this.events.outside();
      return;
    }
    this.cursor = head;
    this.byKeys = false;
    this.twin.element.focus({ preventScroll: true });
    this.hovered = head;
    this.hidePreview();
    this.events.lock(head);
  }

  private double(e: MouseEvent): void {
    const head = this.under(e);
    if (head && !e.shiftKey) this.events.isolate(head);
  }

  /** Shift-drag spans a rectangle of heads. */
  private down(e: PointerEvent): void {
    if (!e.shiftKey || e.button !== 0 || !this.index) return;
    e.preventDefault();
    this.hover(null);
    this.byKeys = false;
    this.twin.element.focus({ preventScroll: true });
    this.canvas.setPointerCapture?.(e.pointerId);
    const [x0, y0] = this.local(e);
    let box: [number, number, number, number] = [x0, y0, x0, y0];
    const move = (m: PointerEvent) => {
      const [x, y] = this.local(m);
      box = [Math.min(x0, x), Math.min(y0, y), Math.max(x0, x), Math.max(y0, y)];
      this.rubber.hidden = false;
      this.rubber.style.transform = `translate(${box[0]}px, ${box[1]}px)`;
      this.rubber.style.width = `${box[2] - box[0]}px`;
      this.rubber.style.height = `${box[3] - box[1]}px`;
    };
    const up = (u: PointerEvent) => {
      this.canvas.removeEventListener("pointermove", move);
      this.canvas.removeEventListener("pointerup", up);
      this.canvas.removeEventListener("pointercancel", up);
      this.rubber.hidden = true;
      if (u.type === "pointerup" && box[2] - box[0] + box[3] - box[1] > 6)
        this.events.brush(this.index?.inside(...box).map((c) => c.head) ?? []);
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", up);
    this.canvas.addEventListener("pointercancel", up);
  }

  private preview(head: Head): void {
    const { data, state, layout } = this;
    const cell = this.index?.cells[head.index];
    if (!data || !state || !layout || !cell || !this.element.isConnected) return;
    if (!data.has(head)) {
      this.card.hide();
      return;
    }
    this.fillCard(head);
    const box = this.canvas.getBoundingClientRect();
    const rect = (c: Cell) =>
      new DOMRect(box.left + c.x - 2, box.top + c.y - 2, layout.cell + 4, layout.cell + 4);
    const locked =
      state.locked && !same(state.locked, head) ? this.index?.cells[state.locked.index] : undefined;
    this.card.show(rect(cell), locked ? [rect(locked)] : [], Math.max(10, Math.min(layout.pitch, 34)));
  }

  private fillCard(head: Head): void {
    const { data, state } = this;
    if (!data || !state) return;
    const matrix = data.approximate(head, state.until);
    const side = Math.max(matrix.rows, matrix.keys);
    const whole = Math.max(1, Math.floor((PREVIEW_SIZE * state.ratio) / side) * side) / state.ratio;
    const geometry = matrixGeometry(
      matrix.rows,
      matrix.keys,
      { width: Math.max(whole, PREVIEW_SIZE * 0.7) + 2, left: 0, top: 0 },
      false,
      state.ratio,
    );
    paintMatrix(this.cardCanvas, {
      matrix,
      geometry: { ...geometry, width: geometry.cellX * matrix.keys, height: geometry.cellY * matrix.rows },
      labels: null,
      scale: state.scale,
      sinkAside: state.sinkAside,
      causal: data.layer(head.layer)?.mask === "causal",
      plain: true,
      query: null,
      key: null,
      theme: state.theme,
      ratio: state.ratio,
    });
    this.cardCanvas.style.background = css(state.theme.plate);
    const stats = data.facts.statistics.filter((f) => f.histogram);
    this.cardText.replaceChildren(
      h("div", { class: "lt-card-title" }, `Layer ${head.layer} \u00b7 head ${head.head}`),
      h("div", { class: "lt-quiet" }, headWords(data, head)),
      h(
        "div",
        { class: "lt-card-stats" },
        ...stats.flatMap((f) => statisticLine(f.label, data.value(head, f.key), f.lo, f.hi)),
      ),
      h("div", { class: "lt-quiet" }, "click locks \u00b7 double click isolates"),
    );
  }
}

function statisticLine(label: string, value: number, lo: number, hi: number): HTMLElement[] {
  const bar = h("i", {});
  const full = Math.max(hi, lo + 1);
  bar.style.width = `${Math.max(0, Math.min(1, (value - lo) / (full - lo) || 0)) * 100}%`;
  return [
    h("span", {}, label),
    h("span", { class: "lt-track" }, bar),
    h("span", { class: "lt-number" }, weight(value, 2)),
  ];
}

/** "previous-token head · KV 0". */
export function headWords(data: GridData, head: Head): string {
  const facts = data.layer(head.layer);
  const shared = facts !== undefined && facts.kv_heads < facts.heads;
  return [data.name(head), shared ? `KV ${head.kv}` : "", facts?.window ? `window ${facts.window}` : ""]
    .filter(Boolean)
    .join(" \u00b7 ");
}

/** "Layer 17 head 5, induction head, induction 0.35, highest of 270". */
export function describeHead(data: GridData, head: Head, statistic: string, kept: boolean): string {
  const label = data.facts.statistics.find((f) => f.key === statistic)?.label.toLowerCase() ?? statistic;
  const rank = data.rank(head, statistic);
  const value = rank === 0 ? `${label} not measured` : `${label} ${weight(data.value(head, statistic), 2)}`;
  const place =
    rank === 1 ? `highest of ${data.heads.length}` : rank > 1 ? `number ${rank} of ${data.heads.length}` : "";
  const parts = [
    `Layer ${head.layer} head ${head.head}`,
    data.name(head),
    value,
    place,
    kept ? "" : "filtered out",
  ];
  return (data.has(head) ? parts : [parts[0]!, "not computed yet"]).filter(Boolean).join(", ");
}

/** The same head; both may be of different deliveries of the data. */
function same(a: Head | null | undefined, b: Head | null | undefined): boolean {
  return a?.index === b?.index;
}

/** Ease-out from 0 to 1; 1 outside. */
function ease(t: number): number {
  return t >= 1 || !Number.isFinite(t) ? 1 : t <= 0 ? 0 : 1 - (1 - t) ** 3;
}
