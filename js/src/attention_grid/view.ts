// AttentionGrid's view: all heads of all layers, filters, and the locked head large.
// In: GridData, a state, a source of heads. Out: DOM in `root`, and changes of the state. Knows nothing of Jupyter.
import { Announcer, Cleanup, copyText, download, Frame, h, Timer } from "../shared/dom";
import { count, plural, smallWeight, subscript, weight } from "../shared/format";
import { Unavailable } from "../shared/kernel";
import { applyTheme, sameTheme, type Theme, type ThemeChoice, watchTheme } from "../shared/theme";
import { keyHints, Segmented, Toggle } from "./controls";
import type { Facts, Filter, GridData, Head, LayerFacts, Matrix } from "./data";
import { type DetailState, DetailView, type HeadStatus } from "./detail";
import { FiltersView } from "./filters";
import { describeHead, GridView, headWords } from "./grid";
import type { Direction, Span, SumHeads, SumHow } from "./heads";
import { BESIDE_GAP, modeOf } from "./layout";
import { compose, type Part, toPng, toSvg } from "./picture";
import type { Replay } from "./replay";
import { legend, type Scale } from "./scale";
import stages from "./stages.css";
import { emptyPanel, errorPanel, ProgressView } from "./states";
import { Stepper } from "./stepper";
import steps from "./stepper.css";
import style from "./style.css";

/** The locked head of a text that is being written is asked for this often, in ms. */
const FOLLOW = 500;

/** The shared state: the public traits. */
export interface State {
  readonly layer: number | null;
  readonly head: number | null;
  readonly tokens: readonly number[];
  readonly filter: Filter;
  readonly scale: Scale;
  readonly sinkAside: boolean;
  /** "layer", or the statistic that the heads are ranked by. */
  readonly sort: string;
  readonly theme: ThemeChoice;
}

/** Where exact values come from, and who hears what the user does. What does not come rejects with `Unavailable`. */
export interface Source {
  /** A head, at once where it is here already. */
  head(layer: number, head: number): Replay | Promise<Replay>;
  /** Part of a head in `size` cells, as `Replay.tile`; from the kernel where that is faster. */
  tile(
    layer: number,
    head: number,
    stage: string,
    rows: Span,
    keys: Span,
    size: readonly [number, number],
  ): Promise<Matrix>;
  /** Per key what the tokens give it ("looks"), or per query what it gives to the tokens ("seen"). */
  sums(
    tokens: readonly number[],
    direction: Direction,
    heads: SumHeads,
    how: SumHow,
    heard?: (share: number) => void,
  ): Promise<Float32Array>;
  /** Fetches the tokens' statistics; they come with the data. */
  tokenStats(): Promise<void>;
  /** The kernel is busy, so an answer may take long. */
  busy(): boolean;
  change(patch: Partial<State>, final: boolean): void;
  stop(): void;
}

export class AttentionGridView {
  private readonly cleanup = new Cleanup();
  private readonly announcer = new Announcer(this.cleanup);
  private readonly title = h("h2", {});
  private readonly dot = h("span", { class: "lt-dot", "aria-hidden": "true" });
  private readonly provenanceText = h("span", {});
  private readonly provenance = h(
    "button",
    { type: "button", class: "lt-provenance" },
    this.dot,
    this.provenanceText,
  );
  private readonly filters: FiltersView;
  private readonly order: Segmented<"layer" | "ranked">;
  private readonly scale: Segmented<Scale>;
  private readonly sink: Toggle;
  private readonly panel = h("div", { class: "lt-panel", hidden: true });
  /** Lies over the dimmed grid, so that nothing jumps while a filter is dragged. */
  private readonly over = h("div", { class: "lt-panel-over", hidden: true });
  private readonly grid: GridView;
  private readonly note = h("span", { class: "lt-quiet" });
  private readonly progress: ProgressView;
  private readonly stepper: Stepper;
  private readonly newest: Timer;
  private readonly gridColumn: HTMLElement;
  private readonly detail: DetailView;
  private readonly hint = h("p", { class: "lt-quiet lt-open-hint" }, "Click a head to open it.");
  private readonly body: HTMLElement;
  private readonly frame: Frame;
  private theme: Theme;
  private width = 0;
  private live = true;
  private statistic: string;
  private brushed: Set<number> | null = null;
  private isolated: Head | null = null;
  private kept: { key: string; value: Uint8Array } = { key: "", value: new Uint8Array(0) };
  private status: HeadStatus = { kind: "loading" };
  private opened: Head | undefined;
  private openStart: number | null = null;
  /** What the header and the detail show now: a frame of a filter or of a sort draws neither again. */
  private headed: { facts: Facts; live: boolean } | null = null;
  private cut: { of: GridData; rows: number; data: GridData } | null = null;
  private detailed: { data: GridData; state: DetailState } | null = null;
  private panelFor = "";
  private firstPaint: number | null;

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private data: GridData,
    private state: State,
  ) {
    this.firstPaint = performance.now();
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-ag");
    this.statistic = this.chosenStatistic();
    this.filters = new FiltersView(cleanup, {
      filter: (filter, final) => this.setFilter(filter, final),
      statistic: (key) => this.useStatistic(key),
      clear: () => this.clearFilter(),
    });
    this.order = new Segmented(
      "Order",
      [
        ["layer", "By layer", "Layers left to right, heads top to bottom"],
        ["ranked", "Ranked", "Heads from the highest to the lowest value of the marked statistic"],
      ],
      cleanup,
      (v) => this.change({ sort: v === "layer" ? "layer" : this.statistic }),
    );
    this.scale = new Segmented<Scale>(
      "Scale",
      [
        ["linear", "Linear", "Weights from 0 to the largest"],
        ["log", "Log", "Weights from 0.001 to 1, logarithmic"],
        ["row", "Per row", "Each query by its own largest weight"],
      ],
      cleanup,
      (scale) => this.change({ scale }),
    );
    this.sink = new Toggle(
      "Sink aside",
      "Set the first token (the sink) apart and leave it out of automatic maxima",
      cleanup,
      () => this.change({ sinkAside: !this.state.sinkAside }),
    );
    this.grid = new GridView({
      lock: (head) => this.lock(head),
      isolate: (head) => this.isolate(head),
      brush: (heads) => this.brush(heads),
      outside: () => this.free(),
    });
    this.progress = new ProgressView(cleanup, () => source.stop());
    this.stepper = new Stepper(cleanup, (step) => this.step(step));
    this.newest = new Timer(cleanup);
    this.detail = new DetailView(
      {
        tokens: (tokens) => this.chooseTokens(tokens),
        retry: () => this.open(true),
        drawn: () => this.openEnds(),
      },
      source,
    );
    const controls = h(
      "div",
      { class: "lt-controls" },
      this.order.element,
      this.scale.element,
      this.sink.element,
      keyHints(),
    );
    this.gridColumn = h(
      "div",
      { class: "lt-grid-column" },
      this.grid.element,
      this.over,
      this.stepper.element,
      this.progress.element,
    );
    this.body = h("div", { class: "lt-body" }, this.gridColumn, this.detail.element, this.hint);
    const header = h("header", { class: "lt-header" }, this.title, this.provenance);
    root.append(
      h("style", {}, style, stages, steps),
      header,
      this.filters.element,
      controls,
      this.panel,
      this.body,
      this.footer(),
      this.announcer.element,
    );
    cleanup.on(this.provenance, "click", () => this.copyDetails());
    this.frame = new Frame(cleanup, () => this.render());
    this.theme = applyTheme(root, state.theme);
    cleanup.add(watchTheme(root, () => this.retheme()));
    // Before Lumino's document-level listener sees it, and only keys that the widget uses.
    cleanup.on<KeyboardEvent>(window, "keydown", (e) => this.key(e), { capture: true });
    cleanup.on<PointerEvent>(document, "pointerdown", (e) => this.outside(e), { capture: true });
    this.watchSize();
    this.open(false);
    this.resize();
  }

  /** New data: another trace, or the final buffers of this one. */
  setData(data: GridData): void {
    const sameHeads =
      data.facts.layers.length === this.data.facts.layers.length &&
      data.heads.length === this.data.heads.length;
    const before = this.data.facts;
    this.data = data;
    this.kept.key = "";
    if (!sameHeads) {
      this.brushed = null;
      this.isolated = null;
    }
    this.statistic = this.chosenStatistic();
    const locked = this.locked;
    const sameHead = locked?.layer === this.opened?.layer && locked?.head === this.opened?.head;
    const grown = sameHeads && before.n_now !== undefined && continues(before.tokens, data.facts.tokens);
    const same = sameHeads && before.n_now === undefined && equal(before.tokens, data.facts.tokens);
    if (!locked || !sameHead || !(grown || same)) this.open(false);
    else this.opened = locked;
    if (locked && sameHead && grown) this.follow(data.facts.n_now === undefined);
    this.frame.ask();
  }

  /** The thumbnails have more rows. */
  rowsArrived(): void {
    this.grid.refresh();
    this.progress.heard();
    this.frame.ask();
  }

  /** The locked head has more rows: it comes again, at most twice a second; what was there stays meanwhile. */
  private follow(ended: boolean): void {
    if (this.status.kind === "loading" || (this.newest.running && !ended)) return;
    const wait = ended ? 0 : FOLLOW;
    this.newest.start(wait, async () => {
      const head = this.opened;
      if (!head) return;
      try {
        const replay = await this.source.head(head.layer, head.head);
        if (this.opened?.index === head.index && this.status.kind !== "loading") this.status = exact(replay);
      } catch (e) {
        if (ended && this.opened?.index === head.index) this.status = failed(e);
      }
      this.frame.ask();
    });
  }

  /** One layer arrived in the present data. */
  layerArrived(layer: number): void {
    this.kept.key = "";
    this.grid.refresh(layer);
    this.progress.heard();
    this.frame.ask();
  }

  /** The shared state changed, here or elsewhere. */
  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.sort !== "layer") this.statistic = state.sort;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    if (state.layer !== before.layer || state.head !== before.head) this.open(false);
    this.frame.ask();
  }

  /** Whether a kernel answers. A saved picture says that it is one. */
  setLive(live: boolean): void {
    if (live === this.live) return;
    this.live = live;
    if (live && this.status.kind === "no-kernel") this.open(false);
    this.frame.ask();
  }

  destroy(): void {
    this.grid.destroy();
    this.detail.destroy();
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.classList.remove(
      "lt-root",
      "lt-ag",
      "lt-dark",
      "lt-wide",
      "lt-middle",
      "lt-narrow",
      "lt-beside",
      "lt-starting",
    );
    this.root.removeAttribute("style");
  }

  private get locked(): Head | undefined {
    return this.data.head(this.state.layer, this.state.head);
  }

  private chosenStatistic(): string {
    const { data, state } = this;
    const keys = data.facts.statistics.map((s) => s.key);
    if (state.sort !== "layer" && keys.includes(state.sort)) return state.sort;
    const told = (key: string) =>
      data.facts.phase !== "done" || data.column(key).some((v) => !Number.isNaN(v));
    if (keys.includes(this.statistic) && told(this.statistic)) return this.statistic;
    return keys.find(told) ?? keys[0] ?? "";
  }

  private watchSize(): void {
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(this.root);
    this.cleanup.add(() => observer.disconnect());
    // The ratio changes when the window moves to another screen or the page is zoomed.
    let query: MediaQueryList | undefined;
    const changed = () => {
      query?.removeEventListener?.("change", changed);
      query = window.matchMedia?.(`(resolution: ${this.ratio}dppx)`);
      query?.addEventListener?.("change", changed);
      this.frame.ask();
    };
    changed();
    this.cleanup.add(() => query?.removeEventListener?.("change", changed));
  }

  private get ratio(): number {
    return Math.max(1, Math.min(4, window.devicePixelRatio || 1));
  }

  /** A hidden view has no width: it is drawn when it gets one. */
  private resize(): void {
    const style = getComputedStyle(this.root);
    const inner =
      this.root.clientWidth -
      (Number.parseFloat(style.paddingLeft) || 0) -
      (Number.parseFloat(style.paddingRight) || 0);
    if (inner < 60) return;
    // What was hidden, or not in the page yet, may have missed a change of theme.
    const rethemed = this.retheme();
    if (inner === this.width && !rethemed) return;
    this.width = inner;
    this.render();
  }

  /** Reads the host's colours again; true when they changed. */
  private retheme(): boolean {
    const theme = applyTheme(this.root, this.state.theme);
    if (sameTheme(theme, this.theme)) return false;
    this.theme = theme;
    this.frame.ask();
    return true;
  }

  private change(patch: Partial<State>, final = true): void {
    this.source.change(patch, final);
  }

  private setFilter(filter: Filter, final: boolean): void {
    this.change({ filter }, final);
    if (final) this.announceKept();
  }

  private clearFilter(): void {
    this.brushed = null;
    this.isolated = null;
    this.kept.key = "";
    this.change({ filter: {} });
    this.frame.ask();
    this.announceKept();
  }

  private announceKept(): void {
    const kept = this.keptNow().reduce((n, k) => n + k, 0);
    this.announcer.say(`${kept} of ${plural(this.data.heads.length, "head")} kept`);
  }

  private useStatistic(key: string): void {
    this.statistic = key;
    if (this.state.sort !== "layer") this.change({ sort: key });
    this.frame.ask();
  }

  private brush(heads: Head[]): void {
    this.brushed = heads.length > 0 ? new Set(heads.map((h) => h.index)) : null;
    this.kept.key = "";
    this.frame.ask();
    this.announceKept();
  }

  private isolate(head: Head): void {
    this.isolated = this.isolated?.index === head.index ? null : head;
    if (this.isolated) this.lock(head);
    this.announcer.say(
      this.isolated ? `Only layer ${head.layer} head ${head.head} is shown` : "All heads are shown",
    );
    this.frame.ask();
  }

  private lock(head: Head): void {
    if (!this.data.has(head)) return;
    if (this.state.layer === head.layer && this.state.head === head.head) return;
    this.openStart = performance.now();
    this.change({ layer: head.layer, head: head.head });
    this.announcer.say(`${describeHead(this.data, head, this.statistic, true)}, locked`);
  }

  /** The grid ends with a token that the model wrote, and the detail reads its row; null = with the newest. */
  private step(step: number | null): void {
    this.change({ tokens: step === null ? [] : [step] });
    this.frame.ask();
  }

  private chooseTokens(tokens: number[]): void {
    this.change({ tokens });
    requestAnimationFrame(() => this.announcer.say(this.detail.words));
  }

  /** Fetches the locked head; draws its thumbnail meanwhile. */
  private open(again: boolean): void {
    const head = this.locked;
    this.opened = head;
    if (!head) return;
    this.openStart ??= performance.now();
    const answer = this.source.head(head.layer, head.head);
    if (!(answer instanceof Promise)) {
      this.status = exact(answer);
      if (again) this.frame.ask();
      return;
    }
    this.status = { kind: "loading" };
    if (again) this.frame.ask();
    const stillMine = () => this.opened?.layer === head.layer && this.opened.head === head.head;
    const put = (status: HeadStatus) => {
      if (!stillMine()) return;
      this.status = status;
      this.frame.ask();
    };
    this.cleanup.later(3000, () => {
      if (stillMine() && this.status.kind === "loading" && this.source.busy()) put({ kind: "busy" });
    });
    answer.then(
      (replay) => put(exact(replay)),
      (e: unknown) => put(failed(e)),
    );
  }

  private keptNow(): Uint8Array {
    const key = JSON.stringify(this.state.filter) + (this.brushed ? [...this.brushed].join() : "");
    if (this.kept.key !== key || this.kept.value.length !== this.data.heads.length) {
      const value = this.data.kept(this.state.filter);
      if (this.brushed) for (let i = 0; i < value.length; i++) if (!this.brushed.has(i)) value[i] = 0;
      this.kept = { key, value };
    }
    return this.kept.value;
  }

  private get running(): number | null {
    if (this.data.facts.phase !== "computing") return null;
    return (
      this.data.facts.layers.find((l) => l.kind === "attention" && !this.data.layerArrived(l.layer))?.layer ??
      null
    );
  }

  /** Brings everything on the screen to the present data and state. */
  private render(): void {
    if (this.width === 0) return;
    const { data, state, theme, width, ratio } = this;
    const mode = modeOf(width);
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === mode);
    const kept = this.keptNow();
    const filtered = Object.keys(state.filter).length > 0 || this.brushed !== null;
    const locked = this.locked;
    const shared = { statistic: this.statistic, ranked: state.sort !== "layer", locked, kept };
    this.root.classList.toggle("lt-starting", data.heads.length === 0);
    this.renderHeader();
    this.filters.show(data, { ...shared, filter: state.filter, active: filtered || this.isolated !== null });
    this.order.show(shared.ranked ? "ranked" : "layer");
    this.scale.show(state.scale);
    this.sink.show(state.sinkAside);
    this.renderPanel(kept, filtered);
    this.stepper.show(data);
    this.grid.show(data, {
      ...shared,
      width,
      ratio,
      theme,
      scale: state.scale,
      sinkAside: state.sinkAside,
      filtered,
      isolated: this.isolated,
      running: this.running,
      until: Math.min(data.until, this.stepper.until),
    });
    this.progress.show(data.facts);
    if (this.firstPaint !== null) {
      performance.measure("lt:first-paint", { start: this.firstPaint, end: performance.now() });
      this.firstPaint = null;
    }
    this.detail.keep(filtered ? kept : null);
    this.renderDetail(locked);
  }

  private renderDetail(head: Head | undefined): void {
    const { layout } = this.grid;
    if (!layout) {
      this.hint.hidden = true;
      return;
    }
    this.root.classList.toggle("lt-beside", layout.beside);
    this.gridColumn.style.width = layout.beside ? `${layout.width}px` : "";
    this.hint.hidden = head !== undefined || this.data.heads.length === 0;
    if (!head || !this.data.has(head)) {
      this.detail.hide();
      this.detail.element.style.minHeight = "";
      this.detailed = null;
      return;
    }
    const { state, theme, ratio } = this;
    const data = this.dataOfHead();
    const width = layout.beside ? this.width - layout.width - BESIDE_GAP : this.width;
    const wanted: DetailState = {
      head,
      status: this.status,
      tokens: state.tokens,
      scale: state.scale,
      sinkAside: state.sinkAside,
      theme,
      ratio,
      width,
      mode: layout.mode,
      beside: layout.beside,
    };
    if (this.detailed?.data === data && sameFields(this.detailed.state, wanted)) return;
    const old = this.detailed?.state;
    const stays =
      old?.head.index === head.index && old.width === width && old.status.kind === wanted.status.kind;
    this.detailed = { data, state: wanted };
    this.detail.show(data, wanted);
    this.keepHeight(stays && this.data.facts.n_now !== undefined);
  }

  /** The locked head stands on the screen with exact values. */
  private openEnds(): void {
    if (this.openStart === null) return;
    performance.measure("lt:open-head", { start: this.openStart, end: performance.now() });
    this.openStart = null;
  }

  /** While a head's rows come again and again, the data are those of the rows that it has. */
  private dataOfHead(): GridData {
    const { data, status } = this;
    const rows = status.kind === "exact" ? status.replay.rows : data.facts.n_tokens;
    if (this.cut?.of !== data || this.cut.rows !== rows) this.cut = { of: data, rows, data: data.cut(rows) };
    return this.cut.data;
  }

  /** A matrix that gets a row more has smaller cells, and may be a little lower: nothing under it moves up. */
  private keepHeight(keep: boolean): void {
    const { element } = this.detail;
    if (!keep) element.style.minHeight = "";
    else element.style.minHeight = `${element.offsetHeight}px`;
  }

  private renderHeader(again = false): void {
    const { facts } = this.data;
    if (!again && this.headed?.facts === facts && this.headed.live === this.live) return;
    this.headed = { facts, live: this.live };
    const masked = facts.layers.some((l) => l.kind === "attention" && l.mask !== "none");
    const cells = masked ? "masked cells are hatched, not zero" : "every token sees all";
    this.note.hidden = !facts.layers.some((l) => l.kind === "attention");
    this.note.textContent = `Rows are queries, columns keys. Zero is the paper colour; ${cells}.`;
    this.title.replaceChildren(h("b", {}, facts.title || "Attention"), h("span", {}, this.subtitle()));
    this.provenance.hidden = facts.provenance === "";
    this.provenance.classList.toggle("lt-stale", !this.live);
    this.provenanceText.textContent = this.provenanceLine();
    this.provenance.title = `Click copies the details\n${this.detailsText()}`;
    this.provenance.setAttribute("aria-label", `${this.provenanceLine()}. Copy the details`);
  }

  private subtitle(): string {
    const { facts } = this.data;
    if (facts.layers.length === 0) return facts.phase === "computing" ? facts.message : "";
    const counts = new Set(facts.layers.filter((l) => l.kind === "attention").map((l) => l.heads));
    const heads =
      counts.size === 1
        ? ` \u00d7 ${plural([...counts][0]!, "head")}`
        : counts.size > 1
          ? ` \u00b7 ${plural(this.data.heads.length, "head")}`
          : "";
    const tokens =
      facts.part === "cross"
        ? `${plural(this.data.queries.length, "decoder token")} look at ${plural(facts.n_tokens, "encoder token")}`
        : facts.n_now !== undefined
          ? `${count(facts.tokens.length)} of at most ${plural(facts.n_tokens, "token")}`
          : plural(facts.n_tokens, "token");
    const how =
      facts.phase === "computing" && facts.total > 0
        ? `layer ${count(facts.done)} of ${count(facts.total)} \u00b7 `
        : "";
    return `${how}${plural(facts.layers.length, "layer")}${heads} \u00b7 ${tokens}`;
  }

  private provenanceLine(): string {
    const { facts } = this.data;
    if (this.live) return facts.provenance;
    return `${facts.provenance} \u00b7 ${facts.saved ? `saved ${facts.saved}, ` : ""}not live`;
  }

  private detailsText(): string {
    return [
      this.provenanceLine(),
      ...Object.entries(this.data.facts.details).map(([k, v]) => `${k}: ${v}`),
    ].join("\n");
  }

  private async copyDetails(): Promise<void> {
    const done = await copyText(this.detailsText());
    this.provenanceText.textContent = done ? "Copied" : "Copying is not allowed here";
    this.announcer.say(this.provenanceText.textContent);
    this.cleanup.later(1200, () => this.renderHeader(true));
  }

  private renderPanel(kept: Uint8Array, filtered: boolean): void {
    const { facts } = this.data;
    const nothing = this.data.heads.length === 0 && facts.phase === "done";
    const none = filtered && facts.phase !== "computing" && !kept.includes(1) && kept.length > 0;
    const key = JSON.stringify([
      facts.phase === "error" ? facts.message : "",
      none,
      none ? this.state.filter : null,
      nothing,
    ]);
    if (key === this.panelFor) return;
    this.panelFor = key;
    const clear = () => this.clearFilter();
    const panel =
      facts.phase === "error"
        ? errorPanel(this.cleanup, facts)
        : nothing
          ? h(
              "div",
              { class: "lt-empty" },
              h("b", {}, "No layer of this model has attention."),
              ` ${otherLayers(facts.layers)}`,
            )
          : none
            ? emptyPanel(this.data, this.state.filter, (filter) => this.setFilter(filter, true), clear)
            : null;
    for (const place of [this.panel, this.over]) {
      const mine = panel !== null && (place === this.over) === none;
      place.hidden = !mine;
      place.replaceChildren(...(mine ? [panel] : []));
    }
  }

  private footer(): HTMLElement {
    const save = (kind: "PNG" | "SVG") => {
      const b = h(
        "button",
        { type: "button", class: "lt-action", title: `Download this view as ${kind}` },
        kind,
      );
      this.cleanup.on(b, "click", () => this.save(kind));
      return b;
    };
    return h(
      "footer",
      { class: "lt-footer" },
      this.note,
      h("span", { class: "lt-actions" }, save("PNG"), save("SVG")),
    );
  }

  private async save(kind: "PNG" | "SVG"): Promise<void> {
    const { facts } = this.data;
    const picture = compose(
      facts.title || "Attention",
      this.subtitle(),
      this.provenanceLine(),
      this.parts(),
      this.theme,
    );
    const part = facts.title.toLowerCase().replaceAll(" ", "-");
    const name = `${part}-${(facts.model || "model").replace(/[^\w.-]+/g, "_")}`;
    const blob = kind === "PNG" ? await toPng(picture, Math.max(2, this.ratio)) : toSvg(picture);
    download(`${name}.${kind.toLowerCase()}`, blob);
    this.announcer.say(`${kind} saved`);
  }

  /** The two canvases with what lies over them. */
  private parts(): Part[] {
    const { facts } = this.data;
    const locked = this.locked;
    const lock = this.grid.boxOf(locked);
    const parts: Part[] = [
      {
        heading: ["", ""],
        canvas: this.grid.canvas,
        boxes: lock ? [{ ...lock, thick: true }] : [],
        under: "",
        notes: [],
        ramp: null,
      },
    ];
    if (!locked || this.detail.element.hidden) return parts;
    const reading = this.detail.now;
    const name = (tokens: readonly string[], i: number) => `${tokens[i] ?? ""}${subscript(i)}`;
    parts.push({
      heading: [
        `Layer ${locked.layer} \u00b7 head ${locked.head}`,
        [headWords(this.data, locked), "softmax", "query \u2193 key \u2192"].filter(Boolean).join(" \u00b7 "),
      ],
      canvas: this.detail.plate.canvas,
      boxes: this.detail.plate.boxes,
      under: reading
        ? `${name(this.data.queries, reading.query)} looks at ${name(facts.tokens, reading.key)} ${smallWeight(reading.weight)} \u00b7 rank ${reading.rank} of ${reading.visible}`
        : "",
      notes: facts.statistics
        .filter((f) => f.histogram)
        .map((f) => {
          const rank = this.data.rank(locked, f.key);
          const place = rank > 0 ? `#${count(rank)} of ${count(this.data.heads.length)}` : "no value";
          return [f.label, weight(this.data.value(locked, f.key), 2), place];
        }),
      ramp: legend(this.state.scale, this.detail.plate.most).ticks,
      row: this.detail.stages.pictured,
    });
    return parts;
  }

  /** One listener for all regions, so that keys the widget uses never reach the notebook. */
  private key(event: KeyboardEvent): void {
    const path = event.composedPath();
    if (!path.includes(this.root) || event.isComposing) return;
    const target = path[0] as HTMLElement;
    const region = target.closest?.("[data-region]")?.getAttribute("data-region");
    const views: Record<string, { key(e: KeyboardEvent): boolean }> = {
      grid: this.grid,
      detail: this.detail.plate,
      strip: this.detail.strip,
      vectors: this.detail.vectors,
      filters: this.filters,
    };
    const used =
      event.key === "Escape"
        ? this.free()
        : this.steps(event) ||
          (region !== null && region !== undefined && views[region]?.key(event)) ||
          false;
    if (used) event.preventDefault();
    if (used || isNative(target, event)) event.stopPropagation();
    if (!used && target.getAttribute("role") === "radio") this.stepRadio(target, event);
  }

  /** The keys , and . step through a text that the model wrote. */
  private steps(event: KeyboardEvent): boolean {
    const by = event.key === "," ? -1 : event.key === "." ? 1 : 0;
    if (by === 0 || event.altKey || event.ctrlKey || event.metaKey || !this.stepper.move(by)) return false;
    this.announcer.say(this.stepper.now);
    return true;
  }

  /** Arrows choose the next option of a segmented control. */
  private stepRadio(target: HTMLElement, event: KeyboardEvent): void {
    if (!event.key.startsWith("Arrow")) return;
    event.stopPropagation();
    event.preventDefault();
    const row = target.parentElement;
    const buttons = row ? [...row.querySelectorAll<HTMLElement>("[role=radio]")] : [];
    const move = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
    const next = buttons[(buttons.indexOf(target) + move + buttons.length) % buttons.length];
    next?.focus();
    next?.click();
  }

  /** Frees the innermost thing; true when there was one. */
  private free(): boolean {
    if (this.grid.previewing) {
      this.grid.hidePreview();
      return true;
    }
    if (this.detail.plate.previewing) {
      this.detail.plate.hideTip();
      return true;
    }
    if (this.detail.plate.free()) return true;
    if (this.brushed || this.isolated) {
      this.brushed = this.isolated = null;
      this.kept.key = "";
      this.frame.ask();
      return true;
    }
    if (Object.keys(this.state.filter).length > 0) {
      this.clearFilter();
      return true;
    }
    if (this.locked) {
      this.unlock();
      return true;
    }
    if (this.data.facts.phase !== "computing" && this.data.facts.phase !== "generating") return false;
    this.progress.stop();
    return true;
  }

  private unlock(): void {
    this.change({ layer: null, head: null });
    this.announcer.say("Nothing locked");
  }

  /** A click outside closes what floats, never the lock: other cells are used while a head stays open. */
  private outside(event: PointerEvent): void {
    if (event.composedPath().includes(this.root)) return;
    this.grid.hidePreview();
    this.detail.plate.hideTip();
  }
}

/** "It has 3 recurrent layers.": what stands where attention would be. */
function otherLayers(layers: readonly LayerFacts[]): string {
  const counts = new Map<string, number>();
  for (const l of layers) {
    const kind = l.reason.split(":")[0] ?? "";
    if (kind) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const words = [...counts].map(([kind, n]) => plural(n, kind));
  return words.length > 0 ? `It has ${words.join(" and ")}.` : "";
}

/** Keys that the focused element uses itself, by the browser's own behaviour. */
function isNative(target: HTMLElement, event: KeyboardEvent): boolean {
  const { key } = event;
  if (target instanceof HTMLInputElement || target instanceof HTMLSelectElement)
    return key !== "Tab" && !event.ctrlKey && !event.metaKey;
  return target instanceof HTMLButtonElement && (key === "Enter" || key === " ");
}

function exact(replay: Replay): HeadStatus {
  return { kind: "exact", replay };
}

/** Both have the very same values. */
function sameFields<T extends object>(a: T, b: T): boolean {
  return (Object.keys(a) as (keyof T)[]).every((key) => Object.is(a[key], b[key]));
}

function failed(e: unknown): HeadStatus {
  return e instanceof Unavailable && e.why === "no-kernel"
    ? { kind: "no-kernel" }
    : { kind: "error", message: e instanceof Error ? e.message : String(e) };
}

/** Whether `more` begins with all of `tokens`. */
function continues(tokens: readonly string[], more: readonly string[]): boolean {
  return tokens.length <= more.length && tokens.every((t, i) => t === more[i]);
}

function equal(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && continues(a, b);
}
