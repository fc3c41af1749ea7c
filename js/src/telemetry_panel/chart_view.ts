// A chart with its heading, pointer, keyboard and tooltip; its neighbours point at the same place.
// In: a plot and a domain. Out: DOM; what the user points at, chooses and narrows to.
import { type Cleanup, Floating, h, setProps, Timer } from "../shared/dom";
import type { Theme } from "../shared/theme";
import { LEFT, type Marks, type Plot, paint, Scale } from "./chart";

export interface Hears {
  hover(place: number | null, chart: ChartView): void;
  explain(place: number): Node[];
  /** The same in one line, for those who hear it. */
  say(place: number): string;
  choose(place: number): void;
  brushing(range: readonly [number, number] | null): void;
  narrow(range: readonly [number, number]): void;
  widen(): void;
}

/** Pixels that a drag moves at least. */
const DRAG = 4;

interface Look {
  readonly plot: Plot;
  readonly scale: Scale;
  readonly high: number;
  readonly marks: Marks;
  readonly theme: Theme;
}

export class ChartView {
  readonly element: HTMLElement;
  heading: readonly [string, string] = ["", ""];
  private readonly title = h("h3", {});
  private readonly canvas = h("canvas", { role: "img" });
  private readonly column = h("div", { class: "lt-tp-column", hidden: true });
  private readonly area = h(
    "div",
    { class: "lt-tp-area", role: "slider", tabindex: 0 },
    this.canvas,
    this.column,
  );
  private readonly tip = new Floating("lt-tip lt-tp-tip");
  private readonly delay: Timer;
  private look: Look | null = null;
  private cursor = 0;
  private from: number | null = null;
  private dragged = false;

  constructor(
    private readonly hears: Hears,
    cleanup: Cleanup,
  ) {
    this.element = h("section", { class: "lt-tp-chart" }, this.title, this.area, this.tip.element);
    this.delay = new Timer(cleanup);
    // The listeners go with the element, which nobody else holds.
    this.canvas.addEventListener("pointermove", (e) => this.move(e));
    this.canvas.addEventListener("pointerleave", () => this.leave());
    this.canvas.addEventListener("pointerdown", (e) => this.down(e));
    this.canvas.addEventListener("pointerup", (e) => this.up(e));
    this.canvas.addEventListener("pointercancel", () => this.drop());
    this.canvas.addEventListener("dblclick", () => this.hears.widen());
    this.area.addEventListener("keydown", (e) => this.key(e));
    this.area.addEventListener("blur", () => this.leave());
    cleanup.add(() => this.tip.hide());
  }

  show(
    heading: readonly [string, string],
    plot: Plot,
    domain: readonly [number, number],
    width: number,
    high: number,
    marks: Marks,
    theme: Theme,
    ratio: number,
  ): void {
    this.heading = heading;
    this.title.replaceChildren(h("b", {}, heading[0]), heading[1]);
    this.look = { plot, scale: new Scale(domain[0], domain[1], width), high, marks, theme };
    paint(this.canvas, plot, this.look.scale, high, marks, theme, ratio);
    this.canvas.setAttribute("aria-label", `${heading[0]}: ${heading[1]}`);
    const n = plot.xs.length;
    this.cursor = Math.min(this.cursor, Math.max(0, n - 1));
    const name = `${heading[0]}: arrows move${plot.chooses ? `, Enter chooses ${plot.chooses}` : ""}`;
    setProps(this.area, {
      "aria-label": name,
      "aria-valuemin": 1,
      "aria-valuemax": Math.max(1, n),
      "aria-valuenow": this.cursor + 1,
    });
  }

  /** The picture again, for a file. */
  copy(ratio: number): HTMLCanvasElement {
    const made = document.createElement("canvas");
    const { look } = this;
    if (look)
      paint(made, look.plot, look.scale, look.high, { ...look.marks, brush: null }, look.theme, ratio);
    return made;
  }

  /** Marks a place, as all charts do at once; the one that is pointed at also explains it. */
  point(place: number | null, mine: boolean): void {
    const { look } = this;
    const x = place === null || !look ? null : look.plot.xs[place];
    this.column.hidden = x === null || x === undefined;
    if (!look || place === null || x === null || x === undefined) {
      this.delay.stop();
      this.tip.hide();
      return;
    }
    const left = look.scale.x(x);
    const wide = look.plot.bars ? Math.max(1, look.scale.x(x + 1) - left) : 1;
    this.column.style.transform = `translate(${left}px, 0)`;
    this.column.style.width = `${wide}px`;
    this.column.style.height = `${look.high + 8}px`;
    if (!mine) {
      this.tip.hide();
      return;
    }
    const show = () => {
      const box = this.canvas.getBoundingClientRect();
      this.tip.element.replaceChildren(...this.hears.explain(place));
      this.tip.show(new DOMRect(box.left + left, box.top, wide, look.high), [], 10);
    };
    if (this.tip.shown) show();
    else this.delay.start(80, show);
  }

  hideTip(): boolean {
    const shown = this.tip.shown;
    this.leave();
    return shown;
  }

  private x(e: PointerEvent): number {
    return e.clientX - this.canvas.getBoundingClientRect().left;
  }

  /** The place of the axis under a pixel, as an index of the plot. */
  private at(x: number): number | null {
    const { look } = this;
    if (!look || x < LEFT - 4) return null;
    const where = look.scale.place(x);
    const { xs, bars } = look.plot;
    if (xs.length === 0) return null;
    if (bars) return Math.max(0, Math.min(xs.length - 1, Math.floor(Math.min(where, look.scale.to - 1e-6))));
    let best = 0;
    for (let i = 1; i < xs.length; i++) if (Math.abs(xs[i]! - where) < Math.abs(xs[best]! - where)) best = i;
    return best;
  }

  private move(e: PointerEvent): void {
    const x = this.x(e);
    if (this.from !== null && e.buttons !== 0 && this.look) {
      this.dragged ||= Math.abs(x - this.from) >= DRAG;
      if (this.dragged) {
        this.hears.hover(null, this);
        this.hears.brushing(this.range(x));
      }
      return;
    }
    if (e.pointerType !== "touch") this.hears.hover(this.at(x), this);
  }

  private range(x: number): [number, number] {
    const ends = [this.look!.scale.place(this.from!), this.look!.scale.place(x)];
    return [Math.min(...ends), Math.max(...ends)];
  }

  private down(e: PointerEvent): void {
    if (e.button !== 0) return;
    this.from = this.x(e);
    this.dragged = false;
    this.canvas.setPointerCapture?.(e.pointerId);
  }

  private up(e: PointerEvent): void {
    const x = this.x(e);
    if (this.from === null) return;
    const range = this.dragged ? this.range(x) : null;
    const place = this.at(x);
    this.drop();
    if (range) this.hears.narrow(range);
    else if (place !== null) {
      this.cursor = place;
      this.hears.choose(place);
    }
  }

  private drop(): void {
    this.from = null;
    this.dragged = false;
    this.hears.brushing(null);
  }

  private leave(): void {
    this.hears.hover(null, this);
  }

  private key(event: KeyboardEvent): void {
    const n = this.look?.plot.xs.length ?? 0;
    if (event.altKey || event.ctrlKey || event.metaKey || n === 0) return;
    const steps: Record<string, number> = {
      ArrowLeft: this.cursor - 1,
      ArrowDown: this.cursor - 1,
      ArrowRight: this.cursor + 1,
      ArrowUp: this.cursor + 1,
      PageDown: this.cursor - 10,
      PageUp: this.cursor + 10,
      Home: 0,
      End: n - 1,
    };
    const to = steps[event.key];
    if (to !== undefined) {
      this.cursor = Math.max(0, Math.min(n - 1, to));
      setProps(this.area, {
        "aria-valuenow": this.cursor + 1,
        "aria-valuetext": this.hears.say(this.cursor),
      });
      this.hears.hover(this.cursor, this);
    } else if (event.key === "Enter") this.hears.choose(this.cursor);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
