// TelemetryPanel's view: one quiet line that opens to charts of a run, or of a live source.
// In: PanelData, a state, a source. Out: DOM in `root`, and changes of the state. Knows no Jupyter.
import { compose, type Part, toPng, toSvg } from "../attention_grid/picture";
import base from "../attention_grid/style.css";
import { css } from "../shared/colour";
import { Announcer, Cleanup, copyText, download, Frame, h, Timer } from "../shared/dom";
import { bytes, plural, probability } from "../shared/format";
import { applyTheme, sameTheme, type Theme, type ThemeChoice, watchTheme } from "../shared/theme";
import { shade } from "../token_explorer/written";
import type { Marks } from "./chart";
import { sparkline } from "./chart";
import { ChartView, type Hears } from "./chart_view";
import { type PanelData, quantile } from "./data";
import { gpuRows } from "./gpu";
import { barLines, barName, layersPlot, legend, operationLine, operationRows } from "./layers";
import { memoryBars } from "./memory";
import style from "./style.css";
import {
  amountOf,
  type Cell,
  clock,
  figures,
  operationWords,
  overheadWords,
  runCells,
  sourceCells,
  threadWords,
  time,
  timeWords,
} from "./words";

export interface State {
  readonly expanded: boolean;
  readonly selected_layer: number | null;
  readonly selected_tokens: readonly number[];
  readonly span: readonly number[];
  readonly theme: ThemeChoice;
}

/** Who measures, and who hears what the user does. */
export interface Source {
  change(patch: Partial<State>): void;
  /** Whether this view can be seen: nothing is read or drawn for one that cannot. */
  watch(on: boolean): void;
  /** The same prompt with capture and without; or its operations one by one. */
  measure(what: Measured): Promise<void>;
}

type Measured = "overhead" | "times";

const NARROW = 600;
const WIDE = 900;
/** Below them the line has no small curve, then no memory and context, then no prefill. */
const SPARKED = 720;
const FEW = 480;
const LEAST = 330;
const HIGH = { token: 84, threads: 44, source: 52, layers: 72 };
const SPARK = { width: 112, height: 22 };
/** Figures of a server that have a chart; the others are facts of these. */
const CHARTED = ["decode_tps", "prefill_tps", "requests_running", "slots_busy", "context_used"];

export class TelemetryPanelView implements Hears {
  private readonly cleanup = new Cleanup();
  private readonly announcer = new Announcer(this.cleanup);
  private readonly title = h("h2", {});
  private readonly provenanceText = h("span", {});
  private readonly provenance = h(
    "button",
    { type: "button", class: "lt-provenance" },
    h("span", { class: "lt-dot", "aria-hidden": "true" }),
    this.provenanceText,
  );
  private readonly header = h("header", { class: "lt-header" }, this.title, this.provenance);
  private readonly cells = h("span", { class: "lt-tp-cells" });
  private readonly more = h("span", { class: "lt-tp-more" });
  private readonly line = h("button", { type: "button", class: "lt-tp-line" }, this.cells, this.more);
  private readonly spark = h("canvas", { class: "lt-tp-spark", "aria-hidden": "true" });
  private readonly notice = h("div", { class: "lt-notice lt-tp-notice", role: "status" });
  private readonly charts = h("div", { class: "lt-tp-charts" });
  private readonly sentence = h("div", { class: "lt-tp-sentence" });
  private readonly legend = h("div", { class: "lt-tp-legend" });
  private readonly ramp = h("div", { class: "lt-ramp" });
  private readonly memory = h("div", { class: "lt-tp-memory" });
  private readonly costs = h("div", { class: "lt-tp-costs" });
  private readonly measures: Record<Measured, HTMLButtonElement> = {
    overhead: h("button", { type: "button", class: "lt-button" }),
    times: h("button", { type: "button", class: "lt-button" }),
  };
  private readonly layers = h("div", { class: "lt-tp-layers" });
  private readonly operations = h("div", {});
  private readonly layersChart: ChartView;
  private readonly gpu = h("div", { class: "lt-tp-gpu" });
  private readonly body: HTMLElement;
  private readonly shown = new Map<string, ChartView>();
  private readonly frame: Frame;
  private readonly beat: Timer;
  private theme: Theme;
  private width = 0;
  private live = true;
  private seen = true;
  private late = false;
  private working: Measured | null = null;
  private readonly problems: Partial<Record<Measured, string>> = {};
  private brush: readonly [number, number] | null = null;

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private data: PanelData,
    private state: State,
  ) {
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-tp");
    const ends = [
      ["100\u202f%", 0],
      ["13\u202f%", 50],
      ["\u2264\u20091.6\u202f%", 100],
    ] as const;
    const ticks = ends.map(([word, at]) => {
      const tick = h("span", { class: at === 0 ? "lt-begin" : at === 100 ? "lt-end" : "" }, word);
      tick.style.left = `${at}%`;
      return tick;
    });
    this.legend.append(
      h("span", {}, "under each bar: the probability that the model gave it"),
      h("div", { class: "lt-scale" }, this.ramp, h("div", { class: "lt-ticks" }, ...ticks)),
    );
    this.body = h(
      "div",
      { class: "lt-tp-body" },
      this.notice,
      this.charts,
      this.legend,
      this.sentence,
      this.layers,
      this.memory,
      this.costs,
      this.gpu,
      this.makeFooter(),
    );
    root.append(
      h("style", {}, base),
      h("style", {}, style),
      this.header,
      this.line,
      this.body,
      this.announcer.element,
    );
    cleanup.on(this.line, "click", () => this.change({ expanded: !this.state.expanded }));
    cleanup.on(this.provenance, "click", () => void this.copyDetails());
    for (const what of ["overhead", "times"] as const)
      cleanup.on(this.measures[what], "click", () => this.measure(what));
    this.layersChart = new ChartView(
      {
        hover: (at) => this.layersChart.point(at, true),
        explain: (at) => this.explainLayer(at),
        say: (at) => words(this.explainLayer(at)),
        choose: (at) => this.chooseLayer(at),
        brushing: () => undefined,
        narrow: () => undefined,
        widen: () => undefined,
      },
      cleanup,
    );
    cleanup.on<KeyboardEvent>(root, "keydown", (e) => this.key(e));
    this.frame = new Frame(cleanup, () => this.render());
    this.theme = applyTheme(root, state.theme);
    cleanup.add(watchTheme(root, () => this.retheme()));
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(root);
    cleanup.add(() => observer.disconnect());
    this.beat = new Timer(cleanup);
    this.watchSight();
    this.resize();
  }

  setData(data: PanelData): void {
    this.data = data;
    this.ask();
  }

  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    this.ask();
  }

  /** Whether a kernel answers. A saved picture says that it is one. */
  setLive(live: boolean): void {
    if (live === this.live) return;
    this.live = live;
    this.ask();
  }

  destroy(): void {
    this.source.watch(false);
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.classList.remove(
      "lt-root",
      "lt-tp",
      "lt-dark",
      "lt-wide",
      "lt-middle",
      "lt-narrow",
      "lt-tp-open",
      "lt-tp-few",
      "lt-tp-least",
    );
    this.root.removeAttribute("style");
  }

  // ---------------------------------------------------------------------------- sight

  /** Tells whether the panel is on the screen; while it is, again every 15 s. */
  private watchSight(): void {
    let near = true;
    const tell = () => {
      const seen = near && document.visibilityState !== "hidden";
      if (seen !== this.seen) {
        this.seen = seen;
        this.source.watch(seen);
        if (seen && this.late) this.frame.ask();
      }
      this.keepTelling();
    };
    if (typeof IntersectionObserver === "function") {
      const observer = new IntersectionObserver((entries) => {
        near = entries[entries.length - 1]?.isIntersecting ?? true;
        tell();
      });
      observer.observe(this.root);
      this.cleanup.add(() => observer.disconnect());
    }
    this.cleanup.on(document, "visibilitychange", tell);
    this.seen = document.visibilityState !== "hidden";
    this.source.watch(this.seen);
    this.keepTelling();
  }

  private keepTelling(): void {
    if (!this.seen) this.beat.stop();
    else
      this.beat.start(15_000, () => {
        this.source.watch(true);
        this.keepTelling();
      });
  }

  private ask(): void {
    if (this.seen) this.frame.ask();
    else this.late = true;
  }

  // ---------------------------------------------------------------------------- doing

  private change(patch: Partial<State>): void {
    this.state = { ...this.state, ...patch };
    this.frame.ask();
    this.source.change(patch);
  }

  hover(place: number | null, chart: ChartView): void {
    for (const own of this.shown.values()) own.point(place, own === chart);
  }

  explain(place: number): Node[] {
    const { data } = this;
    if (data.isSource) {
      const lines = this.charted().map((at): [string, string] => {
        const f = data.facts.figures[at]!;
        return [f.label, amountOf(data.values[at]![place], f.unit === "tokens" ? "" : f.unit)];
      });
      return tip(clock(data.times[place] ?? Number.NaN), lines);
    }
    const lines: [string, string][] = [];
    data.runs.forEach((run, at) => {
      const name = data.runs.length > 1 ? ` of ${"AB"[at]}` : "";
      if (place >= run.count) return;
      lines.push([`token ${place + 1}${name}`, run.words[place] ?? ""]);
      lines.push(["time", time(run.ms[place])]);
      lines.push(["CPU threads around it", figures(run.threads[place], 2)]);
      lines.push(["probability", probability(2 ** -run.bits[place]!)]);
    });
    return tip("", lines);
  }

  say(place: number): string {
    return words(this.explain(place));
  }

  choose(place: number): void {
    const run = this.data.facts.runs[0];
    if (!run || place >= (this.data.runs[0]?.count ?? 0)) return;
    const token = run.prompt + place;
    const again = this.state.selected_tokens[0] === token;
    this.change({ selected_tokens: again ? [] : [token] });
    if (!again) this.announcer.say(this.say(place));
  }

  brushing(range: readonly [number, number] | null): void {
    this.brush = range;
    this.frame.ask();
  }

  narrow(range: readonly [number, number]): void {
    this.brush = null;
    const own = this.data.isSource ? range : [Math.floor(range[0]), Math.ceil(range[1])];
    this.change({ span: [own[0]!, own[1]!] });
  }

  widen(): void {
    if (this.state.span.length > 0) this.change({ span: [] });
  }

  private explainLayer(at: number): Node[] {
    const times = this.data.operations;
    return times ? tip(barName(times.layers[at]!), barLines(times, at)) : [];
  }

  private chooseLayer(at: number): void {
    const layer = this.data.operations?.layers[at]?.layer ?? null;
    if (layer === null) return;
    const again = this.state.selected_layer === layer;
    this.change({ selected_layer: again ? null : layer });
    if (!again) this.announcer.say(words(this.explainLayer(at)));
  }

  private measure(what: Measured): void {
    if (this.working || !this.live) return;
    this.working = what;
    delete this.problems[what];
    this.frame.ask();
    const settle = () => {
      this.working = null;
      this.frame.ask();
    };
    this.source.measure(what).then(settle, (e: unknown) => {
      this.problems[what] = e instanceof Error ? e.message : String(e);
      settle();
    });
  }

  private key(event: KeyboardEvent): void {
    if (event.isComposing || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") {
      const first = [...this.shown.values(), this.layersChart].some((chart) => chart.hideTip());
      const layer = this.state.selected_layer !== null && this.data.operations !== null;
      if (first) event.preventDefault();
      else if (layer && this.layers.contains(event.target as Node)) this.change({ selected_layer: null });
      else if (this.state.span.length > 0) this.widen();
      else if (this.state.selected_tokens.length > 0) this.change({ selected_tokens: [] });
      else if (layer) this.change({ selected_layer: null });
      else return;
      event.stopPropagation();
    } else if (event.key === "Enter" || event.key === " ") event.stopPropagation(); // a button's, not the notebook's
  }

  // -------------------------------------------------------------------------- drawing

  private resize(): void {
    const own = getComputedStyle(this.root);
    const sides = [own.paddingLeft, own.paddingRight].map((p) => Number.parseFloat(p) || 0);
    const inner = this.root.clientWidth - sides[0]! - sides[1]!;
    if (inner < 60) return;
    const rethemed = this.retheme();
    if (inner === this.width && !rethemed) return;
    this.width = inner;
    this.render();
  }

  private retheme(): boolean {
    const theme = applyTheme(this.root, this.state.theme);
    if (sameTheme(theme, this.theme)) return false;
    this.theme = theme;
    this.ask();
    return true;
  }

  private get ratio(): number {
    return window.devicePixelRatio || 1;
  }

  private render(): void {
    if (this.width === 0) return;
    this.late = false;
    const { width, state } = this;
    const mode = width >= WIDE ? "wide" : width >= NARROW ? "middle" : "narrow";
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === mode);
    this.root.classList.toggle("lt-tp-open", state.expanded);
    this.root.classList.toggle("lt-tp-few", width < FEW);
    this.root.classList.toggle("lt-tp-least", width < LEAST);
    this.header.hidden = !state.expanded;
    this.body.hidden = !state.expanded;
    this.renderLine();
    if (!state.expanded) return;
    this.renderHeader();
    this.renderNotice();
    this.renderCharts();
    this.renderSentence();
    this.renderLayers();
    const { runs } = this.data.facts;
    const most = Math.max(1, ...runs.flatMap((run) => run.memory.map((place) => place.total)));
    const name = (at: number) => (runs.length > 1 ? "AB"[at]! : "");
    this.memory.replaceChildren(...runs.flatMap((run, at) => memoryBars(run.memory, name(at), most)));
    this.renderCosts();
    this.gpu.replaceChildren(...gpuRows(this.data, this.theme, this.ratio, width));
  }

  private renderLine(): void {
    const { data, state } = this;
    const { runs } = data.facts;
    const first = data.isSource ? sourceCells(data) : runs[0] ? runCells(runs[0]) : [];
    const second = runs[1] ? runCells(runs[1]) : [];
    const words = first.map((c) => `${c.label} ${c.value} ${c.unit}`.trim()).join(", ");
    const nothing = data.isSource ? "nothing was read yet" : "";
    this.line.setAttribute("aria-expanded", state.expanded ? "true" : "false");
    this.line.setAttribute(
      "aria-label",
      `Telemetry: ${words || nothing}. ${state.expanded ? "Close" : "Open"} the charts`,
    );
    this.more.textContent = state.expanded ? "less" : "more";
    const others = first.map((c, i) => this.cell(c, second[i] ?? null, i === 0));
    if (others.length === 0) others.push(h("span", { class: "lt-tp-cell lt-quiet" }, nothing));
    this.cells.replaceChildren(...others);
    const own = data.isSource ? data.values[Math.max(0, data.find("decode_tps"))] : data.runs[0]?.ms;
    const enough = (own?.length ?? 0) > 1 && this.width >= SPARKED;
    this.spark.hidden = !enough;
    if (enough) sparkline(this.spark, lately(own!), SPARK.width, SPARK.height, this.theme, this.ratio);
  }

  private cell(c: Cell, other: Cell | null, first: boolean): HTMLElement {
    return h(
      "span",
      { class: "lt-tp-cell", title: c.title },
      h(
        "span",
        { class: "lt-tp-figure" },
        h("b", {}, c.value),
        h("span", { class: "lt-tp-unit" }, c.unit),
        h("span", { class: "lt-tp-label" }, c.label, other ? ` \u00b7 B ${other.value} ${other.unit}` : ""),
      ),
      first ? this.spark : null,
    );
  }

  private renderHeader(): void {
    const { facts } = this.data;
    this.title.replaceChildren(h("b", {}, facts.title));
    this.provenance.classList.toggle("lt-stale", !this.live || this.data.isSilent);
    this.provenanceText.textContent = this.provenanceLine();
    this.provenance.title = `Click copies the details\n${this.detailsText()}`;
    this.provenance.setAttribute("aria-label", `${this.provenanceLine()}. Copy the details`);
  }

  private provenanceLine(): string {
    const { facts } = this.data;
    const names =
      facts.runs.length > 1 ? facts.runs.map((r, at) => `${"AB"[at]} ${r.provenance || "no run yet"}`) : [];
    const line = names.length > 0 ? names.join(" \u00b7 ") : facts.provenance;
    const saved = facts.runs[0]?.saved;
    return this.live ? line : `${line} \u00b7 ${saved ? `saved ${saved}, ` : ""}not live`;
  }

  private detailsText(): string {
    const { facts } = this.data;
    const pairs = [
      ...facts.runs.flatMap((r) => Object.entries(r.details)),
      ...Object.entries(facts.source?.facts ?? {}),
    ];
    return [this.provenanceLine(), ...pairs.map(([k, v]) => `${k}: ${v}`)].join("\n");
  }

  private async copyDetails(): Promise<void> {
    const done = await copyText(this.detailsText());
    this.provenanceText.textContent = done ? "Copied" : "Copying is not allowed here";
    this.announcer.say(this.provenanceText.textContent);
    this.cleanup.later(1200, () => this.renderHeader());
  }

  /** What is to be known before the charts: a run that has not begun or has failed, what a source does not tell. */
  private renderNotice(): void {
    const { data } = this;
    const words: string[] = [];
    for (const run of data.facts.runs) {
      if (run.phase === "waiting")
        words.push("No run has begun yet: trace or generate, and it appears here.");
      if (run.phase === "prefill") words.push("The model is reading the prompt \u2026");
      if (run.phase === "failed") words.push(`The run has ended: ${run.message || "it was stopped"}.`);
    }
    if (data.isSource) {
      const note = data.facts.source?.notes[""]; // those of single figures stand beside them
      if (note) words.push(note);
      else if (data.times.length === 0) words.push("Reading the first figures \u2026");
    }
    this.notice.hidden = words.length === 0;
    this.notice.replaceChildren(...words.map((word) => h("div", {}, word)));
  }

  /** Figures of a server that have a chart. */
  private charted(): number[] {
    const { data } = this;
    return CHARTED.map((name) => data.find(name)).filter(
      (at) => at >= 0 && data.values[at]!.some(Number.isFinite),
    );
  }

  private get domain(): [number, number] {
    const { data, state } = this;
    const { times } = data;
    const whole: [number, number] = data.isSource
      ? [times[0] ?? 0, Math.max(times[times.length - 1] ?? 1, (times[0] ?? 0) + 1)]
      : [0, Math.max(1, data.count)];
    const [a, b] = state.span;
    if (a === undefined || b === undefined) return whole;
    const range: [number, number] = [Math.max(whole[0], a), Math.min(whole[1], b)];
    return range[1] > range[0] ? range : whole;
  }

  private get chosen(): number | null {
    const run = this.data.facts.runs[0];
    const token = this.state.selected_tokens[0];
    if (!run || token === undefined) return null;
    const at = token - run.prompt;
    return at >= 0 && at < (this.data.runs[0]?.count ?? 0) ? at : null;
  }

  private renderCharts(): void {
    const { data, theme, width } = this;
    const wanted: ChartView[] = [];
    const [from, to] = this.domain;
    const marks: Marks = { chosen: this.chosen, brush: this.brush };
    const show = (
      name: string,
      heading: string,
      note: string,
      high: number,
      plot: Parameters<ChartView["show"]>[1],
    ) => {
      let chart = this.shown.get(name);
      if (!chart) {
        chart = new ChartView(this, this.cleanup);
        this.shown.set(name, chart);
      }
      chart.show([heading, note], plot, [from, to], width, high, marks, theme, this.ratio);
      wanted.push(chart);
    };
    if (data.isSource) {
      for (const at of this.charted()) {
        const f = data.facts.figures[at]!;
        const unit = f.unit === "tokens" ? "" : f.unit;
        show(
          f.name,
          f.label.replace(/^./, (c) => c.toUpperCase()),
          [amountOf(data.last(at), unit), f.note].filter(Boolean).join(" \u00b7 "),
          HIGH.source,
          {
            xs: data.times,
            values: data.values[at]!,
            bars: false,
            other: null,
            strip: null,
            atLeast: 0,
            ticks: (v) => figures(v, 2),
            chooses: "",
            ends: [clock(from), clock(to)],
          },
        );
      }
    } else if (data.count > 0) this.renderTokens(show, from, to);
    for (const [name, chart] of this.shown)
      if (!wanted.includes(chart)) {
        chart.element.remove();
        this.shown.delete(name);
      }
    if (wanted.some((chart, i) => this.charts.children[i] !== chart.element))
      this.charts.replaceChildren(...wanted.map((chart) => chart.element));
    this.legend.hidden = data.count === 0;
    const stops = Array.from({ length: 9 }, (_, i) => css(shade(theme, (6 * i) / 8)));
    this.ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  }

  private renderTokens(
    show: (n: string, h: string, note: string, high: number, plot: Parameters<ChartView["show"]>[1]) => void,
    from: number,
    to: number,
  ): void {
    const { data, theme } = this;
    const [one, two] = data.runs;
    const xs = Array.from({ length: data.count }, (_, i) => i);
    const stats = (ms: Float32Array) => {
      const own = ms.subarray(from, to);
      return own.length > 0
        ? `median ${figures(quantile(own, 0.5), 2)} \u00b7 95\u202f% within ${figures(quantile(own, 0.95), 2)} \u00b7 slowest ${figures(Math.max(...own), 2)}`
        : "";
    };
    const ends: [string, string] = [`token ${from + 1}`, String(to)];
    const note = two ? `bars A: ${stats(one!.ms)} \u00b7 line B: ${stats(two.ms)}` : stats(one!.ms);
    const axis = { xs, bars: true, ends, chooses: "a token" };
    show("ms", "Milliseconds per token", note, HIGH.token, {
      ...axis,
      values: one!.ms,
      other: two?.ms ?? null,
      strip: (at) => (at < one!.count ? shade(theme, one!.bits[at]!) : null),
      atLeast: 0,
      ticks: (v) => figures(v, 2),
    });
    if (!one!.threads.some(Number.isFinite)) return;
    const given = Number(data.facts.runs[0]!.numbers.threads ?? 0);
    const told = `${threadWords(data.facts.runs[0]!)} \u00b7 each bar over 0.25\u202fs around the token`;
    show("threads", "CPU threads used", told, HIGH.threads, {
      ...axis,
      values: one!.threads,
      other: two?.threads ?? null,
      strip: null,
      atLeast: given,
      ticks: (v) => figures(v, 2),
    });
  }

  /** Milliseconds by layer and by operation, where they were measured. */
  private renderLayers(): void {
    const times = this.data.operations;
    this.layers.hidden = !times;
    if (!times) return;
    const { layersChart: chart, theme, width, ratio } = this;
    const marks: Marks = { chosen: null, brush: null };
    const domain = [0, times.layers.length] as const;
    const style = getComputedStyle(this.root);
    const tone = (token: string) => style.getPropertyValue(token).trim();
    const plot = layersPlot(times, this.state.selected_layer, tone);
    chart.show(["Layers", operationWords(times)], plot, domain, width, HIGH.layers, marks, theme, ratio);
    this.operations.replaceChildren(legend(times), ...operationRows(times));
    if (!chart.element.parentNode) this.layers.append(chart.element, this.operations);
  }

  /** The chosen token, and what the charts are narrowed to. */
  private renderSentence(): void {
    const { data, state } = this;
    const at = this.chosen;
    const parts: Node[] = [];
    const run = data.runs[0];
    if (at !== null && run) {
      parts.push(
        h("bdi", { class: "lt-mono lt-tp-chosen" }, run.words[at] ?? ""),
        h("span", {}, ` token ${at + 1}: ${time(run.ms[at])}, ${probability(2 ** -run.bits[at]!)}`),
        h("span", { class: "lt-quiet" }, ` \u00b7 ${place(run.ms, at)}`),
      );
    }
    if (state.span.length > 0) {
      const [from, to] = this.domain;
      const words = data.isSource ? `${clock(from)} to ${clock(to)}` : `tokens ${from + 1} to ${to}`;
      const back = h("button", { type: "button", class: "lt-link" }, "show everything");
      back.addEventListener("click", () => this.widen());
      parts.push(h("span", { class: "lt-quiet" }, `${parts.length > 0 ? " \u00b7 " : ""}${words} `), back);
    } else if (parts.length === 0 && data.count > 1)
      parts.push(h("span", { class: "lt-quiet" }, "Click a bar to choose its token, drag to look closer"));
    this.sentence.hidden = parts.length === 0;
    this.sentence.replaceChildren(...parts);
  }

  private renderCosts(): void {
    const { data } = this;
    const rows: Node[] = [];
    data.facts.runs.forEach((run, at) => {
      if (run.phase !== "done") return;
      const name = data.facts.runs.length > 1 ? ` ${"AB"[at]}` : "";
      rows.push(row(`Time${name}`, timeWords(run)));
      if (!this.shown.has("threads"))
        rows.push(row(`CPU threads${name}`, threadWords(run) || "too short a time to tell"));
      const more = (what: Measured) => (at === 0 && this.live ? [this.measures[what]] : []);
      const { overhead } = run.numbers;
      rows.push(
        overhead
          ? row(`Capture${name}`, overheadWords(overhead))
          : row(
              `Capture${name}`,
              this.problems.overhead ?? "in these times; what it adds was not measured",
              ...more("overhead"),
            ),
      );
      if (at === 0 && !data.operations && this.live)
        rows.push(
          row(
            "Layers",
            this.problems.times ?? "which layer and operation takes how long was not measured",
            ...more("times"),
          ),
        );
    });
    const names = { overhead: "Measure", times: "Measure layers and operations" };
    for (const what of ["overhead", "times"] as const) {
      this.measures[what].disabled = this.working !== null;
      this.measures[what].textContent = this.working === what ? "Measuring \u2026" : names[what];
    }
    this.costs.hidden = rows.length === 0;
    this.costs.replaceChildren(...rows);
  }

  // ------------------------------------------------------------------------- pictures

  private makeFooter(): HTMLElement {
    const save = (kind: "PNG" | "SVG") => {
      const b = h(
        "button",
        { type: "button", class: "lt-action", title: `Download this view as ${kind}` },
        kind,
      );
      this.cleanup.on(b, "click", () => void this.save(kind));
      return b;
    };
    return h(
      "footer",
      { class: "lt-footer" },
      h("span", { class: "lt-quiet" }, "All axes start at 0"),
      h("span", { class: "lt-actions" }, save("PNG"), save("SVG")),
    );
  }

  private async save(kind: "PNG" | "SVG"): Promise<void> {
    const { data, theme } = this;
    const ratio = Math.max(2, Math.min(4, this.ratio));
    const cells = data.isSource ? sourceCells(data) : runCells(data.facts.runs[0]!);
    const parts: Part[] = [...this.shown.values()].map((chart) => ({
      heading: chart.heading,
      canvas: chart.copy(ratio),
      boxes: [],
      under: "",
      notes: [],
      ramp: null,
    }));
    if (data.operations)
      parts.push({
        heading: this.layersChart.heading,
        canvas: this.layersChart.copy(ratio),
        boxes: [],
        under: operationLine(data.operations),
        notes: [],
        ramp: null,
      });
    const line = cells.map((c) => `${c.label} ${c.value} ${c.unit}`.trim()).join(" \u00b7 ");
    const used = data.facts.runs
      .flatMap((r) => r.memory.map((p) => `${p.place.toLowerCase()} ${bytes(p.total)}`))
      .join(", ");
    const picture = compose(
      data.facts.title,
      line,
      `\u25cf ${this.provenanceLine()}${used ? ` \u00b7 ${used}` : ""}`,
      parts,
      theme,
    );
    const blob = kind === "PNG" ? await toPng(picture, ratio) : toSvg(picture);
    const name = (data.facts.runs[0]?.name || data.facts.provenance || "run").replace(/[^\w.-]+/g, "_");
    download(`telemetry-${name}.${kind.toLowerCase()}`, blob);
    this.announcer.say(`${kind} saved`);
  }
}

/** The newest values: a small line has room for so many. */
function lately(values: Float32Array | Float64Array): ArrayLike<number> {
  return values.length > SPARK.width ? values.subarray(values.length - SPARK.width) : values;
}

/** Where a token stands among all: "slowest of 40". */
function place(ms: Float32Array, at: number): string {
  const slower = ms.filter((v) => v > ms[at]!).length;
  const all = plural(ms.length, "token");
  return slower === 0 ? `the slowest of ${all}` : `${slower} of ${all} were slower`;
}

/** What nodes say, in one line. */
function words(nodes: readonly Node[]): string {
  return nodes
    .map((n) => n.textContent ?? "")
    .join(" ")
    .trim();
}

function row(name: string, words: string, ...more: Node[]): HTMLElement {
  return h("div", { class: "lt-tp-row" }, h("b", {}, name), h("span", {}, words || "\u2013"), ...more);
}

function tip(heading: string, lines: readonly (readonly [string, string])[]): Node[] {
  const cells = lines.flatMap(([name, value]) => [
    h("span", { class: "lt-quiet" }, name, " "),
    h("bdi", { class: name.startsWith("token") ? "lt-mono" : "lt-number" }, value, " "),
  ]);
  const list = h("div", { class: "lt-tp-tip-list" }, ...cells);
  return heading ? [h("b", {}, heading), list] : [list];
}
