// How much alike all heads of one trace are: a square in which like heads stand side by side.
// In: overlaps in the clustered order, the chosen pair. Out: pixels, rings, a DOM twin; which two heads were chosen.
import { Twin } from "../attention_grid/twin";
import { css, pixels } from "../shared/colour";
import { type Cleanup, Floating, h, Timer } from "../shared/dom";
import { weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import { type ComparisonData, type HeadId, headName, type Pair, sameHead } from "./data";
import { legendOf } from "./legend";

export interface ClustersLook {
  readonly theme: Theme;
  readonly ratio: number;
  readonly width: number;
}

/** Room for the strip that says how deep in the model each head is. */
const STRIP = 9;
const MOST_SIDE = 470;

let views = 0;

export class ClustersView {
  readonly canvas = h("canvas", { role: "img" });
  readonly element: HTMLElement;
  private readonly frame = h("div", { class: "lt-clusters" });
  private readonly rings = [0, 1].map(() => h("div", { class: "lt-ring lt-ring-lock", hidden: true }));
  private readonly lines = [0, 1].map(() => h("div", { class: "lt-cross lt-cluster-line", hidden: true }));
  private readonly cursorRing = h("div", { class: "lt-ring lt-ring-hover", hidden: true });
  private readonly legend = h("div", {});
  private readonly tip = new Floating("lt-tip");
  private readonly delay: Timer;
  private readonly twin: Twin;
  private data: ComparisonData | null = null;
  private look: ClustersLook | null = null;
  /** Heads in their order. */
  private order: readonly number[] = [];
  private chosen: readonly [number, number] = [0, 0];
  private cursor: readonly [number, number] | null = null;
  private side = 0;
  private painted = "";

  constructor(
    cleanup: Cleanup,
    private readonly choose: (pair: Pair) => void,
  ) {
    this.delay = new Timer(cleanup);
    this.twin = new Twin("How much alike heads are", "clusters", (i, j) => this.say(i, j), String(++views));
    this.frame.append(
      this.canvas,
      ...this.lines,
      ...this.rings,
      this.cursorRing,
      this.twin.element,
      this.tip.element,
    );
    this.element = h("div", {}, this.frame, this.legend);
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.point(e));
    cleanup.on(this.canvas, "pointerleave", () => this.leave());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => this.click(e));
    cleanup.on(this.twin.element, "focus", () => this.step(this.cursor ?? this.chosen));
    cleanup.on(this.twin.element, "blur", () => this.leave());
    cleanup.on(window, "scroll", () => this.leave(), { capture: true, passive: true });
    cleanup.add(() => this.tip.hide());
  }

  show(data: ComparisonData, pair: Pair, look: ClustersLook): void {
    this.data = data;
    this.look = look;
    this.order = data.facts.order;
    this.chosen = [this.placeOf(pair.left), this.placeOf(pair.right)];
    const room = Math.min(look.width, MOST_SIDE) - STRIP;
    const n = this.order.length;
    const device = Math.floor((room * look.ratio) / n);
    this.side = device >= 1 ? (device * n) / look.ratio : room;
    const key = [n, this.side, look.ratio, css(look.theme.paper), css(look.theme.ink)].join();
    if (key !== this.painted) this.paint(data, look);
    this.painted = key;
    this.canvas.setAttribute("aria-label", `Overlap of ${n} heads. ${this.say(...this.chosen) ?? ""}`);
    this.mark();
    this.showTwin(this.cursor ?? this.chosen);
  }

  key(event: KeyboardEvent): boolean {
    if (event.altKey || event.ctrlKey || event.metaKey) return false;
    const [i, j] = this.cursor ?? this.chosen;
    if (event.key === "Enter" || event.key === " ") {
      this.take(i, j);
      return true;
    }
    const last = this.order.length - 1;
    const goals: Record<string, readonly [number, number]> = {
      ArrowLeft: [i, j - 1],
      ArrowRight: [i, j + 1],
      ArrowUp: [i - 1, j],
      ArrowDown: [i + 1, j],
      PageUp: [i - 5, j],
      PageDown: [i + 5, j],
      Home: [i, 0],
      End: [i, last],
    };
    const goal = goals[event.key];
    if (!goal) return false;
    this.step([Math.max(0, Math.min(last, goal[0])), Math.max(0, Math.min(last, goal[1]))]);
    return true;
  }

  free(): boolean {
    const was = this.tip.shown;
    this.leave();
    return was;
  }

  private head(at: number): HeadId {
    return this.data!.owners[0]![this.order[at]!]!;
  }

  private placeOf(head: HeadId): number {
    const index = this.data!.owners[0]!.findIndex((own) => sameHead(own, head));
    return Math.max(0, this.order.indexOf(index));
  }

  private take(i: number, j: number): void {
    this.choose({ left: this.head(i), right: this.head(j) });
  }

  private say(i: number, j: number): string | null {
    const { data } = this;
    if (!data || i >= this.order.length || j >= this.order.length) return null;
    const value = data.overlap(this.order[i]!, this.order[j]!);
    return `${headName(this.head(i))} and ${headName(this.head(j))}: overlap ${weight(value, 2)}`;
  }

  private paint(data: ComparisonData, look: ClustersLook): void {
    const ctx = this.canvas.getContext("2d");
    if (!ctx) return;
    const { theme, ratio } = look;
    const n = this.order.length;
    const total = this.side + STRIP;
    this.canvas.width = Math.round(total * ratio);
    this.canvas.height = Math.round(total * ratio);
    this.canvas.style.width = this.canvas.style.height = `${total}px`;
    const small = document.createElement("canvas");
    small.width = small.height = n;
    const inner = small.getContext("2d");
    if (!inner) return;
    const image = inner.createImageData(n, n);
    const words = new Uint32Array(image.data.buffer);
    const table = pixels(theme.sequential, theme.paper);
    const low = data.lowest;
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) {
        const share = (data.overlap(this.order[i]!, this.order[j]!) - low) / (1 - low);
        words[i * n + j] = table[Math.round(Math.max(0, Math.min(1, share)) * 255)]!;
      }
    inner.putImageData(image, 0, 0);
    ctx.imageSmoothingEnabled = false;
    const at = Math.round(STRIP * ratio);
    const size = Math.round(this.side * ratio);
    ctx.drawImage(small, at, at, size, size);
    this.paintDepth(ctx, data, look, at, size);
    const ticks = [
      [0, `\u2264 ${weight(low, 1)}`],
      [0.5, weight((low + 1) / 2, 2)],
      [1, "1"],
    ] as const;
    this.legend.replaceChildren(
      legendOf(
        theme.sequential,
        ticks,
        "overlap: mean of \u03a3\u221a(p\u00b7q), 1 = the same",
        "grey edge: first layer light, last dark",
      ),
    );
  }

  /** Edges in grey: how deep in the model each head is. */
  private paintDepth(
    ctx: CanvasRenderingContext2D,
    data: ComparisonData,
    { theme, ratio }: ClustersLook,
    at: number,
    size: number,
  ): void {
    const n = this.order.length;
    const layers = data.left.layers.map((l) => l.layer);
    const line = Math.max(1, Math.round((STRIP - 4) * ratio));
    for (let i = 0; i < n; i++) {
      const depth = layers.indexOf(this.head(i).layer) / Math.max(1, layers.length - 1);
      ctx.fillStyle = css(theme.ink2);
      ctx.globalAlpha = 0.12 + 0.88 * depth;
      const [from, to] = [at + Math.round((i * size) / n), at + Math.round(((i + 1) * size) / n)];
      ctx.fillRect(0, from, line, to - from);
      ctx.fillRect(from, 0, to - from, line);
    }
    ctx.globalAlpha = 1;
  }

  private mark(): void {
    const [i, j] = this.chosen;
    const cell = this.side / this.order.length;
    const size = Math.max(9, cell + 4);
    const middle = (at: number) => STRIP + (at + 0.5) * cell;
    this.rings.forEach((ring, r) => {
      const [row, column] = r === 0 ? [i, j] : [j, i];
      ring.hidden = false;
      ring.style.transform = `translate(${middle(column) - size / 2}px, ${middle(row) - size / 2}px)`;
      ring.style.width = ring.style.height = `${size}px`;
    });
    const [row, column] = [this.lines[0]!, this.lines[1]!];
    row.hidden = column.hidden = false;
    row.style.cssText = `left:0;top:${middle(i)}px;width:${STRIP + this.side}px;height:0`;
    column.style.cssText = `top:0;left:${middle(j)}px;height:${STRIP + this.side}px;width:0`;
  }

  private at(e: MouseEvent): readonly [number, number] | null {
    const box = this.canvas.getBoundingClientRect();
    const n = this.order.length;
    const place = (v: number) => Math.floor(((v - STRIP) / this.side) * n);
    const [i, j] = [place(e.clientY - box.top), place(e.clientX - box.left)];
    return i >= 0 && j >= 0 && i < n && j < n ? [i, j] : null;
  }

  private point(e: PointerEvent): void {
    const place = this.at(e);
    if (!place || e.pointerType === "touch") {
      this.leave();
      return;
    }
    this.cursor = place;
    this.ring(place);
    if (this.tip.shown) this.showTip(place);
    else this.delay.start(80, () => this.showTip(place));
  }

  private click(e: MouseEvent): void {
    const place = this.at(e);
    if (!place) return;
    this.twin.element.focus({ preventScroll: true });
    this.take(...place);
  }

  private step(place: readonly [number, number]): void {
    this.cursor = place;
    this.ring(place);
    this.showTwin(place);
    this.showTip(place);
  }

  private leave(): void {
    this.cursor = null;
    this.cursorRing.hidden = true;
    this.delay.stop();
    this.tip.hide();
  }

  private ring([i, j]: readonly [number, number]): void {
    const cell = this.side / this.order.length;
    const size = Math.max(7, cell + 2);
    const middle = (at: number) => STRIP + (at + 0.5) * cell - size / 2;
    this.cursorRing.hidden = false;
    this.cursorRing.style.transform = `translate(${middle(j)}px, ${middle(i)}px)`;
    this.cursorRing.style.width = this.cursorRing.style.height = `${size}px`;
  }

  private showTip(place: readonly [number, number]): void {
    const words = this.say(...place);
    if (words === null || !this.look) return;
    this.tip.element.textContent = words;
    const box = this.canvas.getBoundingClientRect();
    const cell = this.side / this.order.length;
    const [x, y] = [box.left + STRIP + place[1] * cell, box.top + STRIP + place[0] * cell];
    this.tip.show(new DOMRect(x, y, cell, cell), [], 12);
  }

  private showTwin(place: readonly [number, number]): void {
    const n = this.order.length;
    const [i, j] = this.chosen;
    this.twin.label = `How much alike heads are, clustered. ${this.say(i, j) ?? ""}`;
    this.twin.show(n, n, place[0], place[1], (r, c) => r === i && c === j);
  }
}
