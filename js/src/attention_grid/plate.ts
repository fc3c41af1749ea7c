// The locked head's matrix, large: its cells or a part of them, crosshair, legend, tooltip, minimap; its DOM twin.
// In: a head (or its thumbnail while it is not there), the reading of the chosen cell. Out: chosen tokens, the viewport.
import { css } from "../shared/colour";
import { type Cleanup, Floating, h, Timer } from "../shared/dom";
import { smallWeight } from "../shared/format";
import type { Theme } from "../shared/theme";
import { type Box, type Cell, Crosshair, crossBoxes } from "./cross";
import type { GridData, Head } from "./data";
import { Gestures } from "./gestures";
import { headWords } from "./grid";
import type { Mode } from "./layout";
import { Minimap } from "./minimap";
import {
  blockAt,
  columnWidth,
  columnX,
  labelAt,
  labelRoom,
  type MatrixGeometry,
  type MatrixLabels,
  matrixGeometry,
  NAMED_CELL,
  paintMatrix,
  rowY,
  viewGeometry,
} from "./paint_matrix";
import { cellWords, greatest, type Pointed } from "./pointed";
import type { Reading } from "./reading";
import type { Replay } from "./replay";
import { automaticMaximum, legend, type Scale } from "./scale";
import { isLong, type Picture, Pictures, type Wanted } from "./tiles";
import { Twin } from "./twin";
import type { Source } from "./view";
import {
  holding,
  inView,
  placed,
  type Span,
  sameView,
  size,
  type Viewport,
  wholeOf,
  zoomed,
} from "./viewport";

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

export interface PlateEvents {
  choose(tokens: number[]): void;
  /** A token's label was clicked with Shift. */
  add(token: number): void;
  /** The pointer is on a cell, or on none. */
  hover(cell: Cell | null): void;
  /** The head stands on the screen with exact values. */
  drawn(): void;
}

/** How much of the width the matrix takes where the words stand beside it. */
const MATRIX_SHARE = 0.4;
/** Heads of fewer tokens need no word about zooming. */
const HINT_FROM = 64;
/** Room for positions on the axes where tokens have no names. */
const TIGHT = { left: 44, top: 30 };

let views = 0;

export class Plate {
  readonly element: HTMLElement;
  readonly canvas = h("canvas", { role: "img" });
  private readonly title = h("h3", {});
  private readonly frame = h("div", { class: "lt-matrix" });
  private readonly cross = new Crosshair();
  private readonly legend = h("div", { class: "lt-legend" });
  private readonly under: HTMLElement;
  private readonly tip = new Floating("lt-tip");
  private readonly tipDelay: Timer;
  private readonly twin: Twin;
  private readonly gestures: Gestures;
  private readonly minimap: Minimap;
  private readonly pictures: Pictures;
  private geometry: MatrixGeometry | null = null;
  private data: GridData | null = null;
  private state: PlateState | null = null;
  private replay: Replay | null = null;
  private reading: Reading | null = null;
  private stepped: Cell | null = null;
  private whole: Viewport = wholeOf(0, 0);
  private view: Viewport = this.whole;
  /** Viewports that Esc goes back to. */
  private readonly before: Viewport[] = [];
  private followed = "";
  private overview: Picture | null = null;

  constructor(
    cleanup: Cleanup,
    private readonly events: PlateEvents,
    tile: Source["tile"],
  ) {
    this.tipDelay = new Timer(cleanup);
    this.twin = new Twin("Attention matrix", "detail", (row, key) => this.say(row, key), String(++views));
    this.pictures = new Pictures(cleanup, tile, () => this.draw());
    this.gestures = new Gestures(cleanup, {
      canvas: this.canvas,
      geometry: () => this.geometry,
      view: () => this.view,
      whole: () => this.whole,
      look: (view, brushed) => this.look(view, brushed),
    });
    this.minimap = new Minimap(cleanup, {
      move: (view) => this.look(view, false),
      zoom: (factor) => this.zoom(factor),
      whole: () => this.look(this.whole, false),
    });
    this.frame.append(
      this.canvas,
      ...this.cross.elements,
      this.gestures.rubber,
      this.twin.element,
      this.tip.element,
    );
    this.under = h(
      "div",
      { class: "lt-under" },
      this.minimap.map,
      h("div", {}, this.legend, this.minimap.bar),
    );
    this.element = h("div", { class: "lt-left" }, this.title, this.frame, this.under);
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

  /** Esc: gives up a brush that is being drawn, else leaves the region that was brushed, else shows the whole head. */
  free(): boolean {
    if (this.gestures.stop()) return true;
    if (sameView(this.view, this.whole)) return false;
    this.look(this.before.pop() ?? this.whole, false);
    return true;
  }

  hideTip(): void {
    this.tipDelay.stop();
    this.tip.hide();
    this.events.hover(null);
  }

  /** Marks the cell that is pointed at, here or in a stage. */
  hover(cell: Cell | null): void {
    this.cross.point(this.geometry, cell);
  }

  show(data: GridData, state: PlateState, replay: Replay | null, reading: Reading | null): void {
    this.data = data;
    this.state = state;
    this.replay = replay;
    this.reading = reading;
    this.stepped = null;
    const rows = replay?.rows ?? data.facts.query_tokens?.length ?? data.facts.n_tokens;
    const whole = wholeOf(rows, replay?.keys ?? data.facts.n_tokens);
    // Another head of the same text is looked at in the same place.
    if (!sameView(whole, this.whole)) this.view = whole;
    this.whole = whole;
    this.follow();
    this.draw();
    if (reading) this.showTwin();
  }

  /** Keys of the matrix: they step the chosen cell, and zoom around it. */
  key(event: KeyboardEvent): boolean {
    const { replay, reading } = this;
    if (!replay || !reading || event.altKey || event.ctrlKey || event.metaKey) return false;
    if (event.key === "+" || event.key === "=") return this.zoom(2);
    if (event.key === "-") return this.zoom(0.5);
    if (event.key === "0") return this.look(this.whole, false);
    // Keys come faster than frames: each steps from where the one before it went.
    const [query, key] = this.stepped ?? [reading.query, reading.key];
    const last = replay.keys - 1;
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
    const q = Math.max(0, Math.min(replay.rows - 1, goal[0]));
    const k = Math.max(0, Math.min(last, goal[1]));
    this.stepped = [q, k];
    this.events.choose([q, k]);
    return true;
  }

  /** What the announcer says of the chosen cell. */
  get words(): string {
    const { reading, data } = this;
    if (!reading || !data) return "";
    return this.say(reading.query, reading.key) ?? "";
  }

  /** The largest weight of the colour scale: the whole head's, whatever part of it is shown. */
  get most(): number {
    const { overview, state } = this;
    return overview && state?.scale === "linear" ? automaticMaximum(overview.matrix, state.sinkAside) : 1;
  }

  /** The crosshair's boxes on the canvas, for pictures. */
  get boxes(): Box[] {
    return crossBoxes(this.geometry, this.chosen);
  }

  private get chosen(): Cell | null {
    return this.reading && [this.reading.query, this.reading.key];
  }

  /** A cell that was chosen elsewhere is brought into sight; one that was scrolled away stays away. */
  private follow(): void {
    const { reading } = this;
    const cell = this.chosen?.join() ?? "";
    const news = cell !== this.followed;
    this.followed = cell;
    if (!news || !reading || inView(this.view, reading.query, reading.key)) return;
    this.view = holding(this.view, this.whole, reading.query, reading.key);
  }

  private zoom(factor: number): boolean {
    const middle = ([from, to]: Span) => Math.floor((from + to) / 2);
    const { view, reading } = this;
    const [row, key] =
      reading && inView(view, reading.query, reading.key)
        ? [reading.query, reading.key]
        : [middle(view.rows), middle(view.keys)];
    return this.look(zoomed(view, this.whole, factor, row, key), false);
  }

  private look(view: Viewport, brushed: boolean): boolean {
    const next = placed(view, this.whole);
    if (brushed) this.before.push(this.view);
    if (sameView(next, this.whole)) this.before.length = 0;
    if (sameView(next, this.view)) return true;
    this.view = next;
    this.hideTip();
    this.draw();
    return true;
  }

  /** Brings the plate to the present viewport. */
  private draw(): void {
    const { state, data } = this;
    if (!state || !data) return;
    this.lay(data, state);
    const { geometry: g } = this;
    if (!g) return;
    const wanted = this.wanted(data, state, g);
    const picture = this.pictures.get(wanted);
    this.overview = this.pictures.overview(wanted);
    this.paint(data, state, g, picture);
    this.showTitle(data, state);
    this.cross.choose(g, this.chosen);
    this.frame.classList.toggle("lt-zoomed", this.isZoomed);
    this.showLegend(state, g);
    if (this.isZoomed)
      this.minimap.show(this.overview, this.whole, wanted.view, this.causal, { ...state, most: this.most });
    else this.endZoom();
    if (picture.exact && this.replay) this.events.drawn();
  }

  /** The minimap goes; a focus on its buttons goes back to the matrix. */
  private endZoom(): void {
    const page = this.element.getRootNode() as Document | ShadowRoot;
    if (this.minimap.bar.contains(page.activeElement)) this.twin.element.focus({ preventScroll: true });
    this.minimap.hide();
  }

  private get isZoomed(): boolean {
    return !sameView(this.view, this.whole);
  }

  private get causal(): boolean {
    return this.data?.layer(this.state?.head.layer ?? 0)?.mask === "causal";
  }

  private wanted(data: GridData, state: PlateState, g: MatrixGeometry): Wanted {
    const skip = g.key0 === 0 ? 1 : 0;
    const pixels = (cells: number, cell: number) => Math.max(1, Math.round(cells * cell * state.ratio));
    return {
      data,
      head: state.head,
      replay: this.replay,
      view: { rows: [g.row0, g.row0 + g.rows], keys: [g.key0, g.key0 + g.keys] },
      whole: this.whole,
      pixels: [pixels(g.rows, g.cellY), pixels(g.keys - skip, g.cellX)],
    };
  }

  private room(state: PlateState): number {
    if (state.mode === "wide" && !state.beside) return Math.round(state.width * MATRIX_SHARE);
    return Math.min(state.width, state.beside ? 560 : 640);
  }

  private labels(data: GridData): MatrixLabels {
    const { queries, facts } = data;
    return { rows: queries, keys: facts.tokens, kinds: facts.kinds };
  }

  /** Where cells are: the whole head first, then the viewport on the same canvas. */
  private lay(data: GridData, state: PlateState): void {
    const ctx = this.canvas.getContext("2d");
    const { whole, view } = this;
    if (!ctx || size(whole.rows) === 0) return;
    const labels = this.labels(data);
    const room = this.room(state);
    const keys = size(whole.keys);
    const tight = isLong(whole) || (room * 0.8) / keys < 2.9;
    const space = tight ? TIGHT : labelRoom(ctx, labels, state.theme, keys, 40);
    const flat = matrixGeometry(
      size(whole.rows),
      keys,
      { width: room - (tight ? 18 : 28), ...space },
      state.sinkAside,
      state.ratio,
    );
    this.geometry = { ...flat, width: room };
    if (!this.isZoomed) return;
    const cut = (names: readonly string[], [from, to]: Span) => names.slice(from, Math.min(to, from + 200));
    const shown = { ...labels, rows: cut(labels.rows, view.rows), keys: cut(labels.keys, view.keys) };
    const named = labelRoom(ctx, shown, state.theme, shown.keys.length, TIGHT.left);
    const trial = viewGeometry(flat, named, view, state.ratio);
    const left = trial.cellY >= NAMED_CELL ? named.left : TIGHT.left;
    const top = trial.cellX >= NAMED_CELL ? Math.max(TIGHT.top, named.top) : TIGHT.top;
    this.geometry = { ...viewGeometry(flat, { left, top }, view, state.ratio), width: room };
  }

  private paint(data: GridData, state: PlateState, geometry: MatrixGeometry, picture: Picture): void {
    const { whole } = this;
    const positions = this.isZoomed || isLong(whole);
    paintMatrix(this.canvas, {
      matrix: picture.matrix,
      covers: picture.covers,
      geometry,
      labels: { ...this.labels(data), positions },
      scale: state.scale,
      sinkAside: state.sinkAside,
      most: this.most,
      causal: this.causal,
      query: this.reading?.query ?? null,
      key: this.reading?.key ?? null,
      theme: state.theme,
      ratio: state.ratio,
    });
    this.canvas.setAttribute(
      "aria-label",
      `Layer ${state.head.layer} head ${state.head.head}, attention of ${size(whole.rows)} queries to ${size(whole.keys)} keys. ${this.words}`,
    );
  }

  private showTitle(data: GridData, { head }: PlateState): void {
    this.title.replaceChildren(
      h("b", {}, `Layer ${head.layer} \u00b7 head ${head.head}`),
      h(
        "span",
        {},
        [headWords(data, head), "softmax", "query \u2193 key \u2192"].filter(Boolean).join(" \u00b7 "),
      ),
    );
  }

  private showLegend(state: PlateState, g: MatrixGeometry): void {
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
    const cells = Math.max(g.rows, g.keys);
    const many = Math.min(g.cellX, g.cellY) * state.ratio < 1;
    const notes = [
      many ? `${words}, a pixel\u2019s largest weight` : words,
      state.sinkAside && !this.isZoomed && "first token (sink) stands apart",
      !this.isZoomed && cells > HINT_FROM && "zoom: Ctrl + wheel, \u21e7 drag",
    ];
    this.legend.replaceChildren(
      h("div", { class: "lt-scale" }, bar, h("div", { class: "lt-ticks" }, ...marks)),
      h("div", { class: "lt-quiet" }, ...notes.map((note) => note && h("div", {}, note))),
    );
    this.under.style.paddingLeft = this.isZoomed ? "2px" : `${Math.max(20, Math.min(g.left - 20, 48))}px`;
    this.under.style.maxWidth = `${g.width}px`;
  }

  private showTwin(): void {
    const { replay, reading } = this;
    if (!replay || !reading) return;
    this.twin.label = `Attention matrix, rows are queries, columns are keys. ${this.words}`;
    this.twin.show(
      replay.rows,
      replay.keys,
      reading.query,
      reading.key,
      (r, k) => r === reading.query && k === reading.key,
    );
  }

  private say(row: number, key: number): string | null {
    const { replay, data } = this;
    if (!replay || !data || row >= replay.rows || key >= replay.keys) return null;
    const value = replay.value("softmax", row, key);
    const name = (tokens: readonly string[], i: number) => `${tokens[i] ?? "token"} ${i}`;
    return `${name(data.queries, row)} looks at ${name(data.facts.tokens, key)}: ${Number.isNaN(value) ? "masked" : smallWeight(value)}`;
  }

  /** The cells under the pointer, and the greatest of them with its exact value. */
  private at(e: MouseEvent): (Pointed & { readonly block: Viewport }) | null {
    const { geometry: g, replay } = this;
    const block = g && replay && blockAt(g, ...this.gestures.point(e));
    return block && { block, ...greatest(replay, block) };
  }

  private point(e: PointerEvent): void {
    if (e.pointerType === "touch") return;
    const { geometry: g, data } = this;
    const at = this.gestures.moving ? null : this.at(e);
    if (!at || !g || !data) {
      this.hideTip();
      return;
    }
    this.events.hover(at.cell);
    const show = () => {
      this.tip.element.replaceChildren(...cellWords(data, at.block, at));
      const box = this.canvas.getBoundingClientRect();
      const [row, key] = at.cell;
      const [w, hh] = [Math.max(3, columnWidth(g, key)), Math.max(3, g.cellY)];
      this.tip.show(new DOMRect(box.left + columnX(g, key), box.top + rowY(g, row), w, hh), [], 12);
    };
    if (this.tip.shown) show();
    else this.tipDelay.start(80, show);
  }

  private click(e: MouseEvent): void {
    const { dragged } = this.gestures;
    const at = dragged ? null : this.at(e);
    // Also after a drag: Esc goes back from what was brushed.
    if (dragged || at || this.label(e)) this.twin.element.focus({ preventScroll: true });
    if (at) this.events.choose([...at.cell]);
  }

  /** A row's label chooses the query, a column's the key; with Shift it joins the sum. */
  private label(e: MouseEvent): boolean {
    const { geometry: g, replay, reading, data } = this;
    const label = g && !this.gestures.dragged && labelAt(g, ...this.gestures.point(e));
    if (!label || !replay || !reading || !data) return false;
    if (e.shiftKey && (data.same || label.axis === "key")) this.events.add(label.token);
    else if (label.axis === "row") this.events.choose([label.token]);
    else this.events.choose([reading.query, label.token]);
    return true;
  }
}
