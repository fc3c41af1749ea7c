// A map of drift: rows by columns on one logarithmic scale, with its tooltip, its ring and its DOM twin.
// In: values (NaN = not measured), names, a width. Out: a canvas and a legend; which cell was chosen.
import { Twin } from "../attention_grid/twin";
import { css, mix } from "../shared/colour";
import { type Cleanup, Floating, h, Timer } from "../shared/dom";
import { shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import { figure } from "./words";

export interface HeatChoices {
  readonly theme: Theme;
  readonly ratio: number;
  readonly width: number;
  readonly rows: readonly string[];
  readonly columns: number;
  /** (rows, columns) */
  readonly values: Float32Array;
  /** The row whose name is set apart; -1 = none. */
  readonly mine: number;
  /** The chosen cell; -1 = none, and a column of all rows where only that is chosen. */
  readonly row: number;
  readonly column: number;
}

interface Ends {
  readonly low: number;
  readonly high: number;
  /** Something lies below `low`. */
  readonly below: boolean;
}

const LABELS = 72;
const TOP = 2;
const AXIS = 14;
const MOST = 15;

export class HeatMap {
  readonly element: HTMLElement;
  private readonly canvas = h("canvas", { role: "img" });
  private readonly hover = h("div", { class: "lt-ring lt-ring-hover", hidden: true });
  private readonly lock = h("div", { class: "lt-ring lt-ring-lock lt-qr-lock", hidden: true });
  private readonly focusRing = h("div", { class: "lt-ring lt-ring-focus", hidden: true });
  private readonly tip = new Floating("lt-tip");
  private readonly twin: Twin;
  private readonly ramp = h("div", { class: "lt-ramp" });
  private readonly ticks = h("div", { class: "lt-ticks" });
  private readonly delay: Timer;
  private choices: HeatChoices | null = null;
  private cell: readonly [width: number, height: number] = [0, 0];
  private cursor: [number, number] = [0, 0];
  private focused = false;

  constructor(
    private readonly name: string,
    unique: string,
    private readonly choose: (row: number, column: number) => void,
    cleanup: Cleanup,
  ) {
    this.delay = new Timer(cleanup);
    this.twin = new Twin(name, "map", (r, c) => this.say(r, c), unique);
    const box = h("div", { class: "lt-qr-map" }, this.canvas, this.hover, this.lock, this.focusRing);
    const scale = h("div", { class: "lt-scale" }, this.ramp, this.ticks);
    this.element = h("div", {}, box, this.twin.element, this.tip.element, scale);
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.over(e));
    cleanup.on(this.canvas, "pointerleave", () => this.hideTip());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => {
      const at = this.at(e);
      if (at) this.choose(...at);
    });
    cleanup.on(this.twin.element, "focus", () => this.focus(true));
    cleanup.on(this.twin.element, "blur", () => this.focus(false));
  }

  show(choices: HeatChoices): void {
    this.choices = choices;
    const { width, rows, columns } = choices;
    const across = (width - LABELS - 2) / Math.max(1, columns);
    this.cell = [
      across >= 2 ? Math.min(MOST + 3, Math.floor(across)) : across,
      rows.length > 16 ? Math.max(3, Math.floor(200 / rows.length)) : rows.length > 10 ? 11 : MOST,
    ];
    this.paint(choices);
    const mark = (ring: HTMLElement, r: number, c: number, out: number) => this.mark(ring, r, c, out);
    mark(this.lock, choices.row, choices.column, 1.5);
    this.canvas.setAttribute("aria-label", this.finding());
    this.twin.label = `${this.name}: rows by layers. Enter chooses`;
    if (this.focused) this.showTwin();
  }

  hideTip(): boolean {
    this.delay.stop();
    const shown = this.tip.shown;
    this.tip.hide();
    this.hover.hidden = true;
    return shown;
  }

  /** Takes a key; true when it used it. */
  key(event: KeyboardEvent, target: HTMLElement): boolean {
    const { choices } = this;
    if (target !== this.twin.element || !choices) return false;
    const [r, c] = this.cursor;
    if (event.key === "Enter") {
      this.choose(r, c);
      return true;
    }
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [r, c - 1],
      ArrowRight: [r, c + 1],
      ArrowUp: [r - 1, c],
      ArrowDown: [r + 1, c],
      PageUp: [r, c - 5],
      PageDown: [r, c + 5],
      Home: [r, 0],
      End: [r, choices.columns - 1],
    };
    const to = steps[event.key];
    if (!to) return false;
    const within = (v: number, n: number) => Math.max(0, Math.min(n - 1, v));
    this.cursor = [within(to[0], choices.rows.length), within(to[1], choices.columns)];
    this.showTwin();
    this.preview(...this.cursor);
    return true;
  }

  // --------------------------------------------------------------------------- drawing

  /** Ends of the scale; a fiftieth of the values may lie below its lower one, so that a stray zero does not flatten all. */
  private get ends(): Ends | null {
    const known = [...this.choices!.values].filter((v) => v > 0).sort((a, b) => a - b);
    if (known.length === 0) return null;
    const at = Math.floor(known.length / 50);
    return { low: known[at]!, high: known[known.length - 1]!, below: at > 0 && known[0]! < known[at]! };
  }

  private paint(choices: HeatChoices): void {
    const { theme, ratio, rows, columns, values } = choices;
    const [across, down] = this.cell;
    const width = Math.ceil(LABELS + across * columns + 2);
    const height = TOP + down * rows.length + AXIS;
    const { canvas } = this;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const ctx = canvas.getContext("2d");
    const ends = this.ends;
    this.legend(ends);
    if (!ctx) return;
    ctx.scale(ratio, ratio);
    ctx.textBaseline = "middle";
    const gap = across >= 6 ? 1 : 0;
    const line = down >= 8 ? 1 : 0;
    const none = css(mix(theme.paper, theme.ink, 0.06));
    rows.forEach((name, r) => {
      const own = r === choices.mine;
      const y = TOP + r * down;
      if (down >= 10 || r % 4 === 0) {
        ctx.font = `${own ? 600 : 400} 10.5px ${theme.sans}`;
        ctx.fillStyle = css(own ? theme.accentText : theme.ink2);
        ctx.textAlign = "right";
        ctx.fillText(shorten(name), LABELS - 6, y + down / 2);
      }
      // Where columns are narrower than a pixel, the largest value is painted last: thin lines are the finding.
      const order = Array.from({ length: columns }, (_, c) => c);
      const at = (c: number) => values[r * columns + c] ?? Number.NaN;
      if (across < 1) order.sort((a, b) => (at(a) || 0) - (at(b) || 0));
      for (const c of order) {
        const value = at(c);
        ctx.fillStyle = Number.isNaN(value) ? none : css(shadeOf(theme, value, ends));
        ctx.fillRect(LABELS + c * across, y, Math.max(1, across - gap), down - line);
      }
    });
    ctx.font = `400 10px ${theme.sans}`;
    ctx.fillStyle = css(theme.ink3);
    const step = [1, 2, 5, 10, 20, 50, 100].find((n) => n * across >= 34) ?? 200;
    for (let c = 0; c < columns; c += step) {
      ctx.textAlign = c === 0 ? "left" : "center";
      ctx.fillText(`L${c}`, LABELS + (c === 0 ? 0 : (c + 0.5) * across), height - AXIS / 2 + 1);
    }
  }

  private legend(ends: Ends | null): void {
    const { theme } = this.choices!;
    this.ramp.style.background = `linear-gradient(to right, ${theme.sequential
      .filter((_, i) => i % 16 === 0 || i === 255)
      .map(css)
      .join(",")})`;
    const marks: [number, string][] = ends
      ? [
          [0, `${ends.below ? "\u2264 " : ""}${figure(ends.low)}`],
          [0.5, figure(Math.sqrt(ends.low * ends.high))],
          [1, figure(ends.high)],
        ]
      : [];
    this.ticks.replaceChildren(
      ...marks.map(([at, label]) => {
        const tick = h("span", { class: at === 0 ? "lt-begin" : at === 1 ? "lt-end" : "" }, label);
        tick.style.left = `${100 * at}%`;
        return tick;
      }),
    );
  }

  private mark(ring: HTMLElement, r: number, c: number, out: number): void {
    const [across, down] = this.cell;
    const rows = this.choices?.rows.length ?? 0;
    const columns = this.choices?.columns ?? 0;
    ring.hidden = c < 0 || c >= columns || rows === 0;
    const [from, tall] = r < 0 ? [0, rows * down] : [r * down, down];
    ring.style.transform = `translate(${LABELS + c * across - out}px, ${TOP + from - out}px)`;
    ring.style.width = `${across + 2 * out - 1}px`;
    ring.style.height = `${tall + 2 * out - 1}px`;
  }

  // --------------------------------------------------------------------------- pointer and twin

  private at(e: MouseEvent): [number, number] | null {
    const { choices } = this;
    if (!choices) return null;
    const box = this.canvas.getBoundingClientRect();
    const c = Math.floor((e.clientX - box.left - LABELS) / this.cell[0]);
    const r = Math.floor((e.clientY - box.top - TOP) / this.cell[1]);
    return c >= 0 && c < choices.columns && r >= 0 && r < choices.rows.length ? [r, c] : null;
  }

  private over(e: PointerEvent): void {
    const at = e.pointerType === "touch" ? null : this.at(e);
    this.canvas.style.cursor = at ? "pointer" : "";
    if (at) this.preview(...at);
    else this.hideTip();
  }

  private preview(r: number, c: number): void {
    this.mark(this.hover, r, c, 2);
    const show = () => {
      this.tip.element.textContent = this.say(r, c) ?? "";
      this.tip.show(this.hover.getBoundingClientRect(), [], 8);
    };
    if (this.tip.shown) show();
    else this.delay.start(80, show);
  }

  private focus(on: boolean): void {
    this.focused = on;
    this.focusRing.hidden = !on;
    if (on) this.showTwin();
    else this.hideTip();
  }

  private showTwin(): void {
    const { choices } = this;
    if (!choices || choices.rows.length === 0) return;
    const [r, c] = [
      Math.min(this.cursor[0], choices.rows.length - 1),
      Math.min(this.cursor[1], choices.columns - 1),
    ];
    this.cursor = [r, c];
    this.mark(this.focusRing, r, c, 4);
    this.twin.show(
      choices.rows.length,
      choices.columns,
      r,
      c,
      (row, column) => row === choices.row && column === choices.column,
    );
  }

  private say(r: number, c: number): string | null {
    const { choices } = this;
    if (!choices) return null;
    const value = choices.values[r * choices.columns + c] ?? Number.NaN;
    return `${choices.rows[r]}, layer ${c}: ${Number.isNaN(value) ? "not measured" : figure(value)}`;
  }

  private finding(): string {
    const { values, columns, rows } = this.choices!;
    let at = -1;
    for (let i = 0; i < values.length; i++) if (values[i]! > (values[at] ?? Number.NEGATIVE_INFINITY)) at = i;
    const most =
      at < 0 ? "nothing measured yet" : `most at ${this.say(Math.floor(at / columns), at % columns)}`;
    return `${this.name}, ${rows.length} rows by ${columns} layers; ${most}`;
  }
}

function shadeOf(theme: Theme, value: number, ends: Ends | null) {
  if (!ends || value <= 0) return theme.sequential[0]!;
  const [a, b] = [Math.log(ends.low), Math.log(ends.high)];
  // Something is never as pale as nothing.
  const share = b > a ? 0.06 + 0.94 * Math.max(0, (Math.log(value) - a) / (b - a)) : 0.5;
  return theme.sequential[Math.round(255 * Math.max(0, Math.min(1, share)))]!;
}
