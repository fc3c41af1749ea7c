// The locked head, large: its matrix, what the chosen token looks at, its place among all heads, the text.
// In: a head, its matrix (exact, or its thumbnail while the exact one is not there), the chosen tokens. Out: chosen tokens.
import { css } from "../shared/colour";
import { Cleanup, Floating, h, Timer } from "../shared/dom";
import { count, smallWeight, subscript, weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { GridData, Head, Matrix } from "./data";
import { headWords } from "./grid";
import type { Mode } from "./layout";
import { cellAt, columnX, labelRoom, type MatrixGeometry, matrixGeometry, paintMatrix } from "./paint_matrix";
import { type Reading, read } from "./reading";
import { automaticMaximum, legend, type Scale } from "./scale";
import { TextStrip } from "./strip";
import { Twin } from "./twin";

/** How the exact matrix of the locked head stands. */
export type HeadStatus =
  | { readonly kind: "exact"; readonly matrix: Matrix }
  | { readonly kind: "loading" }
  | { readonly kind: "no-kernel" }
  | { readonly kind: "busy" }
  | { readonly kind: "error"; readonly message: string };

export interface DetailState {
  readonly head: Head;
  readonly status: HeadStatus;
  readonly tokens: readonly number[];
  readonly scale: Scale;
  readonly sinkAside: boolean;
  readonly theme: Theme;
  readonly ratio: number;
  readonly width: number;
  readonly mode: Mode;
  readonly beside: boolean;
}

export interface DetailEvents {
  tokens(tokens: number[]): void;
  retry(): void;
}

/** How much of the width the matrix takes where the words stand beside it. */
const MATRIX_SHARE = 0.4;
/** Waiting shorter than this is not worth a word. */
const QUIET_WAIT = 200;

let views = 0;

export class DetailView {
  readonly element = h("section", { class: "lt-detail", hidden: true });
  readonly canvas = h("canvas", { role: "img" });
  private readonly cleanup = new Cleanup();
  private readonly title = h("h3", {});
  private readonly plate = h("div", { class: "lt-matrix" });
  private readonly rowRing = h("div", { class: "lt-cross lt-cross-row", hidden: true });
  private readonly columnRing = h("div", { class: "lt-cross lt-cross-column", hidden: true });
  private readonly cellRing = h("div", { class: "lt-cross lt-cross-cell", hidden: true });
  private readonly hoverRing = h("div", { class: "lt-cross lt-cross-hover", hidden: true });
  private readonly legend = h("div", { class: "lt-legend" });
  private readonly notice = h("div", { class: "lt-notice", role: "status", hidden: true });
  private readonly sentence = h("div", { class: "lt-sentence" });
  private readonly among = h("div", { class: "lt-among" });
  private readonly right: HTMLElement;
  private readonly tip = new Floating("lt-tip");
  private readonly wait: Timer;
  private readonly tipDelay: Timer;
  private readonly twin: Twin;
  readonly strip: TextStrip;
  geometry: MatrixGeometry | null = null;
  private data: GridData | null = null;
  private state: DetailState | null = null;
  private matrix: Matrix | null = null;
  private exact = false;
  private reading: Reading | null = null;
  private painted = "";
  private amongFor = "";
  private ticks: (() => void)[] = [];

  constructor(private readonly events: DetailEvents) {
    const { cleanup } = this;
    this.wait = new Timer(cleanup);
    this.tipDelay = new Timer(cleanup);
    this.twin = new Twin("Attention matrix", "detail", (row, key) => this.say(row, key), String(++views));
    this.strip = new TextStrip(cleanup, (token) => this.chooseInText(token));
    this.plate.append(
      this.canvas,
      this.columnRing,
      this.rowRing,
      this.cellRing,
      this.hoverRing,
      this.twin.element,
      this.tip.element,
    );
    const left = h("div", { class: "lt-left" }, this.title, this.plate, this.legend);
    this.right = h("div", { class: "lt-right" }, this.notice, this.sentence, this.among, this.strip.element);
    this.element.append(left, this.right);
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.point(e));
    cleanup.on(this.canvas, "pointerleave", () => this.hideTip());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => this.click(e));
    cleanup.on(this.twin.element, "focus", () => this.plate.classList.add("lt-focus"));
    cleanup.on(this.twin.element, "blur", () => this.plate.classList.remove("lt-focus"));
    cleanup.on(window, "scroll", () => this.hideTip(), { capture: true, passive: true });
    cleanup.add(() => this.tip.hide());
    // The strips' width is the page's business: a host that swaps its style sheets has none for a moment.
    const observer = new ResizeObserver(() => {
      for (const paint of this.ticks) paint();
    });
    observer.observe(this.among);
    cleanup.add(() => observer.disconnect());
  }

  destroy(): void {
    this.cleanup.run();
  }

  hide(): void {
    this.element.hidden = true;
    this.state = null;
    this.painted = "";
    this.amongFor = "";
    this.hideTip();
    this.wait.stop();
  }

  get previewing(): boolean {
    return this.tip.shown;
  }

  hideTip(): void {
    this.tipDelay.stop();
    this.tip.hide();
    this.hoverRing.hidden = true;
  }

  show(data: GridData, state: DetailState): void {
    this.data = data;
    this.state = state;
    this.element.hidden = false;
    this.exact = state.status.kind === "exact";
    this.matrix = state.status.kind === "exact" ? state.status.matrix : data.approximate(state.head);
    const { head } = state;
    this.title.replaceChildren(
      h("b", {}, `Layer ${head.layer} \u00b7 head ${head.head}`),
      h(
        "span",
        {},
        [headWords(data, head), "softmax", "query \u2193 key \u2192"].filter(Boolean).join(" \u00b7 "),
      ),
    );
    this.pick();
    this.paint();
    this.rings();
    this.showLegend();
    this.showNotice();
    this.showSentence();
    this.showAmong();
    this.strip.show(data, this.exact ? this.matrix : null, this.reading, state);
    if (this.reading) this.showTwin();
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
    this.events.tokens([q, k]);
    return true;
  }

  /** What the announcer says of the chosen cell. */
  get words(): string {
    const { reading, data } = this;
    if (!reading || !data) return "";
    return this.say(reading.query, reading.key) ?? "";
  }

  get now(): Reading | null {
    return this.reading;
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

  /** A token of the text is the query; in cross attention the text is the keys', so it is the key. */
  private chooseInText(token: number): void {
    if (this.data?.same) this.events.tokens([token]);
    else if (this.reading) this.events.tokens([this.reading.query, token]);
  }

  private pick(): void {
    const { matrix, state } = this;
    this.reading = null;
    if (!matrix || !state || !this.exact) return;
    const [query = matrix.rows - 1, key = null] = state.tokens;
    this.reading =
      read(matrix, Math.min(query, matrix.rows - 1), key, state.sinkAside) ??
      read(matrix, matrix.rows - 1, null, state.sinkAside);
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

  private room(state: DetailState): number {
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
    this.plate.classList.toggle("lt-thin", (g?.cellX ?? 0) < 3);
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

  private showNotice(): void {
    const { state, data } = this;
    if (!state || !data) return;
    const { status } = state;
    this.wait.stop();
    this.notice.hidden = status.kind === "exact";
    const picture = `Shown here is its saved ${data.facts.side_rows} \u00d7 ${data.facts.side_keys} thumbnail.`;
    const exactPicture = data.facts.side_rows === data.facts.n_tokens;
    const say = (strong: string, rest: string, ...more: HTMLElement[]) =>
      this.notice.replaceChildren(h("b", {}, strong), ` ${rest} ${exactPicture ? "" : picture}`, ...more);
    const retry = h("button", { type: "button", class: "lt-button" }, "Try again");
    retry.addEventListener("click", () => this.events.retry());
    if (status.kind === "no-kernel") say("Its exact weights need a kernel:", "run the cell again.");
    if (status.kind === "busy")
      say("The kernel is busy.", "This head comes when the running cell has finished.");
    if (status.kind === "error") say("This head could not be read.", status.message, retry);
    if (status.kind === "loading") {
      this.notice.hidden = true;
      this.wait.start(QUIET_WAIT, () => {
        say("Reading", `layer ${state.head.layer} head ${state.head.head} \u2026`);
        this.notice.hidden = false;
      });
    }
  }

  private showSentence(): void {
    const { reading: r, data } = this;
    this.sentence.hidden = !r;
    if (!r || !data) return;
    const token = (i: number) => h("span", { class: "lt-token" }, tokenName(data, i));
    const others = r.others.flatMap(([k, w], i) => [i > 0 ? ", " : "", token(k), ` ${smallWeight(w)}`]);
    const masked = Number.isNaN(r.weight);
    const rest = masked
      ? [r.key > r.query ? "masked: the key comes later" : "outside the window: not attended"]
      : [
          `rank ${r.rank} of ${count(r.visible)}`,
          r.afterSink ? " (after the sink)" : "",
          others.length > 0 ? (r.rank === 1 || r.afterSink ? " \u00b7 next: " : " \u00b7 highest: ") : "",
          ...others,
        ];
    this.sentence.replaceChildren(
      h("span", { class: "lt-chip" }, queryName(data, r.query)),
      h("span", { class: "lt-verb" }, "looks at"),
      h("span", { class: "lt-chip lt-chip-on" }, tokenName(data, r.key)),
      h("span", { class: "lt-big" }, masked ? "\u2013" : smallWeight(r.weight)),
      h("span", { class: "lt-quiet" }, ...rest),
    );
  }

  private showAmong(): void {
    const { state, data } = this;
    if (!state || !data) return;
    const key = [state.head.index, state.width, state.ratio, data.facts.phase].join();
    if (this.amongFor === key && this.painted === state.theme.sans + css(state.theme.ink)) return;
    this.amongFor = data.facts.phase === "computing" ? "" : key;
    this.painted = state.theme.sans + css(state.theme.ink);
    const n = data.heads.length;
    this.ticks = [];
    const rows = data.facts.statistics
      .filter((f) => f.histogram)
      .flatMap((f) => {
        const canvas = h("canvas", { "aria-hidden": "true" });
        const mine = data.value(state.head, f.key);
        const rank = data.rank(state.head, f.key);
        const strip = h("div", { class: "lt-ticks-strip" }, canvas);
        this.ticks.push(() => paintTicks(canvas, data.column(f.key), mine, f.lo, f.hi, state));
        return [
          h("span", { class: "lt-among-name" }, f.label),
          strip,
          h("b", { class: "lt-number" }, weight(mine, 2)),
          h(
            "span",
            { class: "lt-quiet lt-number" },
            rank > 0 ? `#${count(rank)} of ${count(n)}` : "no value",
          ),
        ];
      });
    this.among.replaceChildren(
      h(
        "h4",
        {},
        h("b", {}, `This head among all ${count(n)}`),
        h("span", {}, "tick = one head, orange = this one"),
      ),
      h("div", { class: "lt-among-rows" }, ...rows),
    );
    for (const paint of this.ticks) paint();
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
    this.hoverRing.hidden = false;
    this.hoverRing.style.transform = `translate(${Math.round(x) - 1}px, ${Math.round(y) - 1}px)`;
    this.hoverRing.style.width = this.hoverRing.style.height = `${Math.round(size) + 2}px`;
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
    this.events.tokens([at[0], at[1]]);
  }
}

/** The same for a token that looks; in cross attention it is of another text. */
function queryName(data: GridData, index: number): HTMLElement {
  return data.same
    ? tokenName(data, index)
    : h("bdi", { class: "lt-mono" }, `${data.queries[index] ?? ""}${subscript(index)}`);
}

/** "·lamp₆", isolated against its neighbours' writing direction. */
export function tokenName(data: GridData, index: number): HTMLElement {
  const kind = data.facts.kinds[index] ?? "normal";
  return h(
    "bdi",
    { class: kind === "normal" ? "lt-mono" : "lt-mono lt-odd" },
    `${data.facts.tokens[index] ?? ""}${subscript(index)}`,
  );
}

/** One tick per head; where many heads stand close the ticks darken. */
function paintTicks(
  canvas: HTMLCanvasElement,
  values: Float32Array,
  mine: number,
  lo: number,
  hi: number,
  state: DetailState,
): void {
  const width = canvas.parentElement?.clientWidth ?? 0;
  const ctx = canvas.getContext("2d");
  if (!ctx || width === 0) return;
  const height = 13;
  canvas.width = Math.round(width * state.ratio);
  canvas.height = Math.round(height * state.ratio);
  const at = (v: number) =>
    Math.round(Math.max(0, Math.min(1, (v - lo) / (hi - lo || 1))) * (canvas.width - state.ratio));
  ctx.fillStyle = css(state.theme.ink2);
  ctx.globalAlpha = values.length > 400 ? 0.25 : 0.42;
  for (const v of values)
    if (!Number.isNaN(v)) ctx.fillRect(at(v), 0, Math.max(1, Math.round(state.ratio * 0.75)), canvas.height);
  ctx.globalAlpha = 1;
  if (Number.isNaN(mine)) return;
  ctx.fillStyle = css(state.theme.accent);
  ctx.fillRect(Math.max(0, at(mine) - state.ratio), 0, 3 * state.ratio, canvas.height);
}
