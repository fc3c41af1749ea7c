// The table with its scroll bar, rings, tooltip and DOM twin.
// In: data, choices, a width. Out: a canvas of the columns that are seen; which cell the user chose.
import { Twin } from "../attention_grid/twin";
import { type Cleanup, Floating, Frame, h, Timer } from "../shared/dom";
import { probability } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { LensData, Measure } from "./data";
import { layoutTable, ROW, seen, shownRows, type TableLayout } from "./layout";
import { paintTable } from "./paint_table";
import { answerWords, cellWords, rowTitle, tokenName } from "./words";

export interface TableChoices {
  readonly theme: Theme;
  readonly ratio: number;
  readonly width: number;
  readonly measure: Measure;
  readonly every: number | null;
  readonly row: number | null;
  readonly position: number;
  readonly chosen: boolean;
}

interface Hears {
  lock(row: number, token: number): void;
  /** Other columns are seen. */
  scrolled(): void;
}

export class TableView {
  readonly canvas = h("canvas", { role: "img" });
  private readonly spacer = h("div", { class: "lt-ll-spacer" });
  private readonly scroller = h("div", { class: "lt-ll-scroller" }, this.spacer);
  private readonly hoverRing = h("div", { class: "lt-ring lt-ring-hover", hidden: true });
  private readonly lockRing = h("div", { class: "lt-ring lt-ring-lock", hidden: true });
  private readonly focusRing = h("div", { class: "lt-ring lt-ring-focus", hidden: true });
  private readonly tip = new Floating("lt-tip lt-ll-tip");
  private readonly twin: Twin;
  readonly element: HTMLElement;
  private readonly delay: Timer;
  private readonly frame: Frame;
  private data: LensData | null = null;
  private choices: TableChoices | null = null;
  private layout: TableLayout | null = null;
  private cursor: [number, number] = [0, 0];
  private focused = false;
  private byKeys = true;
  private reached = -1;

  constructor(
    private readonly hears: Hears,
    unique: string,
    cleanup: Cleanup,
  ) {
    this.twin = new Twin("Logit lens", "table", (r, c) => this.say(r, c), unique);
    this.element = h(
      "div",
      { class: "lt-ll-table" },
      this.canvas,
      this.scroller,
      this.twin.element,
      this.tip.element,
    );
    this.spacer.append(this.hoverRing, this.lockRing, this.focusRing);
    this.delay = new Timer(cleanup);
    this.frame = new Frame(cleanup, () => this.paint());
    cleanup.on(this.scroller, "scroll", () => {
      this.hideTip();
      this.frame.ask();
      this.hears.scrolled();
    });
    cleanup.on<PointerEvent>(this.spacer, "pointermove", (e) => this.over(e));
    cleanup.on(this.spacer, "pointerleave", () => this.hideTip());
    cleanup.on<MouseEvent>(this.spacer, "click", (e) => this.click(e));
    cleanup.on(this.twin.element, "focus", () => this.focus(true));
    cleanup.on(this.twin.element, "blur", () => this.focus(false));
  }

  show(data: LensData, choices: TableChoices): void {
    const first = this.data === null;
    this.data = data;
    this.choices = choices;
    const rows = shownRows(data.facts.rows, choices.every, choices.row);
    const layout = layoutTable(data, choices.width, rows);
    const before = this.layout;
    const [from, to] = this.seen();
    this.layout = layout;
    this.element.style.width = `${layout.width}px`;
    this.element.style.paddingBottom = `${layout.fit < data.tokens ? 12 : 0}px`;
    this.scroller.style.left = `${layout.gutter}px`;
    this.spacer.style.width = `${layout.cell * data.tokens + 2}px`;
    this.spacer.style.height = `${layout.height}px`;
    if (first) this.cursor = [0, choices.position];
    if (first || this.reached >= 0) this.scrollTo(first ? choices.position : this.reached);
    else if (before && (before.cell !== layout.cell || before.width !== layout.width)) {
      // Another width: what was read stays in sight, else what was first stays first.
      this.scroller.scrollLeft = from * layout.cell;
      if (choices.position >= from && choices.position < to) this.scrollTo(choices.position);
    }
    this.reached = -1;
    this.paint();
    this.rings();
    const cell = choices.row === null ? null : data.cell(choices.row, choices.position);
    const finding = cell
      ? `${rowTitle(choices.row!)}, ${this.name(choices.position)}: ${cellWords(data, cell, choices.position)}. `
      : "";
    this.canvas.setAttribute(
      "aria-label",
      `${finding}Logit lens, ${rows.length} rows, ${data.tokens} tokens`,
    );
    this.twin.label = "Logit lens: rows are layers, the output on top, columns are tokens. Enter locks";
    if (this.focused) this.showTwin();
  }

  get width(): number {
    return this.layout?.width ?? 0;
  }

  /** First and last column, exclusive, of which something is seen. */
  seen(): [number, number] {
    if (!this.layout || !this.data) return [0, 0];
    return seen(this.layout, this.scroller.scrollLeft, this.data.tokens);
  }

  /** Scrolls to a column when it is next drawn. */
  reveal(position: number): void {
    this.reached = position;
  }

  /** The locked cell on the canvas, for a picture. */
  lockedBox(): { x: number; y: number; width: number; height: number; thick: boolean }[] {
    const { choices, layout } = this;
    const at = choices?.row === null || !layout ? -1 : layout.rows.indexOf(choices!.row!);
    if (at < 0 || !layout || !choices) return [];
    const x = layout.gutter + choices.position * layout.cell - this.scroller.scrollLeft;
    if (x < layout.gutter || x + layout.cell > layout.width + 1) return [];
    return [{ x, y: layout.head + at * ROW, width: layout.cell - 1, height: ROW - 1, thick: true }];
  }

  hideTip(): boolean {
    this.delay.stop();
    const shown = this.tip.shown;
    this.tip.hide();
    this.hoverRing.hidden = true;
    return shown;
  }

  // --------------------------------------------------------------------------- drawing

  private paint(): void {
    const { data, choices, layout } = this;
    if (!data || !choices || !layout) return;
    paintTable(this.canvas, data, layout, { ...choices, scroll: this.scroller.scrollLeft });
  }

  private scrollTo(position: number): void {
    const { layout } = this;
    if (!layout) return;
    const room = layout.width - layout.gutter;
    const { scrollLeft } = this.scroller;
    const x = position * layout.cell;
    if (x < scrollLeft) this.scroller.scrollLeft = x;
    else if (x + layout.cell > scrollLeft + room) this.scroller.scrollLeft = x + layout.cell - room;
  }

  private rings(): void {
    const { layout, choices } = this;
    if (!layout || !choices) return;
    const at = (ring: HTMLElement, r: number, c: number, out: number) => {
      ring.hidden = r < 0;
      ring.style.transform = `translate(${c * layout.cell - out}px, ${layout.head + r * ROW - out}px)`;
      ring.style.width = `${layout.cell - 1.5 + 2 * out}px`;
      ring.style.height = `${ROW - 1.5 + 2 * out}px`;
    };
    at(this.lockRing, choices.row === null ? -1 : layout.rows.indexOf(choices.row), choices.position, 1.5);
    at(this.focusRing, this.focused && this.byKeys ? this.cursor[0] : -1, this.cursor[1], 4);
  }

  // --------------------------------------------------------------------------- pointer

  private at(e: MouseEvent): [number, number] | null {
    const { layout, data } = this;
    if (!layout || !data) return null;
    const box = this.spacer.getBoundingClientRect();
    const column = Math.floor((e.clientX - box.left) / layout.cell);
    const row = Math.floor((e.clientY - box.top - layout.head) / ROW);
    if (column < 0 || column >= data.tokens || row >= layout.rows.length) return null;
    return [Math.max(row, -1), column];
  }

  private over(e: PointerEvent): void {
    if (e.pointerType === "touch" || e.buttons !== 0) return;
    const at = this.at(e);
    this.spacer.style.cursor = at ? "pointer" : "";
    if (at) this.preview(at[0], at[1]);
    else this.hideTip();
  }

  private preview(r: number, c: number): void {
    const { layout } = this;
    if (!layout) return;
    const [y, tall] = r < 0 ? [0, layout.head] : [layout.head + r * ROW, ROW];
    this.hoverRing.hidden = r < 0;
    this.hoverRing.style.transform = `translate(${c * layout.cell - 2}px, ${y - 2}px)`;
    this.hoverRing.style.width = `${layout.cell + 2.5}px`;
    this.hoverRing.style.height = `${tall + 2.5}px`;
    const show = () => {
      const box = this.spacer.getBoundingClientRect();
      const target = new DOMRect(box.left + c * layout.cell, box.top + y, layout.cell, tall);
      this.tip.element.replaceChildren(...this.explain(r, c));
      this.tip.show(target, this.lockRing.hidden ? [] : [this.lockRing.getBoundingClientRect()], 10);
    };
    if (this.tip.shown) show();
    else this.delay.start(80, show);
  }

  private explain(r: number, c: number): Node[] {
    const { data, layout } = this;
    if (!data || !layout) return [];
    const name = h("span", { class: "lt-mono" }, this.name(c));
    if (r < 0) return [name];
    const row = layout.rows[r]!;
    const title = h("div", {}, h("b", {}, `${rowTitle(row)} `), name);
    const cell = data.cell(row, c);
    if (!cell) return [title, h("div", { class: "lt-quiet" }, data.has(c) ? "not measured" : "not read yet")];
    const lines = [...cell.ids].flatMap((id, i) => [
      h("bdi", { class: "lt-mono" }, data.word(id)),
      h("span", { class: "lt-number" }, probability(cell.probabilities[i]!)),
    ]);
    return [
      title,
      h("div", { class: "lt-ll-tip-list" }, ...lines),
      h("div", { class: "lt-quiet" }, answerWords(data, cell, c)),
      h("div", { class: "lt-quiet" }, `entropy ${cell.entropy.toFixed(2)} nats`),
      h("div", { class: "lt-quiet" }, `${cell.kl.toFixed(2)} nats (KL) from what the model ends with`),
    ];
  }

  private click(e: MouseEvent): void {
    const at = this.at(e);
    if (!at) return;
    this.byKeys = false;
    this.cursor = [Math.max(0, at[0]), at[1]];
    this.twin.element.focus({ preventScroll: true });
    this.hideTip();
    const row = at[0] < 0 ? (this.choices?.row ?? this.layout!.rows[0]!) : this.layout!.rows[at[0]]!;
    this.hears.lock(row, at[1]);
  }

  // --------------------------------------------------------------------------- keyboard

  /** Takes a key; true when it used it. */
  key(event: KeyboardEvent, target: HTMLElement): boolean {
    const { layout, data } = this;
    if (target !== this.twin.element || !layout || !data) return false;
    const [r, c] = this.cursor;
    if (event.key === "Enter") {
      this.hears.lock(layout.rows[r]!, c);
      return true;
    }
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [r, c - 1],
      ArrowRight: [r, c + 1],
      ArrowUp: [r - 1, c],
      ArrowDown: [r + 1, c],
      PageUp: [r - 5, c],
      PageDown: [r + 5, c],
      Home: [r, 0],
      End: [r, data.tokens - 1],
    };
    const to = steps[event.key];
    if (!to) return false;
    const within = (v: number, n: number) => Math.max(0, Math.min(n - 1, v));
    this.byKeys = true;
    this.cursor = [within(to[0], layout.rows.length), within(to[1], data.tokens)];
    this.scrollTo(this.cursor[1]);
    this.rings();
    this.showTwin();
    this.preview(...this.cursor);
    return true;
  }

  private focus(on: boolean): void {
    this.focused = on;
    if (!on) {
      this.hideTip();
      this.byKeys = true;
    }
    this.rings();
    if (on) this.showTwin();
  }

  private showTwin(): void {
    const { layout, data, choices } = this;
    if (!layout || !data || !choices) return;
    const [r, c] = [
      Math.min(this.cursor[0], layout.rows.length - 1),
      Math.min(this.cursor[1], data.tokens - 1),
    ];
    this.cursor = [r, c];
    this.twin.show(
      layout.rows.length,
      data.tokens,
      r,
      c,
      (row, column) => layout.rows[row] === choices.row && column === choices.position,
    );
  }

  private say(r: number, c: number): string | null {
    const { data, layout } = this;
    if (!data || !layout) return null;
    const row = layout.rows[r]!;
    const cell = data.cell(row, c);
    return `${rowTitle(row)}, ${this.name(c)}: ${cell ? cellWords(data, cell, c) : "not read yet"}`;
  }

  private name(position: number): string {
    return this.data ? tokenName(this.data, position) : "";
  }
}
