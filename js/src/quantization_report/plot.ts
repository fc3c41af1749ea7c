// The plot of size against distance from the base, with the budget as a line to drag.
// In: data, choices, a width. Out: an SVG and a hidden slider; which candidate was chosen, which budget was set.
import { typeColour } from "../architecture_tree/colours";
import { css } from "../shared/colour";
import { type Cleanup, Floating, h, s, setProps, Timer } from "../shared/dom";
import { bytes } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { ReportData, Row } from "./data";
import { layoutPlot, type PlotLayout, type Point, type Scale } from "./plot_layout";
import { rowWords } from "./words";

export interface PlotChoices {
  readonly theme: Theme;
  readonly width: number;
  readonly height: number;
  readonly scale: Scale;
  readonly budget: number | null;
  readonly recommended: string | null;
  readonly selected: string | null;
}

interface Hears {
  choose(name: string): void;
  /** While the line is dragged; null = no budget. */
  drag(budget: number | null): void;
  /** The budget that was set. */
  budget(budget: number | null): void;
}

const GRIP = 14;
const STEPS = 200;

export class PlotView {
  readonly element: HTMLElement;
  private readonly svg = s("svg", { role: "group", "aria-label": "Size against distance from the base" });
  private readonly slider = h("input", {
    type: "range",
    class: "lt-qr-slider",
    min: 0,
    max: STEPS,
    step: 1,
    "aria-label": "Budget of the file",
  });
  private readonly tip = new Floating("lt-tip");
  private readonly delay: Timer;
  private layout: PlotLayout | null = null;
  private choices: PlotChoices | null = null;
  private dragging = false;

  constructor(
    private readonly hears: Hears,
    cleanup: Cleanup,
  ) {
    this.delay = new Timer(cleanup);
    this.element = h(
      "div",
      { class: "lt-qr-plot" },
      this.svg as unknown as Node,
      this.slider,
      this.tip.element,
    );
    cleanup.on<PointerEvent>(this.svg, "pointerdown", (e) => this.down(e));
    cleanup.on<PointerEvent>(this.svg, "pointermove", (e) => this.move(e));
    cleanup.on<PointerEvent>(this.svg, "pointerup", (e) => this.up(e));
    cleanup.on(this.svg, "pointercancel", () => {
      this.dragging = false;
    });
    cleanup.on(this.slider, "input", () => this.hears.drag(this.sliderBudget()));
    cleanup.on(this.slider, "change", () => this.hears.budget(this.sliderBudget()));
  }

  show(data: ReportData, choices: PlotChoices): void {
    const layout = layoutPlot(data, choices.width, choices.height, choices.scale);
    this.layout = layout;
    this.choices = choices;
    this.element.hidden = layout === null;
    if (!layout) return;
    setProps(this.svg, {
      width: layout.width,
      height: layout.height,
      viewBox: `0 0 ${layout.width} ${layout.height}`,
    });
    const focused = document.activeElement;
    const held = this.svg.contains(focused) ? focused!.getAttribute("data-name") : null;
    this.svg.replaceChildren(...this.draw(layout, choices));
    if (held !== null)
      this.points()
        .find((e) => e.getAttribute("data-name") === held)
        ?.focus();
    const { budget } = choices;
    const at = budget === null ? STEPS : ((budget - layout.low) / (layout.high - layout.low)) * STEPS;
    this.slider.value = String(Math.round(Math.max(0, Math.min(STEPS, at))));
    setProps(this.slider, { "aria-valuetext": budget === null ? "no budget" : bytes(budget) });
  }

  hideTip(): boolean {
    this.delay.stop();
    const shown = this.tip.shown;
    this.tip.hide();
    return shown;
  }

  /** Takes a key of a point; true when it used it. */
  key(event: KeyboardEvent, target: Element): boolean {
    const points = this.points();
    const at = points.indexOf(target as SVGGElement);
    if (at < 0) return false;
    if (event.key === "Enter" || event.key === " ") {
      this.hears.choose(target.getAttribute("data-name")!);
      return true;
    }
    const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? points.length - 1 : at + (move ?? 0);
    if (to === at && move === undefined) return false;
    points[Math.max(0, Math.min(points.length - 1, to))]!.focus();
    return true;
  }

  private points(): SVGGElement[] {
    return [...this.svg.querySelectorAll<SVGGElement>(".lt-qr-point")];
  }

  // --------------------------------------------------------------------------- drawing

  private draw(layout: PlotLayout, choices: PlotChoices): SVGElement[] {
    const { left, right, top, bottom } = layout;
    const items: SVGElement[] = [];
    const { budget } = choices;
    const line = budget === null ? right : Math.max(left, Math.min(right, layout.x(budget)));
    if (budget !== null)
      items.push(
        s("rect", { class: "lt-qr-out", x: line, y: top - 8, width: right - line, height: bottom - top + 8 }),
      );
    for (const [y, label] of layout.yTicks)
      items.push(
        s("line", { class: "lt-qr-grid", x1: left, x2: right, y1: y, y2: y }),
        text(label, left - 7, y + 3.5, "lt-qr-tick", "end"),
      );
    items.push(s("line", { class: "lt-qr-axis", x1: left, x2: right, y1: bottom, y2: bottom }));
    for (const [x, label] of layout.xTicks) items.push(text(label, x, bottom + 16, "lt-qr-tick", "middle"));
    items.push(
      text("file size", right, bottom + 32, "lt-qr-tick", "end"),
      turned("KL divergence, nats per token", 11, (top + bottom) / 2),
      s("path", { class: "lt-qr-steps", d: layout.steps }),
    );
    for (const p of layout.points) items.push(...around(p));
    // By size, so that arrows walk along the axis.
    const sorted = [...layout.points].sort((a, b) => a.x - b.x);
    const focus = sorted.find((p) => p.row.name === (choices.selected ?? choices.recommended)) ?? sorted[0];
    for (const p of sorted) items.push(this.point(p, choices, p === focus));
    items.push(...budgetLine(layout, line, budget));
    return items;
  }

  private point(p: Point, { theme, recommended, selected }: PlotChoices, stop: boolean): SVGElement {
    const colour = css(typeColour(p.row, theme));
    const mine = p.row.name === recommended;
    const name = text(
      p.name,
      p.label.x,
      p.label.y,
      mine ? "lt-qr-name lt-qr-mine" : "lt-qr-name",
      p.label.anchor,
    );
    const g = s(
      "g",
      {
        class: "lt-qr-point",
        role: "button",
        tabindex: stop ? 0 : -1,
        "data-name": p.row.name,
        "aria-pressed": String(p.row.name === selected),
        "aria-label": `${rowWords(p.row)}${mine ? ", recommended" : ""}${p.best ? "" : ", another is smaller and closer"}`,
      },
      s("circle", { class: "lt-qr-hit", cx: p.x, cy: p.y, r: 14 }),
      ...(mine ? [s("circle", { class: "lt-qr-ring", cx: p.x, cy: p.y, r: 10.5 })] : []),
      ...(p.row.name === selected && !mine
        ? [s("circle", { class: "lt-qr-ring lt-qr-thin", cx: p.x, cy: p.y, r: 10 })]
        : []),
      s("circle", {
        cx: p.x,
        cy: p.y,
        r: p.best ? 6.5 : 5.5,
        fill: p.best ? colour : css(theme.paper),
        stroke: p.best ? css(theme.ink) : colour,
        "stroke-width": p.best ? 1 : 2.75,
      }),
      name,
    );
    g.addEventListener("click", () => this.hears.choose(p.row.name));
    g.addEventListener("pointerenter", () => this.preview(g, p.row));
    g.addEventListener("pointerleave", () => this.hideTip());
    g.addEventListener("focus", () => this.preview(g, p.row));
    g.addEventListener("blur", () => this.hideTip());
    return g;
  }

  private preview(target: Element, row: Row): void {
    this.delay.start(80, () => {
      this.tip.element.textContent = rowWords(row);
      this.tip.show(target.getBoundingClientRect(), [], 8);
    });
  }

  // --------------------------------------------------------------------------- the budget

  private sliderBudget(): number | null {
    const at = Number(this.slider.value) / STEPS;
    return this.layout && at < 1
      ? Math.round(this.layout.low + at * (this.layout.high - this.layout.low))
      : null;
  }

  private pointerX(e: PointerEvent): number {
    return e.clientX - this.svg.getBoundingClientRect().left;
  }

  private lineX(): number {
    const { layout, choices } = this;
    if (!layout || !choices) return Number.NaN;
    return choices.budget === null ? layout.right : layout.x(choices.budget);
  }

  private down(e: PointerEvent): void {
    if (e.button !== 0 || Math.abs(this.pointerX(e) - this.lineX()) > GRIP) return;
    if ((e.target as Element).closest(".lt-qr-point")) return;
    this.dragging = true;
    this.hideTip();
    this.svg.setPointerCapture?.(e.pointerId);
    this.slider.focus({ preventScroll: true });
    e.preventDefault();
  }

  private at(e: PointerEvent): number | null {
    const { layout } = this;
    const x = this.pointerX(e);
    return !layout || x >= layout.right - 1 ? null : Math.round(layout.bytesAt(x));
  }

  private move(e: PointerEvent): void {
    if (this.dragging) {
      this.hears.drag(this.at(e));
      return;
    }
    const near = Math.abs(this.pointerX(e) - this.lineX()) <= GRIP;
    this.svg.classList.toggle("lt-qr-near", near);
  }

  private up(e: PointerEvent): void {
    if (!this.dragging) return;
    this.dragging = false;
    this.hears.budget(this.at(e));
  }
}

function around(p: Point): SVGElement[] {
  const dots = p.blocks.map((y) => s("circle", { class: "lt-qr-block", cx: p.x, cy: y, r: 1.6 }));
  if (!p.interval) return dots;
  const [a, b] = p.interval;
  return [...dots, s("line", { class: "lt-qr-interval", x1: p.x, x2: p.x, y1: a, y2: b })];
}

function budgetLine(layout: PlotLayout, x: number, budget: number | null): SVGElement[] {
  const { top, bottom, left, right } = layout;
  const words = budget === null ? "no budget \u00b7 drag" : `budget ${bytes(budget)} \u00b7 drag`;
  const room = right - x > words.length * 6.4 + 8;
  return [
    s("line", { class: "lt-qr-budget", x1: x, x2: x, y1: top - 8, y2: bottom }),
    s("rect", { class: "lt-qr-grip", x: x - 4, y: bottom - 7, width: 8, height: 14, rx: 2 }),
    text(words, room ? x + 7 : Math.max(left, x - 7), top + 2, "lt-qr-words", room ? "start" : "end"),
  ];
}

function text(words: string, x: number, y: number, name: string, anchor: string): SVGElement {
  const e = s("text", { x: x.toFixed(1), y: y.toFixed(1), class: name, "text-anchor": anchor });
  e.textContent = words;
  return e;
}

function turned(words: string, x: number, y: number): SVGElement {
  const e = text(words, 0, 0, "lt-qr-tick", "middle");
  e.setAttribute("transform", `translate(${x} ${y}) rotate(-90)`);
  return e;
}
