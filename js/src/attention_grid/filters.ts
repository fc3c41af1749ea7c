// The histograms above the grid: filter, legend and overview in one.
// In: data, the filter, the locked head, the statistic in use. Out: filter changes, by pointer and by keyboard.
import { type Cleanup, h, s, setProps } from "../shared/dom";
import { bound, count, weight } from "../shared/format";
import { type Filter, type GridData, type Head, histogram, type StatisticFacts } from "./data";

const BINS = 36;
const HEIGHT = 30;

export interface FilterEvents {
  /** A new filter; `final` is false while the pointer still drags. */
  filter(filter: Filter, final: boolean): void;
  statistic(key: string): void;
  clear(): void;
}

export interface FilterState {
  readonly filter: Filter;
  readonly statistic: string;
  readonly ranked: boolean;
  readonly locked: Head | undefined;
  readonly kept: Uint8Array;
  /** A filter, a brushed rectangle or an isolated head hides some. */
  readonly active: boolean;
}

type Range = readonly [number | null, number | null];

/** One histogram and its two sliders. */
class Histogram {
  readonly element: HTMLElement;
  private readonly title = h("button", { type: "button", class: "lt-stat-name", tabindex: -1 });
  private readonly range = h("span", { class: "lt-stat-range" });
  private readonly all = s("path", { class: "lt-bar-all" });
  private readonly kept = s("path", { class: "lt-bar-kept" });
  private readonly brush = h("div", { class: "lt-brush", hidden: true });
  private readonly low = h("div", { class: "lt-handle", hidden: true });
  private readonly high = h("div", { class: "lt-handle", hidden: true });
  private readonly mark = h("div", { class: "lt-mark", hidden: true }, "\u25b2");
  private readonly plot: HTMLElement;
  private readonly sliders: [HTMLInputElement, HTMLInputElement];
  private drawn: { data: GridData; kept: Uint8Array } | null = null;
  /** The values that the grey bars show, and the square root of the highest bar. */
  private of: Float32Array | null = null;
  private most = 1;
  private current: Range = [null, null];

  constructor(
    private readonly facts: StatisticFacts,
    cleanup: Cleanup,
    private readonly change: (range: Range, final: boolean) => void,
    choose: () => void,
  ) {
    const step = (facts.hi - facts.lo) / 100 || 0.01;
    const slider = (end: string) =>
      h("input", {
        type: "range",
        class: "lt-slider",
        min: facts.lo,
        max: facts.hi,
        step,
        tabindex: -1,
        "aria-label": `${facts.label}, ${end}`,
      });
    this.sliders = [slider("lowest"), slider("highest")];
    this.sliders[0].value = String(facts.lo);
    this.sliders[1].value = String(facts.hi);
    const svg = s(
      "svg",
      { viewBox: `0 0 ${BINS} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.all,
      this.kept,
    );
    this.plot = h("div", { class: "lt-plot" }, this.brush, svg, this.low, this.high);
    this.element = h(
      "div",
      { class: "lt-stat", role: "group", "aria-label": facts.label },
      h("div", { class: "lt-stat-head" }, this.title, this.range),
      this.plot,
      h("div", { class: "lt-marks" }, this.mark),
      ...this.sliders,
    );
    this.title.textContent = facts.label;
    cleanup.on(this.title, "click", choose);
    cleanup.on<PointerEvent>(this.plot, "pointerdown", (e) => this.drag(e));
    this.sliders.forEach((input, end) => {
      cleanup.on(input, "input", () => this.slide(end, false));
      cleanup.on(input, "change", () => this.slide(end, true));
      cleanup.on(input, "focus", () => this.element.classList.add("lt-focus"));
      cleanup.on(input, "blur", () => this.element.classList.remove("lt-focus"));
    });
  }

  get stops(): HTMLElement[] {
    return [this.title, ...this.sliders];
  }

  show(data: GridData, state: FilterState): void {
    const { key, label, lo, hi } = this.facts;
    const mine = state.filter[key];
    this.current = mine ?? [null, null];
    const [from, to] = this.current;
    this.element.classList.toggle("lt-on", mine !== undefined);
    this.title.textContent = state.statistic === key ? `${label} \u25be` : label;
    setProps(this.title, {
      "aria-pressed": String(state.statistic === key),
      title: state.ranked
        ? `Rank by ${label.toLowerCase()}`
        : `Use ${label.toLowerCase()} for the bars and for Ranked`,
    });
    const empty = data.facts.phase === "done" && data.column(key).every((v) => Number.isNaN(v));
    this.range.textContent = empty ? "\u2013" : rangeText(this.current, lo, hi);
    this.range.title = empty ? "No head has a value here" : "";
    this.bars(data, state);
    const at = (v: number) => Math.max(0, Math.min(100, ((v - lo) / (hi - lo || 1)) * 100));
    this.brush.hidden = mine === undefined;
    this.brush.style.left = `${at(from ?? lo)}%`;
    this.brush.style.right = `${100 - at(to ?? hi)}%`;
    this.low.hidden = from === null;
    this.low.style.left = `${at(from ?? lo)}%`;
    this.high.hidden = to === null;
    this.high.style.left = `${at(to ?? hi)}%`;
    const locked = state.locked ? data.value(state.locked, key) : Number.NaN;
    this.mark.hidden = Number.isNaN(locked);
    this.mark.style.left = `${at(locked)}%`;
    this.sliders[0].value = String(from ?? lo);
    this.sliders[1].value = String(to ?? hi);
    for (const input of this.sliders) {
      const open = (input === this.sliders[0] ? from : to) === null;
      input.setAttribute(
        "aria-valuetext",
        `${open ? "open" : weight(Number(input.value), 2)}; ${rangeText(this.current, lo, hi)}`,
      );
    }
  }

  private bars(data: GridData, state: FilterState): void {
    if (this.drawn?.data === data && this.drawn.kept === state.kept && this.element.isConnected) return;
    this.drawn = { data, kept: state.kept };
    const { key, lo, hi } = this.facts;
    const values = data.column(key);
    if (this.of !== values) {
      this.of = values;
      const all = histogram(values, null, lo, hi, BINS);
      this.most = Math.sqrt(Math.max(1, ...all));
      this.all.setAttribute("d", barPath(all, this.most));
    }
    this.kept.setAttribute(
      "d",
      state.active ? barPath(histogram(values, state.kept, lo, hi, BINS), this.most) : "",
    );
  }

  private value(clientX: number, box: DOMRect): number {
    const t = Math.max(0, Math.min(1, (clientX - box.left) / (box.width || 1)));
    return this.facts.lo + t * (this.facts.hi - this.facts.lo);
  }

  /** Drag brushes a range; drag of a handle moves it; a click alone means "this and above". */
  private drag(down: PointerEvent): void {
    if (down.button !== 0) return;
    down.preventDefault();
    this.plot.setPointerCapture?.(down.pointerId);
    const box = this.plot.getBoundingClientRect();
    const { lo, hi } = this.facts;
    const near = (v: number | null) =>
      v !== null && Math.abs((v - this.value(down.clientX, box)) / (hi - lo || 1)) * box.width < 7;
    const [from, to] = this.current;
    const start = near(from) ? (to ?? hi) : near(to) ? (from ?? lo) : this.value(down.clientX, box);
    const edge = (hi - lo) * 0.012;
    let moved = near(from) || near(to);
    const range = (x: number): Range => {
      const v = this.value(x, box);
      if (!moved) return [start, null];
      const [a, b] = [Math.min(start, v), Math.max(start, v)];
      return [a <= lo + edge ? null : a, b >= hi - edge ? null : b];
    };
    const move = (e: PointerEvent) => {
      moved ||= Math.abs(e.clientX - down.clientX) > 3;
      if (moved) this.change(range(e.clientX), false);
    };
    const up = (e: PointerEvent) => {
      this.plot.removeEventListener("pointermove", move);
      this.plot.removeEventListener("pointerup", up);
      this.plot.removeEventListener("pointercancel", up);
      if (e.type !== "pointerup") return;
      this.change(range(e.clientX), true);
      // Esc then frees what was brushed, and the arrows refine it; a ring is for who came by keyboard.
      this.sliders[0].focus({ preventScroll: true });
      this.element.classList.remove("lt-focus");
    };
    this.plot.addEventListener("pointermove", move);
    this.plot.addEventListener("pointerup", up);
    this.plot.addEventListener("pointercancel", up);
  }

  private slide(end: number, final: boolean): void {
    const v = Number(this.sliders[end as 0 | 1].value);
    const { lo, hi } = this.facts;
    const [from, to] = this.current;
    if (end === 0) this.change([v <= lo ? null : Math.min(v, to ?? hi), to], final);
    else this.change([from, v >= hi ? null : Math.max(v, from ?? lo)], final);
  }
}

/** "≥ 0.10", "0.20 – 0.40", or the whole range. */
export function rangeText([from, to]: Range, lo: number, hi: number): string {
  if (from === null && to === null) return `${bound(lo)} \u2013 ${bound(hi)}`;
  if (to === null) return `\u2265 ${weight(from!, 2)}`;
  if (from === null) return `\u2264 ${weight(to, 2)}`;
  return `${weight(from, 2)} \u2013 ${weight(to, 2)}`;
}

/** Bars with square-rooted heights, so that three heads among 270 stay visible. */
function barPath(counts: readonly number[], most: number): string {
  return counts
    .map((n, i) => {
      if (n === 0) return "";
      const height = Math.max(1.5, (Math.sqrt(n) / most) * (HEIGHT - 2));
      return `M${i + 0.06} ${HEIGHT}V${(HEIGHT - height).toFixed(2)}H${i + 0.88}V${HEIGHT}Z`;
    })
    .join("");
}

export class FiltersView {
  readonly element = h("div", { class: "lt-filters", role: "group", "data-region": "filters" });
  private histograms: { key: string; view: Histogram }[] = [];
  private readonly total = h("div", { class: "lt-kept" });
  private readonly clear = h("button", { type: "button", class: "lt-link", tabindex: -1 }, "clear");
  private readonly hint = h("span", {}, "");
  private filter: Filter = {};
  private for: readonly StatisticFacts[] | null = null;

  constructor(
    private readonly cleanup: Cleanup,
    private readonly events: FilterEvents,
  ) {
    this.element.setAttribute("aria-label", "Filters: up and down choose one, left and right change it");
    cleanup.on(this.clear, "click", () => events.clear());
  }

  show(data: GridData, state: FilterState): void {
    this.filter = state.filter;
    if (this.for !== data.facts.statistics) this.build(data.facts.statistics);
    for (const { view } of this.histograms) view.show(data, state);
    const kept = state.kept.reduce((n, k) => n + k, 0);
    this.total.replaceChildren(h("b", {}, count(kept)), ` of ${count(data.heads.length)} heads`);
    this.clear.hidden = !state.active;
    this.hint.textContent = state.active ? " \u00b7 drag = brush" : "drag a histogram to filter";
  }

  /** Up and down move between the stops of this region; left and right stay the sliders'. */
  key(event: KeyboardEvent): boolean {
    const move = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (move === 0) return false;
    const stops = this.stops();
    const at = stops.indexOf(event.composedPath()[0] as HTMLElement);
    const next = stops[(at + move + stops.length) % stops.length];
    if (!next) return false;
    this.rove(next);
    next.focus();
    return true;
  }

  private stops(): HTMLElement[] {
    return [...this.histograms.flatMap(({ view }) => view.stops), ...(this.clear.hidden ? [] : [this.clear])];
  }

  private rove(to: HTMLElement): void {
    for (const e of this.stops()) e.tabIndex = e === to ? 0 : -1;
  }

  private build(statistics: readonly StatisticFacts[]): void {
    this.for = statistics;
    this.histograms = statistics
      .filter((f) => f.histogram)
      .map((facts) => ({
        key: facts.key,
        view: new Histogram(
          facts,
          this.cleanup,
          (range, final) => this.events.filter(this.with(facts.key, range), final),
          () => this.events.statistic(facts.key),
        ),
      }));
    this.element.replaceChildren(
      ...this.histograms.map(({ view }) => view.element),
      h("div", { class: "lt-total" }, this.total, h("div", { class: "lt-quiet" }, this.clear, this.hint)),
    );
    const first = this.histograms[0]?.view.stops[0];
    if (first) this.rove(first);
  }

  private with(key: string, range: Range): Filter {
    const { [key]: _old, ...others } = this.filter;
    return range[0] === null && range[1] === null ? others : { ...others, [key]: range };
  }
}
