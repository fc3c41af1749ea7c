// The byte map: one canvas, its rings, its DOM twin. A hover or a step draws nothing anew; what is drawn is a look-up.
// In: columns, layout, shades. Out: DOM, and the leaf that was pointed at or chosen.
import { Twin } from "../attention_grid/twin";
import { type Cleanup, h } from "../shared/dom";
import type { Theme } from "../shared/theme";
import { inkOn, type Overlay, type Shades, shadesOf, typeColour } from "./colours";
import type { TreeData } from "./data";
import { boxOf, type Column, type Layout, labelled, type Raster, rasterize } from "./layout";

/** Room for the labels of layers below the map. */
export const AXIS = 18;
/** The least room in which a tensor's name is written on it. */
const [NAME_WIDTH, NAME_HEIGHT] = [96, 50];

export interface MapEvents {
  hover(leaf: number, map: ByteMap): void;
  leave(): void;
  choose(leaf: number, map: ByteMap): void;
  isolate(leaf: number): void;
  clear(): void;
  /** A leaf in words, for screen readers. */
  say(leaf: number, map: ByteMap): string;
}

/** What stands on a large leaf: its name, and a line below it. */
export type Words = (leaf: number) => readonly [string, string];

export class ByteMap {
  readonly element = h("div", { class: "lt-at-map" });
  readonly canvas = h("canvas", { role: "img" });
  private readonly hoverRing = h("div", { class: "lt-ring lt-ring-hover", hidden: true });
  private readonly lockRing = h("div", { class: "lt-ring lt-ring-lock", hidden: true });
  private readonly focusRing = h("div", { class: "lt-ring lt-ring-focus", hidden: true });
  private readonly axis = h("div", { class: "lt-at-axis", "aria-hidden": "true" });
  readonly twin: Twin;
  data: TreeData | null = null;
  columns: readonly Column[] = [];
  /** What stands below the map. */
  labels: readonly { label: string; x: number }[] = [];
  private layout: Layout | null = null;
  private raster: Raster | null = null;
  private shades: Shades | null = null;
  private locked: readonly [number, number] | null = null;
  private cursor: [row: number, column: number] = [0, 0];
  private focused = false;
  private byKeys = true;
  private made = "";

  constructor(
    name: string,
    private readonly events: MapEvents,
    cleanup: Cleanup,
    unique: string,
  ) {
    this.twin = new Twin(name, `map-${name.replace(/\W+/g, "-")}`, (r, c) => this.say(r, c), unique);
    const layers = [this.canvas, this.hoverRing, this.lockRing, this.focusRing, this.axis, this.twin.element];
    this.element.append(...layers);
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.over(e));
    cleanup.on(this.canvas, "pointerleave", () => this.leave());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => this.click(e));
    cleanup.on<MouseEvent>(this.canvas, "dblclick", (e) => {
      const leaf = this.at(e);
      if (leaf >= 0) events.isolate(leaf);
    });
    cleanup.on(this.twin.element, "focus", () => this.focus(true));
    cleanup.on(this.twin.element, "blur", () => this.focus(false));
  }

  /** Draws a model; what has not changed is kept. */
  show(
    data: TreeData,
    columns: readonly Column[],
    layout: Layout,
    overlay: Overlay,
    theme: Theme,
    kept: Uint8Array | null,
    ratio: number,
    words: Words,
  ): void {
    this.data = data;
    this.columns = columns;
    const key = `${layout.width},${layout.height},${layout.area},${ratio}`;
    if (this.layout !== layout || this.made !== key || !this.raster)
      this.raster = rasterize(data, columns, layout, ratio);
    this.layout = layout;
    this.made = key;
    this.shades = shadesOf(data, overlay, theme, kept);
    const { width, height } = this.raster;
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.style.width = `${layout.width}px`;
    this.canvas.style.height = `${layout.height}px`;
    this.element.style.height = `${layout.height + AXIS}px`;
    const ctx = this.canvas.getContext("2d");
    if (ctx) {
      this.paint(ctx, this.raster, this.shades, ratio);
      if (kept) this.mark(ctx, kept, ratio);
      this.name(ctx, overlay, theme, kept, ratio, words);
    }
    this.labels = labelled(layout, 34);
    this.axis.replaceChildren(
      ...this.labels.map(({ label, x }) => {
        const mark = h("span", {}, label);
        mark.style.left = `${Math.max(8, Math.min(layout.width - 8, x))}px`;
        return mark;
      }),
    );
    this.lock(this.locked);
    if (this.focused) this.showTwin();
  }

  private paint(ctx: CanvasRenderingContext2D, raster: Raster, shades: Shades, ratio: number): void {
    const { width, height, owner, edge } = raster;
    const image = ctx.createImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    const { first, second, texture, paper } = shades;
    const period = Math.round(6 * ratio);
    const thick = Math.max(1, Math.round(1.4 * ratio));
    const dots = Math.round(5 * ratio);
    for (let y = 0; y < height; y++) {
      const row = y * width;
      for (let x = 0; x < width; x++) {
        const i = row + x;
        const leaf = owner[i]!;
        if (leaf < 0 || edge[i] === 1) {
          words[i] = paper;
          continue;
        }
        const kind = texture[leaf]!;
        const other =
          kind === 1 ? (x + y) % period < thick : kind === 2 && x % dots < thick && y % dots < thick;
        words[i] = other ? second[leaf]! : first[leaf]!;
      }
    }
    ctx.putImageData(image, 0, 0);
  }

  /** Kept leaves that are too small for a pixel get one: what was searched for must be seen. */
  private mark(ctx: CanvasRenderingContext2D, kept: Uint8Array, ratio: number): void {
    const { data, layout } = this;
    if (!data || !layout) return;
    const seen = new Set<number>();
    for (const leaf of this.raster!.owner) if (leaf >= 0) seen.add(leaf);
    for (const column of this.columns)
      for (let leaf = column.first; leaf < column.end; leaf++) {
        if (kept[leaf] !== 1 || seen.has(leaf)) continue;
        const box = boxOf(data, [column], layout, leaf, leaf + 1);
        if (!box) continue;
        const [r, g, b] = unpack(this.shades!.first[leaf]!);
        ctx.fillStyle = `rgb(${r},${g},${b})`;
        const [w, t] = [Math.max(box.width * ratio, ratio), Math.max(box.height * ratio, ratio)];
        ctx.fillRect(Math.floor(box.x * ratio), Math.floor(box.y * ratio), w, t);
      }
  }

  /** Names on what is large enough for one. */
  private name(
    ctx: CanvasRenderingContext2D,
    overlay: Overlay,
    theme: Theme,
    kept: Uint8Array | null,
    ratio: number,
    words: Words,
  ): void {
    const { data, layout } = this;
    if (!data || !layout) return;
    ctx.save();
    ctx.scale(ratio, ratio);
    ctx.textBaseline = "alphabetic";
    for (const column of this.columns) {
      const placed = layout.columns.find((c) => c.key === column.key)!;
      if (placed.width < NAME_WIDTH) continue;
      let y = 0;
      for (let leaf = column.first; leaf < column.end; leaf++) {
        const tall = (data.leafBytes[leaf]! * layout.area) / placed.width;
        if (tall >= NAME_HEIGHT && (kept === null || kept[leaf] === 1)) {
          const box = new DOMRect(placed.x, y, placed.width, tall);
          this.nameOne(ctx, leaf, box, overlay, theme, words(leaf));
        }
        y += tall;
      }
    }
    ctx.restore();
  }

  private nameOne(
    ctx: CanvasRenderingContext2D,
    leaf: number,
    box: DOMRect,
    overlay: Overlay,
    theme: Theme,
    [name, more]: readonly [string, string],
  ): void {
    const [r, g, b] = unpack(this.shades!.first[leaf]!);
    const colour =
      overlay.values === null && this.data!.leafType[leaf]! >= 0
        ? typeColour(this.data!.typeOf(leaf), theme)
        : ([r, g, b] as const);
    const room = box.width - 28;
    ctx.font = `600 12px ${theme.mono}`;
    const title = cut(ctx, name, room);
    const wide = ctx.measureText(title).width;
    ctx.font = `11px ${theme.sans}`;
    const line = cut(ctx, more, room);
    const width = Math.max(wide, ctx.measureText(line).width) + 12;
    ctx.fillStyle = `rgb(${colour.join(",")})`;
    ctx.fillRect(box.x + 6, box.y + 6, width, 36);
    ctx.fillStyle = inkOn(colour);
    ctx.fillText(line, box.x + 12, box.y + 35);
    ctx.font = `600 12px ${theme.mono}`;
    ctx.fillText(title, box.x + 12, box.y + 20);
  }

  // ------------------------------------------------------------------------------ rings

  /** Rings what is chosen: leaves [first, end); null for nothing. */
  lock(range: readonly [number, number] | null): void {
    this.locked = range;
    this.ring(this.lockRing, range, 2);
    if (range && !this.focused) this.cursor = this.cellOf(range[0]);
  }

  /** Where what is chosen is, in px of the canvas. */
  get chosen(): DOMRect | null {
    const { data, layout, locked } = this;
    return data && layout && locked ? boxOf(data, this.columns, layout, ...locked) : null;
  }

  hover(leaf: number): void {
    this.ring(this.hoverRing, leaf < 0 ? null : [leaf, leaf + 1], 1);
  }

  private ring(ring: HTMLElement, range: readonly [number, number] | null, out: number): void {
    const box =
      range && range[1] > range[0] && this.data && this.layout
        ? boxOf(this.data, this.columns, this.layout, range[0], range[1])
        : null;
    ring.hidden = box === null;
    if (!box) return;
    const [width, height] = [Math.max(4, box.width), Math.max(4, box.height)];
    ring.style.transform = `translate(${box.x - out}px, ${box.y - out}px)`;
    ring.style.width = `${width + 2 * out}px`;
    ring.style.height = `${height + 2 * out}px`;
  }

  /** Where a leaf is on the screen. */
  screenBox(leaf: number): DOMRect {
    const canvas = this.canvas.getBoundingClientRect();
    const box = this.data && this.layout ? boxOf(this.data, this.columns, this.layout, leaf, leaf + 1) : null;
    if (!box) return canvas;
    return new DOMRect(canvas.left + box.x, canvas.top + box.y, box.width, box.height);
  }

  // ---------------------------------------------------------------------------- pointer

  private at(e: MouseEvent): number {
    if (!this.raster || !this.layout) return -1;
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor(((e.clientX - box.left) / this.layout.width) * this.raster.width);
    const y = Math.floor(((e.clientY - box.top) / this.layout.height) * this.raster.height);
    if (x < 0 || y < 0 || x >= this.raster.width || y >= this.raster.height) return -1;
    return this.raster.owner[y * this.raster.width + x] ?? -1;
  }

  private over(e: PointerEvent): void {
    if (e.pointerType === "touch" || e.buttons !== 0) return;
    const leaf = this.at(e);
    this.canvas.style.cursor = leaf >= 0 ? "pointer" : "";
    this.hover(leaf);
    if (leaf >= 0) this.events.hover(leaf, this);
    else this.events.leave();
  }

  private leave(): void {
    this.hover(-1);
    this.events.leave();
  }

  private click(e: MouseEvent): void {
    const leaf = this.at(e);
    this.byKeys = false;
    if (leaf >= 0) this.cursor = this.cellOf(leaf);
    this.twin.element.focus({ preventScroll: true });
    this.leave();
    if (leaf >= 0) this.events.choose(leaf, this);
    else this.events.clear();
  }

  // --------------------------------------------------------------------------- keyboard

  private cellOf(leaf: number): [number, number] {
    const column = this.columns.findIndex((c) => leaf >= c.first && leaf < c.end);
    return column < 0 ? [0, 0] : [leaf - this.columns[column]!.first, column];
  }

  private leafAt(row: number, column: number): number {
    const own = this.columns[column];
    return own && row >= 0 && own.first + row < own.end ? own.first + row : -1;
  }

  private say(row: number, column: number): string | null {
    const leaf = this.leafAt(row, column);
    return leaf < 0 ? null : this.events.say(leaf, this);
  }

  private focus(on: boolean): void {
    this.focused = on;
    if (on) this.showTwin();
    else {
      this.byKeys = true;
      this.leave();
    }
    this.ringFocus();
  }

  private ringFocus(): void {
    const leaf = this.leafAt(...this.cursor);
    const on = this.focused && this.byKeys && leaf >= 0;
    this.ring(this.focusRing, on ? [leaf, leaf + 1] : null, 4);
  }

  private showTwin(): void {
    const rows = this.columns.reduce((most, c) => Math.max(most, c.end - c.first), 0);
    const [from, to] = this.locked ?? [-1, -1];
    this.twin.show(rows, this.columns.length, ...this.cursor, (r, c) => {
      const leaf = this.leafAt(r, c);
      return leaf >= from && leaf < to;
    });
  }

  /** A key that was pressed on the map; whether it was used. */
  key(e: KeyboardEvent): boolean {
    const [row, column] = this.cursor;
    const last = this.columns.length - 1;
    const leaf = this.leafAt(row, column);
    if (e.key === "Enter") {
      if (leaf >= 0 && e.shiftKey) this.events.isolate(leaf);
      else if (leaf >= 0) this.events.choose(leaf, this);
      return true;
    }
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      PageUp: [row, column - 5],
      PageDown: [row, column + 5],
      Home: [row, 0],
      End: [row, last],
    };
    const to = steps[e.key];
    if (!to) return false;
    this.byKeys = true;
    const c = Math.max(0, Math.min(last, to[1]));
    const own = this.columns[c];
    if (!own) return true;
    this.cursor = [Math.max(0, Math.min(own.end - own.first - 1, to[0])), c];
    this.ringFocus();
    this.showTwin();
    const now = this.leafAt(...this.cursor);
    if (now >= 0) this.events.hover(now, this);
    return true;
  }
}

/** Leaves of a node that can be ringed: the model itself is not, and a head has none of its own. */
export function lockedRange(data: TreeData, node: number): readonly [number, number] | null {
  if (node <= 0) return null;
  const [first, end] = data.leavesOf(node);
  return first < end ? [first, end] : null;
}

/** Red, green, blue of a pixel of ImageData. */
function unpack(word: number): [number, number, number] {
  const bytes = new Uint8Array(Uint32Array.of(word).buffer);
  return [bytes[0]!, bytes[1]!, bytes[2]!];
}

/** A text cut to a width, with the font that is set. */
function cut(ctx: CanvasRenderingContext2D, text: string, room: number): string {
  if (ctx.measureText(text).width <= room) return text;
  let short = text;
  while (short.length > 1 && ctx.measureText(`${short}\u2026`).width > room) short = short.slice(0, -1);
  return `${short}\u2026`;
}
