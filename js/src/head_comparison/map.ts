// The map: one cell per pair of heads, layers left to right and heads downwards, or every head of two layers.
// In: a PairMap, the chosen pair. Out: pixels, a ring, a DOM twin; which cell was chosen.
import { Twin } from "../attention_grid/twin";
import { css } from "../shared/colour";
import { type Cleanup, Floating, h, Timer } from "../shared/dom";
import { weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { PairMap } from "./data";
import { legendOf } from "./legend";

export interface MapLook {
  readonly theme: Theme;
  readonly ratio: number;
  readonly width: number;
  /** What a cell is called, "Layer 17 head 5". */
  readonly name: (row: number, column: number) => string | null;
  readonly words: string;
}

type Place = readonly [row: number, column: number];

const MOST_CELL = 28;
/** Where there are few columns. */
const LARGE_CELL = 38;
const FEW_COLUMNS = 12;
/** Rows of many layers are at least so high, where there are few. */
const LEAST_HEIGHT = 14;
const MOST_HEIGHT = 200;
const LABELS = 30;
const TOP = 18;

let views = 0;

export class MapView {
  readonly canvas = h("canvas", { role: "img" });
  readonly element: HTMLElement;
  private readonly frame = h("div", { class: "lt-map" });
  private readonly chosenRing = h("div", { class: "lt-ring lt-ring-lock", hidden: true });
  private readonly cursorRing = h("div", { class: "lt-ring lt-ring-hover", hidden: true });
  private readonly legend = h("div", {});
  private readonly tip = new Floating("lt-tip");
  private readonly delay: Timer;
  private readonly twin: Twin;
  private map: PairMap | null = null;
  private look: MapLook | null = null;
  private chosen: Place | null = null;
  private cursor: Place | null = null;
  private cell = 0;
  private high = 0;

  constructor(
    cleanup: Cleanup,
    private readonly choose: (row: number, column: number) => void,
  ) {
    this.delay = new Timer(cleanup);
    this.twin = new Twin("All heads", "map", (r, c) => this.say(r, c), String(++views));
    this.frame.append(this.canvas, this.chosenRing, this.cursorRing, this.twin.element, this.tip.element);
    this.element = h("div", {}, this.frame, this.legend);
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.point(e));
    cleanup.on(this.canvas, "pointerleave", () => this.leave());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => this.click(e));
    cleanup.on(this.twin.element, "focus", () => this.step(this.cursor ?? this.chosen ?? [0, 0]));
    cleanup.on(this.twin.element, "blur", () => this.leave());
    cleanup.on(window, "scroll", () => this.leave(), { capture: true, passive: true });
    cleanup.add(() => this.tip.hide());
  }

  show(map: PairMap, chosen: Place | null, look: MapLook): void {
    this.map = map;
    this.look = look;
    this.chosen = chosen;
    const room = Math.floor((look.width - LABELS) / Math.max(1, map.columns.length));
    const most = map.columns.length <= FEW_COLUMNS && map.rows.length <= FEW_COLUMNS ? LARGE_CELL : MOST_CELL;
    const exact = (look.width - LABELS) / Math.max(1, map.columns.length);
    this.cell = exact < 1 ? exact : Math.min(most, room);
    const least = Math.min(LEAST_HEIGHT, Math.floor(MOST_HEIGHT / Math.max(1, map.rows.length)));
    this.high = Math.max(1, Math.ceil(this.cell), least);
    this.paint(map, look);
    this.put(this.chosenRing, chosen, 2);
    const none = map.values.every((value) => Number.isNaN(value));
    this.legend.replaceChildren(none ? "" : legendOf(look.theme.sequential, this.ticks, look.words));
    this.showTwin(this.cursor ?? chosen ?? [0, 0]);
  }

  /** The chosen cell's box on the canvas, for pictures. */
  get boxes(): { x: number; y: number; width: number; height: number; thick: boolean }[] {
    if (!this.chosen) return [];
    const [row, column] = this.chosen;
    const box = { x: LABELS + column * this.cell, y: TOP + row * this.high };
    return [{ ...box, width: this.cell, height: this.high, thick: true }];
  }

  get ticks(): [number, string][] {
    const { least, most } = this.map ?? { least: 0, most: 1 };
    const text = (at: number) => String(Number((least + at * (most - least)).toPrecision(3)));
    return [
      [0, least > 0 ? `\u2264 ${text(0)}` : text(0)],
      [0.5, text(0.5)],
      [1, text(1)],
    ];
  }

  key(event: KeyboardEvent): boolean {
    const { map } = this;
    if (!map || event.altKey || event.ctrlKey || event.metaKey) return false;
    const [row, column] = this.cursor ?? this.chosen ?? [0, 0];
    if (event.key === "Enter" || event.key === " ") {
      this.choose(row, column);
      return true;
    }
    const [last, end] = [map.rows.length - 1, map.columns.length - 1];
    const goals: Record<string, Place> = {
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      PageUp: [row, column - 5],
      PageDown: [row, column + 5],
      Home: [row, 0],
      End: [row, end],
    };
    const goal = goals[event.key];
    if (!goal) return false;
    this.step([Math.max(0, Math.min(last, goal[0])), Math.max(0, Math.min(end, goal[1]))]);
    return true;
  }

  /** Esc: the tooltip goes. */
  free(): boolean {
    const was = this.tip.shown;
    this.leave();
    return was;
  }

  private step(place: Place): void {
    this.cursor = place;
    this.put(this.cursorRing, place, 1);
    this.showTwin(place);
    this.showTip(place);
  }

  private leave(): void {
    this.cursor = null;
    this.cursorRing.hidden = true;
    this.delay.stop();
    this.tip.hide();
  }

  private at(e: MouseEvent): Place | null {
    const { map } = this;
    const box = this.canvas.getBoundingClientRect();
    if (!map || box.width === 0) return null;
    const column = Math.floor((e.clientX - box.left - LABELS) / this.cell);
    const row = Math.floor((e.clientY - box.top - TOP) / this.high);
    const inside = row >= 0 && column >= 0 && row < map.rows.length && column < map.columns.length;
    return inside ? [row, column] : null;
  }

  private point(e: PointerEvent): void {
    const place = this.at(e);
    if (!place || e.pointerType === "touch") {
      this.leave();
      return;
    }
    this.cursor = place;
    this.put(this.cursorRing, place, 1);
    if (this.tip.shown) this.showTip(place);
    else this.delay.start(80, () => this.showTip(place));
  }

  private click(e: MouseEvent): void {
    const place = this.at(e);
    if (!place) return;
    this.twin.element.focus({ preventScroll: true });
    this.choose(...place);
  }

  private showTip(place: Place): void {
    const words = this.say(...place);
    if (words === null) {
      this.tip.hide();
      return;
    }
    this.tip.element.textContent = words;
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [box.left + LABELS + place[1] * this.cell, box.top + TOP + place[0] * this.high];
    this.tip.show(new DOMRect(x, y, this.cell, this.high), [], 10);
  }

  private say(row: number, column: number): string | null {
    const { map, look } = this;
    const name = look?.name(row, column);
    if (!map || !name) return null;
    const value = map.values[row * map.columns.length + column]!;
    return `${name}: ${Number.isNaN(value) ? "not comparable" : weight(value, value < 0.01 ? 4 : 3)}`;
  }

  private showTwin([row, column]: Place): void {
    const { map, chosen, look } = this;
    if (!map) return;
    this.twin.label = `${look?.words ?? ""}. ${chosen ? (this.say(...chosen) ?? "") : ""}`;
    this.twin.show(
      map.rows.length,
      map.columns.length,
      row,
      column,
      (r, c) => r === chosen?.[0] && c === chosen[1],
    );
  }

  private put(ring: HTMLElement, place: Place | null, line: number): void {
    ring.hidden = place === null;
    if (!place) return;
    const wide = Math.max(6, this.cell - 1 + 2 * line);
    const high = Math.max(6, this.high - 1 + 2 * line);
    const x = LABELS + (place[1] + 0.5) * this.cell - (wide + 1) / 2;
    const y = TOP + (place[0] + 0.5) * this.high - (high + 1) / 2;
    ring.style.transform = `translate(${x}px, ${y}px)`;
    ring.style.width = `${wide}px`;
    ring.style.height = `${high}px`;
  }

  private paint(map: PairMap, look: MapLook): void {
    const ctx = this.canvas.getContext("2d");
    if (!ctx) return;
    const { cell, high } = this;
    const { theme, ratio } = look;
    const [width, height] = [LABELS + map.columns.length * cell, TOP + map.rows.length * high];
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    const at = (v: number) => Math.round(v * ratio);
    const gap = { x: cell >= 6 ? at(1) : 0, y: high >= 6 ? at(1) : 0 };
    // Where cells share pixels the highest is drawn last: it is the finding.
    const order = [...map.values.keys()];
    if (cell * ratio < 1) order.sort((a, b) => (map.values[a] || 0) - (map.values[b] || 0));
    for (const i of order) {
      const value = map.values[i]!;
      const [row, column] = [Math.floor(i / map.columns.length), i % map.columns.length];
      if (look.name(row, column) === null) continue;
      const share = (value - map.least) / (map.most - map.least);
      const shade = theme.sequential[Math.round(Math.max(0, Math.min(1, share)) * 255)];
      const [x, y] = [at(LABELS + column * cell), at(TOP + row * high)];
      const w = Math.max(1, at(LABELS + (column + 1) * cell) - x - gap.x);
      ctx.fillStyle = css(Number.isNaN(value) || !shade ? theme.plate : shade);
      ctx.fillRect(x, y, w, at(TOP + (row + 1) * high) - y - gap.y);
      if (Number.isNaN(value) && cell >= 10) {
        ctx.fillStyle = css(theme.ink3);
        ctx.fillRect(x + at(cell / 2 - 3), y + at(high / 2 - 1), at(5), at(1));
      }
    }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paintLabels(ctx, map, theme);
    this.canvas.setAttribute("aria-label", `${look.words}. ${this.chosen ? this.say(...this.chosen) : ""}`);
  }

  private paintLabels(ctx: CanvasRenderingContext2D, map: PairMap, theme: Theme): void {
    const { cell, high, chosen } = this;
    const write = (text: string, x: number, y: number, mine: boolean) => {
      ctx.font = `${mine ? 600 : 400} 10px ${theme.sans}`;
      ctx.fillStyle = css(mine ? theme.accentText : theme.ink3);
      ctx.fillText(text, x, y);
    };
    ctx.textBaseline = "middle";
    const step = { x: stepOf(26 / cell), y: stepOf(12 / high) };
    const shown = (i: number, at: number | undefined, every: number) =>
      i === at || (i % every === 0 && (at === undefined || every === 1 || Math.abs(i - at) >= every));
    ctx.textAlign = "center";
    map.columns.forEach((name, i) => {
      if (shown(i, chosen?.[1], step.x)) write(name, LABELS + (i + 0.5) * cell, 8, i === chosen?.[1]);
    });
    ctx.textAlign = "right";
    map.rows.forEach((name, i) => {
      if (shown(i, chosen?.[0], step.y)) write(name, LABELS - 6, TOP + (i + 0.5) * high, i === chosen?.[0]);
    });
  }
}

/** 1, 2, 5, 10 …: the first that is at least `least`. */
function stepOf(least: number): number {
  for (let ten = 1; ; ten *= 10) for (const k of [1, 2, 5]) if (k * ten >= least) return k * ten;
}
