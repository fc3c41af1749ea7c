// Left, right and difference side by side: the same cells, one crosshair through all, the three numbers of a cell.
// In: a computed pair, the chosen cell. Out: pixels, chosen tokens, the cell that is pointed at.
import { type Cell, Crosshair, crossBoxes } from "../attention_grid/cross";
import {
  blockAt,
  columnX,
  labelRoom,
  type MatrixGeometry,
  type MatrixLabels,
  matrixGeometry,
  paintMatrix,
  rowY,
} from "../attention_grid/paint_matrix";
import type { Replay } from "../attention_grid/replay";
import { legend, type Scale } from "../attention_grid/scale";
import { Twin } from "../attention_grid/twin";
import { type Cleanup, Floating, h, Timer } from "../shared/dom";
import { smallWeight, subscript } from "../shared/format";
import type { Theme } from "../shared/theme";
import { type ComparisonData, type HeadId, headName, type Pair, roundUp, type Side } from "./data";
import { legendOf, type Ticks } from "./legend";
import type { PairResult, Plane } from "./pair";

export interface PlatesLook {
  readonly theme: Theme;
  readonly ratio: number;
  readonly width: number;
  readonly narrow: boolean;
  readonly scale: Scale;
  readonly sinkAside: boolean;
}

/** A computed pair and where its exact cells come from. */
export interface Shown {
  readonly pair: Pair;
  readonly left: Replay;
  readonly right: Replay;
  readonly result: PairResult;
}

/** The numbers of one cell; NaN = masked, or not on this side. */
export interface Numbers {
  readonly left: number;
  readonly right: number;
  readonly difference: number;
}

const OVERHANG = 28;
/** Title and legend have at least so much room. */
const LEAST_WIDTH = 260;
const TIGHT = { left: 44, top: 30 };

let views = 0;

/** One of the three. */
class Plate {
  readonly canvas = h("canvas", { role: "img" });
  readonly cross = new Crosshair();
  readonly title = h("h4", {});
  readonly legend = h("div", {});
  readonly frame = h("div", { class: "lt-matrix" }, this.canvas, ...this.cross.elements);
  readonly element = h("div", { class: "lt-plate" }, this.title, this.frame, this.legend);
  geometry: MatrixGeometry | null = null;
  /** What its legend says, for pictures. */
  ticks: Ticks = [];
}

export class PlatesView {
  readonly element = h("div", { class: "lt-plates" });
  readonly plates = [new Plate(), new Plate(), new Plate()] as const;
  private readonly tip = new Floating("lt-tip");
  private readonly delay: Timer;
  private readonly twin: Twin;
  private data: ComparisonData | null = null;
  private shown: Shown | null = null;
  private cell: Cell | null = null;

  constructor(
    cleanup: Cleanup,
    private readonly choose: (tokens: number[]) => void,
  ) {
    this.delay = new Timer(cleanup);
    this.twin = new Twin("Both heads", "plates", (r, k) => this.say(r, k), String(++views));
    this.element.append(...this.plates.map((p) => p.element), this.twin.element, this.tip.element);
    for (const plate of this.plates) {
      cleanup.on<PointerEvent>(plate.canvas, "pointermove", (e) => this.point(plate, e));
      cleanup.on(plate.canvas, "pointerleave", () => this.leave());
      cleanup.on<MouseEvent>(plate.canvas, "click", (e) => this.click(plate, e));
    }
    cleanup.on(this.twin.element, "focus", () => this.element.classList.add("lt-focus"));
    cleanup.on(this.twin.element, "blur", () => this.element.classList.remove("lt-focus"));
    cleanup.on(window, "scroll", () => this.leave(), { capture: true, passive: true });
    cleanup.add(() => this.tip.hide());
  }

  show(data: ComparisonData, shown: Shown, cell: Cell | null, look: PlatesLook): void {
    this.data = data;
    this.shown = shown;
    this.cell = cell;
    const { result, pair } = shown;
    this.element.classList.toggle("lt-stacked", look.narrow);
    const planes: (Plane | null)[] = [result.left, result.right, result.difference];
    this.plates.forEach((plate, i) => {
      plate.element.hidden = planes[i] === null;
    });
    this.lay(data, planes, look);
    const limit = roundUp(look.sinkAside && result.mostInner > 0 ? result.mostInner : result.most);
    planes.forEach((plane, i) => {
      if (plane) this.paint(data, this.plates[i]!, plane, i, limit, look);
    });
    this.titles(data, pair, look.narrow || result.difference === null ? LEAST_WIDTH : 0);
    this.legends(limit, look);
    for (const { cross, geometry } of this.plates) cross.choose(geometry, this.within(geometry, cell));
    if (cell) this.showTwin(cell);
  }

  /** Keys step the chosen cell. */
  key(event: KeyboardEvent): boolean {
    const { cell, shown } = this;
    if (!cell || !shown || event.altKey || event.ctrlKey || event.metaKey) return false;
    const { rows, keys } = this.extent;
    const [query, key] = cell;
    const goals: Record<string, Cell> = {
      ArrowLeft: [query, key - 1],
      ArrowRight: [query, key + 1],
      ArrowUp: [query - 1, key],
      ArrowDown: [query + 1, key],
      PageUp: [query - 5, key],
      PageDown: [query + 5, key],
      Home: [query, 0],
      End: [query, keys - 1],
    };
    const goal = goals[event.key];
    if (!goal) return false;
    this.choose([Math.max(0, Math.min(rows - 1, goal[0])), Math.max(0, Math.min(keys - 1, goal[1]))]);
    return true;
  }

  free(): boolean {
    const was = this.tip.shown;
    this.leave();
    return was;
  }

  /** The three numbers of a cell, exactly. */
  numbers([query, key]: Cell): Numbers {
    const { shown } = this;
    const value = (r: Replay | undefined) =>
      r && query < r.rows && key < r.keys ? r.value("softmax", query, key) : Number.NaN;
    const [left, right] = [value(shown?.left), value(shown?.right)];
    const both = shown?.result.difference && !(Number.isNaN(left) && Number.isNaN(right));
    return { left, right, difference: both ? (right || 0) - (left || 0) : Number.NaN };
  }

  say(query: number, key: number): string | null {
    const { data, shown } = this;
    if (!data || !shown || query >= this.extent.rows || key >= this.extent.keys) return null;
    const { left, right, difference } = this.numbers([query, key]);
    const name = (side: Side) =>
      `${side.query_tokens[query] ?? ""} ${query} to ${side.tokens[key] ?? ""} ${key}`;
    const words = [`left ${wordOf(left)}`, `right ${wordOf(right)}`];
    if (shown.result.difference) words.push(`difference ${signed(difference)}`);
    return `${name(query < data.left.query_tokens.length ? data.left : data.right)}: ${words.join(", ")}`;
  }

  /** The boxes on each canvas, for pictures. */
  boxes(plate: number): ReturnType<typeof crossBoxes> {
    const g = this.plates[plate]!.geometry;
    return crossBoxes(g, this.within(g, this.cell));
  }

  private get extent(): { rows: number; keys: number } {
    const { shown } = this;
    const longest = (f: (r: Replay) => number) => (shown ? Math.max(f(shown.left), f(shown.right)) : 0);
    const { difference } = shown?.result ?? {};
    return difference
      ? { rows: difference.covers.rows[1], keys: difference.covers.keys[1] }
      : { rows: longest((r) => r.rows), keys: longest((r) => r.keys) };
  }

  private within(g: MatrixGeometry | null, cell: Cell | null): Cell | null {
    return g && cell && cell[0] < g.rows && cell[1] < g.keys ? cell : null;
  }

  private labels(data: ComparisonData, plate: number): MatrixLabels {
    const one = data.side(plate === 1 ? 1 : 0);
    if (plate !== 2) return { rows: one.query_tokens, keys: one.tokens, kinds: one.kinds };
    const both = (a: readonly string[], b: readonly string[]) =>
      a.map((token, i) => (b[i] === undefined || b[i] === token ? token : `${token}|${b[i]}`));
    return {
      rows: both(data.left.query_tokens, data.right.query_tokens),
      keys: both(data.left.tokens, data.right.tokens),
      kinds: one.kinds,
    };
  }

  /** The same size of cells in all; only the first names the rows, where they stand side by side. */
  private lay(data: ComparisonData, planes: readonly (Plane | null)[], look: PlatesLook): void {
    const ctx = this.plates[0].canvas.getContext("2d");
    if (!ctx) return;
    const there = planes.filter((p) => p !== null);
    const alone = look.narrow || there.length < 3;
    const most = Math.max(...there.map((p) => Math.max(p.covers.rows[1], p.covers.keys[1])));
    const tight = (look.width * (look.narrow ? 0.8 : 0.28)) / most < 2.9;
    const room = (plate: number) =>
      tight ? TIGHT : labelRoom(ctx, this.labels(data, plate), look.theme, planes[plate]!.covers.keys[1], 40);
    const top = Math.max(...planes.map((p, i) => (p ? room(i).top : 0)));
    const widest = Math.max(...planes.map((p, i) => (p ? room(i).left : 0)));
    const left = planes.map((p, i) => (p === null ? 0 : alone ? widest : i === 0 ? room(0).left : 6));
    const columns = look.narrow ? 1 : there.length;
    const named = look.narrow ? widest : left.reduce((sum, x) => sum + x, 0);
    const overhang = tight ? 18 : OVERHANG;
    const inner = Math.floor((look.width - named) / columns) - overhang;
    planes.forEach((plane, i) => {
      const plate = this.plates[i]!;
      plate.geometry = null;
      if (!plane) return;
      const [rows, keys] = [plane.covers.rows[1], plane.covers.keys[1]];
      const width = left[i]! + inner;
      const g = matrixGeometry(rows, keys, { width, left: left[i]!, top }, look.sinkAside, look.ratio);
      plate.geometry = {
        ...g,
        width: Math.min(width, g.left + g.gap + g.first + (keys - 1) * g.cellX + 4) + overhang,
      };
      if (g.gap === 0) plate.geometry = { ...plate.geometry, width: g.left + keys * g.cellX + 4 + overhang };
    });
  }

  private paint(
    data: ComparisonData,
    plate: Plate,
    plane: Plane,
    at: number,
    limit: number,
    look: PlatesLook,
  ): void {
    const { geometry } = plate;
    const { cell, shown } = this;
    if (!geometry || !shown) return;
    const labels = this.labels(data, at);
    const bare = geometry.left < 20 ? { ...labels, rows: labels.rows.map(() => "") } : labels;
    const side = at === 1 ? 1 : 0;
    const layer = side === 0 ? shown.pair.left.layer : shown.pair.right.layer;
    paintMatrix(plate.canvas, {
      matrix: plane.matrix,
      covers: plane.covers,
      geometry,
      labels: { ...bare, positions: plane.covers.rows[1] > 64 && geometry.left >= 20 },
      scale: look.scale,
      sinkAside: look.sinkAside,
      most: 1,
      ...(at === 2 ? { signed: limit } : {}),
      causal: data.layer(side, layer)?.mask === "causal",
      query: this.within(geometry, cell)?.[0] ?? null,
      key: this.within(geometry, cell)?.[1] ?? null,
      theme: look.theme,
      ratio: look.ratio,
    });
    const names = ["Left", "Right", "Difference, right minus left"];
    plate.canvas.setAttribute("aria-label", `${names[at]}. ${cell ? (this.say(...cell) ?? "") : ""}`);
  }

  private titles(data: ComparisonData, { left, right }: Pair, least: number): void {
    const two = data.facts.sides.length === 2;
    const what = (side: 0 | 1, head: HeadId) => {
      const more = two ? data.side(side).label : data.name(side, head);
      return more ? `${headName(head)} \u00b7 ${more}` : headName(head);
    };
    const [a, b, d] = this.plates;
    a.title.replaceChildren(h("b", {}, "A"), h("bdi", {}, what(0, left)));
    b.title.replaceChildren(h("b", {}, "B"), h("bdi", {}, what(1, right)));
    d.title.replaceChildren(h("b", {}, "B \u2212 A"), h("span", {}, "difference of the weights"));
    for (const { title, legend, geometry } of this.plates)
      title.style.maxWidth = legend.style.maxWidth = `${Math.max(least, (geometry?.width ?? 0) - 12)}px`;
  }

  private legends(limit: number, look: PlatesLook): void {
    const { ticks, words } = legend(look.scale, 1);
    const [a, b, d] = this.plates;
    const text = String(limit);
    d.ticks = [
      [0, `\u2212${text}`],
      [0.5, "0"],
      [1, `+${text}`],
    ];
    a.ticks = b.ticks = ticks;
    const sink = look.sinkAside && "first token (sink) stands apart";
    a.legend.replaceChildren(legendOf(look.theme.sequential, ticks, words, sink));
    b.legend.replaceChildren(legendOf(look.theme.sequential, ticks, "the same scale"));
    d.legend.replaceChildren(legendOf(look.theme.diverging, d.ticks, "blue: less in B", "red: more in B"));
    for (const plate of this.plates)
      (plate.legend.firstElementChild as HTMLElement).style.paddingLeft = `${plate.geometry?.left ?? 0}px`;
  }

  private showTwin([query, key]: Cell): void {
    const { rows, keys } = this.extent;
    this.twin.label = `Both heads, rows are queries, columns are keys. ${this.say(query, key) ?? ""}`;
    this.twin.show(rows, keys, query, key, (r, k) => r === query && k === key);
  }

  /** The cell under the pointer: of those under one pixel the one that differs most. */
  private at(plate: Plate, e: MouseEvent): Cell | null {
    const box = plate.canvas.getBoundingClientRect();
    const g = plate.geometry;
    if (!g || box.width === 0) return null;
    const zoom = g.width / box.width;
    const block = blockAt(g, (e.clientX - box.left) * zoom, (e.clientY - box.top) * zoom);
    if (!block) return null;
    let best: Cell = [block.rows[0], block.keys[0]];
    let most = -1;
    for (let q = block.rows[0]; q < block.rows[1]; q++)
      for (let k = block.keys[0]; k < block.keys[1]; k++) {
        const { left, right, difference } = this.numbers([q, k]);
        const size = Math.abs(Number.isNaN(difference) ? left || right || 0 : difference);
        if (size > most) [best, most] = [[q, k], size];
      }
    return best;
  }

  private point(plate: Plate, e: PointerEvent): void {
    const cell = e.pointerType === "touch" ? null : this.at(plate, e);
    if (!cell) {
      this.leave();
      return;
    }
    for (const { cross, geometry } of this.plates) cross.point(geometry, this.within(geometry, cell));
    const show = () => this.showTip(plate, cell);
    if (this.tip.shown) show();
    else this.delay.start(80, show);
  }

  private showTip(plate: Plate, cell: Cell): void {
    const { data, shown } = this;
    const g = plate.geometry;
    if (!data || !shown || !g) return;
    const { left, right, difference } = this.numbers(cell);
    const side = data.side(plate === this.plates[1] ? 1 : 0);
    const token = (names: readonly string[], i: number) =>
      h("bdi", { class: "lt-mono" }, `${names[i] ?? ""}${subscript(i)}`);
    const number = (name: string, text: string) => [
      h("span", { class: "lt-quiet" }, ` ${name} `),
      h("b", {}, text),
    ];
    this.tip.element.replaceChildren(
      token(side.query_tokens, cell[0]),
      h("span", { class: "lt-quiet" }, " \u2192 "),
      token(side.tokens, cell[1]),
      ...number("A", wordOf(left)),
      ...number("B", wordOf(right)),
      ...(shown.result.difference ? number("B \u2212 A", signed(difference)) : []),
    );
    const box = plate.canvas.getBoundingClientRect();
    const size = Math.max(3, g.cellX);
    this.tip.show(
      new DOMRect(box.left + columnX(g, cell[1]), box.top + rowY(g, cell[0]), size, size),
      [],
      12,
    );
  }

  private leave(): void {
    this.delay.stop();
    this.tip.hide();
    for (const { cross, geometry } of this.plates) cross.point(geometry, null);
  }

  private click(plate: Plate, e: MouseEvent): void {
    const cell = this.at(plate, e);
    if (!cell) return;
    this.twin.element.focus({ preventScroll: true });
    this.choose([...cell]);
  }
}

function wordOf(value: number): string {
  return Number.isNaN(value) ? "masked" : smallWeight(value);
}

/** "+0.211", "−0.034"; tiny ones say so. */
export function signed(value: number): string {
  if (Number.isNaN(value)) return "\u2013";
  const text = smallWeight(Math.abs(value));
  if (text.startsWith("<")) return value === 0 ? "0" : `\u00b1${text}`;
  return value === 0 ? "0" : (value < 0 ? "\u2212" : "+") + text;
}
