// The locked head's matrix, large: its cells, crosshair, legend, tooltip, and the DOM twin that takes the focus.
// In: a head, its matrix (exact, or its thumbnail), the reading of the chosen cell. Out: chosen tokens; what a cell says.
import { css } from "../shared/colour";
import { type Cleanup, Floating, h, Timer } from "../shared/dom";
import { smallWeight } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { GridData, Head, Matrix } from "./data";
import { headWords } from "./grid";
import type { Mode } from "./layout";
import { queryName, tokenName } from "./names";
import { cellAt, columnX, labelRoom, type MatrixGeometry, matrixGeometry, paintMatrix } from "./paint_matrix";
import type { Reading } from "./reading";
import { automaticMaximum, legend, type Scale } from "./scale";
import { Twin } from "./twin";

export interface PlateState {
  readonly head: Head;
  readonly scale: Scale;
  readonly sinkAside: boolean;
  readonly theme: Theme;
  readonly ratio: number;
  readonly width: number;
  readonly mode: Mode;
  readonly beside: boolean;
}

/** How much of the width the matrix takes where the words stand beside it. */
const MATRIX_SHARE = 0.4;

let views = 0;

export class Plate {
  readonly element: HTMLElement;
  readonly canvas = h("canvas", { role: "img" });
  private readonly title = h("h3", {});
  private readonly frame = h("div", { class: "lt-matrix" });
  private readonly rowRing = h("div", { class: "lt-cross lt-cross-row", hidden: true });
  private readonly columnRing = h("div", { class: "lt-cross lt-cross-column", hidden: true });
  private readonly cellRing = h("div", { class: "lt-cross lt-cross-cell", hidden: true });
  private readonly hoverRing = h("div", { class: "lt-cross lt-cross-hover", hidden: true });
  private readonly legend = h("div", { class: "lt-legend" });
  private readonly tip = new Floating("lt-tip");
  private readonly tipDelay: Timer;
  private readonly twin: Twin;
  private geometry: MatrixGeometry | null = null;
  private data: GridData | null = null;
  private state: PlateState | null = null;
  private matrix: Matrix | null = null;
  private exact = false;
  private reading: Reading | null = null;

  constructor(
    cleanup: Cleanup,
    private readonly choose: (tokens: number[]) => void,
    /** The pointer is on a cell, or on none. */
    private readonly pointed: (cell: readonly [number, number] | null) => void,
  ) {
    this.tipDelay = new Timer(cleanup);
    this.twin = new Twin("Attention matrix", "detail", (row, key) => this.say(row, key), String(++views));
    this.frame.append(
      this.canvas,
      this.columnRing,
      this.rowRing,
      this.cellRing,
      this.hoverRing,
      this.twin.element,
      this.tip.element,
    );
    this.element = h("div", { class: "lt-left" }, this.title, this.frame, this.legend);
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.point(e));
    cleanup.on(this.canvas, "pointerleave", () => this.hideTip());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => this.click(e));
    cleanup.on(this.twin.element, "focus", () => this.frame.classList.add("lt-focus"));
    cleanup.on(this.twin.element, "blur", () => this.frame.classList.remove("lt-focus"));
    cleanup.on(window, "scroll", () => this.hideTip(), { capture: true, passive: true });
    cleanup.add(() => this.tip.hide());
  }

  get previewing(): boolean {
    return this.tip.shown;
  }

  hideTip(): void {
    this.tipDelay.stop();
    this.tip.hide();
    this.pointed(null);
  }

  /** Marks the cell that is pointed at, here or in a stage. */
  hover(cell: readonly [number, number] | null): void {
    const { geometry: g } = this;
    this.hoverRing.hidden = cell === null || g === null;
    if (!cell || !g) return;
    const size = Math.round(Math.max(3, g.cellX)) + 2;
    const x = Math.round(columnX(g, cell[1])) - 1;
    const y = Math.round(g.top + cell[0] * g.cellY) - 1;
    this.hoverRing.style.transform = `translate(${x}px, ${y}px)`;
    this.hoverRing.style.width = this.hoverRing.style.height = `${size}px`;
  }

  show(data: GridData, state: PlateState, matrix: Matrix, exact: boolean, reading: Reading | null): void {
    this.data = data;
    this.state = state;
    this.matrix = matrix;
    this.exact = exact;
    this.reading = reading;
    const { head } = state;
    this.title.replaceChildren(
      h("b", {}, `Layer ${head.layer} \u00b7 head ${head.head}`),
      h(
        "span",
        {},
        [headWords(data, head), "softmax", "query \u2193 key \u2192"].filter(Boolean).join(" \u00b7 "),
      ),
    );
    this.paint();
    this.rings();
    this.showLegend();
    if (reading) this.showTwin();
  }

  /** Keys of the matrix: they step the chosen cell. */
  key(event: KeyboardEvent): boolean {
    const { matrix, reading } = this;
    if (!matrix || !reading || !this.exact || event.altKey || event.ctrlKey || event.metaKey) return false;
    const { query, key } = reading;
    const last = matrix.keys - 1;
    const goals: Record<string, [number, number]> = {
      ArrowLeft: [query, key - 1],
      ArrowRight: [query, key + 1],
      ArrowUp: [query - 1, key],
      ArrowDown: [query + 1, key],
      PageUp: [query - 5, key],
      PageDown: [query + 5, key],
      Home: [query, 0],
      End: [query, last],
    };
    const goal = goals[event.key];
    if (!goal) return false;
    const q = Math.max(0, Math.min(matrix.rows - 1, goal[0]));
    const k = Math.max(0, Math.min(last, goal[1]));
    this.choose([q, k]);
    return true;
  }

  /** What the announcer says of the chosen cell. */
  get words(): string {
    const { reading, data } = this;
    if (!reading || !data) return "";
    return this.say(reading.query, reading.key) ?? "";
  }

  /** The largest weight of the colour scale. */
  get most(): number {
    const { matrix, state } = this;
    return matrix && state?.scale === "linear" ? automaticMaximum(matrix, state.sinkAside) : 1;
  }

  /** The crosshair's boxes on the canvas, for pictures. */
  get boxes(): { x: number; y: number; width: number; height: number; dashed?: boolean; thick?: boolean }[] {
    const { geometry: g, reading: r } = this;
    if (!g || !r) return [];
    const x = columnX(g, r.key);
    const y = g.top + r.query * g.cellY;
    return [
      { x, y: g.top, width: g.cellX, height: g.rows * g.cellY, dashed: true },
      { x: g.left, y, width: g.keys * g.cellX + g.gap, height: g.cellY },
      { x, y, width: g.cellX, height: g.cellY, thick: true },
    ];
  }

  private paint(): void {
    const { matrix, state, data } = this;
    if (!matrix || !state || !data) return;
    const ctx = this.canvas.getContext("2d");
    if (!ctx) return;
    const named = matrix.rows === data.queries.length && matrix.keys === data.facts.n_tokens;
    const labels = named ? { rows: data.queries, keys: data.facts.tokens, kinds: data.facts.kinds } : null;
    const room = this.room(state);
    const tight = (room * 0.8) / matrix.keys < 2.9;
    const space = labels
      ? labelRoom(ctx, labels, state.theme, tight ? 0 : matrix.keys, tight ? 34 : 40)
      : { left: 0, top: 4 };
    if (tight) space.left = Math.min(space.left, 44);
    if (tight && labels) space.top = 30;
    const overhang = !labels ? 4 : tight ? 18 : 28;
    const geometry = matrixGeometry(
      matrix.rows,
      matrix.keys,
      { width: room - overhang, ...space },
      state.sinkAside,
      state.ratio,
    );
    this.geometry = { ...geometry, width: room };
    paintMatrix(this.canvas, {
      matrix,
      geometry: this.geometry,
      labels,
      scale: state.scale,
      sinkAside: state.sinkAside,
      causal: data.layer(state.head.layer)?.mask === "causal",
      query: this.reading?.query ?? null,
      key: this.reading?.key ?? null,
      theme: state.theme,
      ratio: state.ratio,
    });
    this.canvas.setAttribute(
      "aria-label",
      `Layer ${state.head.layer} head ${state.head.head}, attention of ${matrix.rows} queries to ${matrix.keys} keys. ${this.words}`,
    );
  }

  private room(state: PlateState): number {
    if (state.mode === "wide" && !state.beside) return Math.round(state.width * MATRIX_SHARE);
    return Math.min(state.width, state.beside ? 560 : 640);
  }

  private rings(): void {
    const { geometry: g, reading } = this;
    const put = (e: HTMLElement, x: number, y: number, width: number, height: number) => {
      e.hidden = false;
      e.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
      e.style.width = `${Math.round(width)}px`;
      e.style.height = `${Math.round(height)}px`;
    };
    const rings = [this.rowRing, this.columnRing, this.cellRing];
    this.frame.classList.toggle("lt-thin", (g?.cellX ?? 0) < 3);
    for (const ring of rings) ring.hidden = true;
    if (!g || !reading) return;
    const x = columnX(g, reading.key);
    const y = g.top + reading.query * g.cellY;
    const w = Math.max(3, g.cellX);
    const hh = Math.max(3, g.cellY);
    const all = { x: g.keys * g.cellX + g.gap, y: g.rows * g.cellY };
    if (g.cellX < 3) {
      // Cells of a pixel or two: one line through the middle, and a square that can be seen.
      put(this.rowRing, g.left, y + g.cellY / 2 - 1, all.x, 0);
      put(this.columnRing, x + g.cellX / 2 - 1, g.top, 0, all.y);
      put(this.cellRing, x + g.cellX / 2 - 5, y + g.cellY / 2 - 5, 10, 10);
      return;
    }
    put(this.rowRing, g.left - 1, y - 1, all.x + 2, hh + 2);
    put(this.columnRing, x - 1, g.top - 1, w + 2, all.y + 2);
    put(this.cellRing, x - 2, y - 2, w + 4, hh + 4);
  }

  private showLegend(): void {
    const { state, matrix } = this;
    if (!state || !matrix) return;
    const { ticks, words } = legend(state.scale, this.most);
    const stops = state.theme.sequential.filter((_, i) => i % 17 === 0 || i === 255).map(css);
    const bar = h("div", { class: "lt-ramp" });
    bar.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
    const marks = ticks.map(([at, label]) => {
      const t = h("span", {}, label);
      t.style.left = `${at * 100}%`;
      if (at === 1 && label.length > 4) t.classList.add("lt-end");
      return t;
    });
    this.legend.replaceChildren(
      h("div", { class: "lt-scale" }, bar, h("div", { class: "lt-ticks" }, ...marks)),
      h(
        "div",
        { class: "lt-quiet" },
        h("div", {}, words),
        state.sinkAside ? h("div", {}, "first token (sink) stands apart") : null,
      ),
    );
    const room = this.geometry;
    this.legend.style.paddingLeft = room ? `${Math.max(20, Math.min(room.left - 20, 48))}px` : "";
  }

  private showTwin(): void {
    const { matrix, reading } = this;
    if (!matrix || !reading) return;
    this.twin.label = `Attention matrix, rows are queries, columns are keys. ${this.words}`;
    this.twin.show(
      matrix.rows,
      matrix.keys,
      reading.query,
      reading.key,
      (r, k) => r === reading.query && k === reading.key,
    );
  }

  private say(row: number, key: number): string | null {
    const { matrix, data } = this;
    if (!matrix || !data || !this.exact) return null;
    const value = matrix.data[row * matrix.keys + key];
    const name = (tokens: readonly string[], i: number) => `${tokens[i] ?? "token"} ${i}`;
    if (value === undefined) return null;
    return `${name(data.queries, row)} looks at ${name(data.facts.tokens, key)}: ${Number.isNaN(value) ? "masked" : smallWeight(value)}`;
  }

  private at(e: MouseEvent): [number, number] | null {
    const box = this.canvas.getBoundingClientRect();
    const g = this.geometry;
    if (!g || box.width === 0) return null;
    const zoom = g.width / box.width;
    return cellAt(g, (e.clientX - box.left) * zoom, (e.clientY - box.top) * zoom);
  }

  private point(e: PointerEvent): void {
    if (e.pointerType === "touch") return;
    const at = this.at(e);
    const { geometry: g, matrix, data } = this;
    if (!at || !g || !matrix || !data || !this.exact) {
      this.hideTip();
      return;
    }
    const [row, key] = at;
    const x = columnX(g, key);
    const y = g.top + row * g.cellY;
    const size = Math.max(3, g.cellX);
    this.pointed(at);
    const show = () => {
      const value = matrix.data[row * matrix.keys + key]!;
      const words = Number.isNaN(value)
        ? key > row
          ? "masked: comes later"
          : "outside the window"
        : smallWeight(value);
      this.tip.element.replaceChildren(
        queryName(data, row),
        h("span", { class: "lt-quiet" }, " \u2192 "),
        tokenName(data, key),
        h("b", {}, ` ${words}`),
      );
      const box = this.canvas.getBoundingClientRect();
      this.tip.show(new DOMRect(box.left + x, box.top + y, size, size), [], 12);
    };
    if (this.tip.shown) show();
    else this.tipDelay.start(80, show);
  }

  private click(e: MouseEvent): void {
    const at = this.at(e);
    if (!at || !this.exact) return;
    this.twin.element.focus({ preventScroll: true });
    this.choose([at[0], at[1]]);
  }
}
