// QuantizationReport's view: the recommendation first, then the evidence: plot, drift, table, text.
// In: ReportData, a state, a source. Out: DOM in `root`, changes of the state, requests to the study. Knows no Jupyter.
import { Segmented } from "../attention_grid/controls";
import base from "../attention_grid/style.css";
import { stepRadio } from "../layer_lens/choice";
import { Announcer, Cleanup, copyText, download, Frame, h, setProps } from "../shared/dom";
import { plural } from "../shared/format";
import { Unavailable } from "../shared/kernel";
import { applyTheme, sameTheme, type Theme, type ThemeChoice, watchTheme } from "../shared/theme";
import { Answer } from "./answer";
import { type Choice, isMeasured, type ReportData } from "./data";
import { HeatMap } from "./heat";
import { PlotView } from "./plot";
import type { Scale } from "./plot_layout";
import style from "./style.css";
import { makeTable, makeTexts } from "./table";
import { TokensView } from "./tokens";
import { doneWords, reason, shortNames, size } from "./words";

/** The shared state: the public traits. */
export interface State {
  readonly max_bytes: number | null;
  readonly selected_candidate: string | null;
  readonly selected_layer: number | null;
  readonly selected_head: number | null;
  readonly scale: Scale;
  readonly theme: ThemeChoice;
}

/** Who runs the study and makes files, and who hears what the user does. What does not come rejects. */
export interface Source {
  change(patch: Partial<State>): void;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Opens the heads of a candidate beside the base's. */
  compare(candidate: string): Promise<void>;
  closeComparison(): void;
  file(kind: FileKind): Promise<{ name: string; data: DataView }>;
}

export type FileKind = "PNG" | "HTML" | "JSON" | "Parquet";

const NARROW = 600;
const WIDE = 900;
const BETWEEN = 32;
/** Height of the plot beside the maps, and without them. */
const TALL = 470;
const LOW = 340;
const FILES: readonly FileKind[] = ["PNG", "HTML", "JSON", "Parquet"];
let views = 0;

export class QuantizationReportView {
  /** Where an opened comparison of heads is put. */
  readonly comparison = h("div", {});
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
  private readonly message = h("div", { class: "lt-empty", hidden: true });
  private readonly runWords = h("span", { role: "status" });
  private readonly runButton = h("button", { type: "button", class: "lt-button" });
  private readonly run = h("div", { class: "lt-notice lt-qr-run" }, this.runWords, this.runButton);
  private readonly answer: Answer;
  private readonly scale: Segmented<Scale>;
  private readonly plot: PlotView;
  private readonly caption = h("p", { class: "lt-qr-caption" });
  private readonly residual: HeatMap;
  private readonly attention: HeatMap;
  private readonly headMap: HeatMap;
  private readonly headWords = h("span", {});
  private readonly compare = h(
    "button",
    { type: "button", class: "lt-button" },
    "Compare its heads with the base\u2019s",
  );
  private readonly compareWords = h("span", { class: "lt-quiet", role: "status" });
  private readonly table = h("div", { class: "lt-qr-scroll" });
  private readonly tokens: TokensView;
  private readonly opened: HTMLElement;
  private readonly notes = h("span", { class: "lt-quiet" });
  private readonly files = new Map<FileKind, HTMLButtonElement>();
  private readonly sections: Readonly<Record<"plot" | "residual" | "attention" | "heads", HTMLElement>>;
  private readonly body: HTMLElement;
  private readonly frame: Frame;
  private theme: Theme;
  private width = 0;
  private live = true;
  private dragged: number | null | undefined = undefined;
  private runProblem = "";
  private comparing = false;
  private said = "";

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private data: ReportData,
    private state: State,
  ) {
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-qr");
    const own = `qr-${++views}`;
    this.answer = new Answer(cleanup, (words) => this.announcer.say(words));
    this.scale = new Segmented<Scale>(
      "Scale of KL",
      [
        ["log", "Log", "KL on a logarithmic scale"],
        ["linear", "Linear", "KL on a linear scale from 0"],
      ],
      cleanup,
      (scale) => this.source.change({ scale }),
    );
    this.plot = new PlotView(
      {
        choose: (name) => this.choose(name),
        drag: (budget) => {
          this.dragged = budget;
          this.frame.ask();
        },
        budget: (budget) => {
          this.dragged = undefined;
          this.source.change({ max_bytes: budget });
          this.frame.ask();
        },
      },
      cleanup,
    );
    const cell = (row: number, layer: number) => {
      const name = this.data.facts.rows[row]!.name;
      this.source.change({ selected_candidate: name, selected_layer: layer });
    };
    this.residual = new HeatMap("Residual stream drift", `${own}r`, cell, cleanup);
    this.attention = new HeatMap("Attention drift", `${own}a`, cell, cleanup);
    this.headMap = new HeatMap(
      "Attention drift by head",
      `${own}h`,
      (head, layer) => this.source.change({ selected_head: head, selected_layer: layer }),
      cleanup,
    );
    this.tokens = new TokensView(own, cleanup);
    this.sections = {
      plot: h(
        "section",
        { class: "lt-qr-left" },
        h(
          "div",
          { class: "lt-qr-bar" },
          heading("Distance from the base against size", "lower left is better"),
          h("div", { class: "lt-small" }, this.scale.element),
        ),
        this.plot.element,
        this.caption,
      ),
      residual: h(
        "section",
        {},
        heading(
          "Residual stream drift",
          "\u2016h \u2212 h\u2080\u2016 / \u2016h\u2080\u2016 after each layer, median token",
        ),
        this.residual.element,
      ),
      attention: h(
        "section",
        {},
        heading("Attention drift", "total variation, mean over heads"),
        this.attention.element,
      ),
      heads: h(
        "section",
        {},
        h("h3", {}, h("b", {}, "By head"), this.headWords),
        this.headMap.element,
        h("div", { class: "lt-qr-bar" }, this.compare, this.compareWords),
      ),
    };
    const close = h("button", { type: "button", class: "lt-button" }, "Close the comparison");
    cleanup.on(close, "click", () => this.source.closeComparison());
    this.opened = h("div", { class: "lt-qr-comparison", hidden: true }, this.comparison, close);
    const { plot, residual, attention, heads } = this.sections;
    this.body = h(
      "div",
      {},
      this.answer.element,
      h("div", { class: "lt-qr-main" }, plot, h("div", { class: "lt-qr-right" }, residual, attention, heads)),
      this.table,
      this.tokens.element,
      this.opened,
      this.makeFooter(),
    );
    root.append(
      h("style", {}, base),
      h("style", {}, style),
      h("header", { class: "lt-header" }, this.title, this.provenance),
      this.message,
      this.run,
      this.body,
      this.announcer.element,
    );
    cleanup.on(this.provenance, "click", () => this.copyDetails());
    cleanup.on(this.runButton, "click", () => this.startOrStop());
    cleanup.on(this.compare, "click", () => this.openHeads());
    cleanup.on(window, "scroll", () => this.hideTips(), { capture: true, passive: true });
    // Before Lumino's document-level listener sees it, and only keys that the widget uses.
    cleanup.on<KeyboardEvent>(window, "keydown", (e) => this.key(e), { capture: true });
    this.frame = new Frame(cleanup, () => this.render());
    this.theme = applyTheme(root, state.theme);
    cleanup.add(watchTheme(root, () => this.retheme()));
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(root);
    cleanup.add(() => observer.disconnect());
    this.resize();
  }

  /** More was measured, or tokens have come. */
  setData(data: ReportData): void {
    this.data = data;
    this.frame.ask();
  }

  /** The shared state changed, here or elsewhere. */
  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    this.frame.ask();
  }

  /** Whether a kernel answers. A saved picture says that it is one. */
  setLive(live: boolean): void {
    if (live === this.live) return;
    this.live = live;
    this.frame.ask();
  }

  /** A comparison of heads was put into `comparison`, or taken out. */
  showComparison(there: boolean, now: boolean): void {
    this.opened.hidden = !there;
    if (there && now) this.opened.scrollIntoView({ block: "nearest" });
  }

  destroy(): void {
    this.hideTips();
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.classList.remove("lt-root", "lt-qr", "lt-dark", "lt-wide", "lt-middle", "lt-narrow");
    this.root.removeAttribute("style");
  }

  // ------------------------------------------------------------------- what is chosen

  /** The budget that is shown: the line may still be in the hand. */
  private get budget(): number | null {
    return this.dragged === undefined ? this.state.max_bytes : this.dragged;
  }

  /** Whose heads and tokens are shown: the chosen candidate, else the recommended one. */
  private shown(choice: Choice | null): string | null {
    return this.data.row(this.state.selected_candidate)?.name ?? choice?.name ?? null;
  }

  private choose(name: string): void {
    const free = this.state.selected_candidate === name;
    this.source.change({ selected_candidate: free ? null : name });
  }

  /** Frees the innermost thing; true when there was one. */
  private free(): boolean {
    if (this.hideTips()) return true;
    const { selected_head, selected_layer, selected_candidate } = this.state;
    if (selected_head !== null) this.source.change({ selected_head: null });
    else if (selected_layer !== null) this.source.change({ selected_layer: null });
    else if (selected_candidate !== null) this.source.change({ selected_candidate: null });
    else return false;
    this.announcer.say("Freed");
    return true;
  }

  private hideTips(): boolean {
    const own = [this.plot, this.residual, this.attention, this.headMap];
    return own.map((part) => part.hideTip()).includes(true);
  }

  // ------------------------------------------------------------------- the study

  private startOrStop(): void {
    const { running } = this.data.facts;
    this.runButton.disabled = true;
    this.runProblem = "";
    const settle = (problem: string) => {
      this.runProblem = problem;
      this.runButton.disabled = false;
      this.frame.ask();
    };
    (running ? this.source.stop() : this.source.start()).then(
      () => settle(""),
      (e: unknown) => settle(reason(e)),
    );
  }

  private openHeads(): void {
    const name = this.shown(this.data.choice(this.budget));
    if (name === null || this.comparing) return;
    this.comparing = true;
    this.compareWords.textContent = `Running the base and ${name} on the beginning of the text \u2026`;
    setProps(this.compare, { disabled: true });
    const settle = (words: string) => {
      this.comparing = false;
      this.compareWords.textContent = words;
      this.frame.ask();
    };
    this.source.compare(name).then(
      () => settle(""),
      (e: unknown) => settle(reason(e)),
    );
  }

  // --------------------------------------------------------------------------- drawing

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
    this.frame.ask();
    return true;
  }

  private render(): void {
    if (this.width === 0) return;
    const { data, width, state, theme } = this;
    const mode = width >= WIDE ? "wide" : width >= NARROW ? "middle" : "narrow";
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === mode);
    this.renderHeader();
    const nothing = data.facts.message !== "";
    this.message.hidden = !nothing;
    this.message.textContent = data.facts.message;
    this.body.hidden = nothing;
    this.renderRun();
    if (nothing) return;
    const choice = data.choice(this.budget);
    const shown = this.shown(choice);
    this.answer.show(choice);
    this.announce(choice);
    this.scale.show(state.scale);
    const beside = mode === "wide" && data.layers.length + data.heads.length > 0;
    const half = beside ? Math.floor((width - BETWEEN) * 0.52) : width;
    this.sections.plot.style.width = beside ? `${half}px` : "";
    this.plot.show(data, {
      theme,
      width: half,
      height: beside ? TALL : LOW,
      scale: state.scale,
      budget: this.budget,
      recommended: choice?.name ?? null,
      selected: state.selected_candidate,
    });
    this.sections.plot.hidden = data.placed.length === 0;
    this.caption.textContent = this.captionWords();
    this.renderMaps(choice, shown, beside ? width - half - BETWEEN : width);
    this.renderTable(choice, mode !== "wide");
    const row = data.row(shown);
    const why = row && isMeasured(row) ? this.whyNoTokens() : "not measured yet";
    this.tokens.show((shown && data.strips[shown]) || null, shown, why, theme);
    this.renderFooter();
  }

  private whyNoTokens(): string {
    return this.live && this.data.facts.live
      ? "reading its tokens \u2026"
      : "its tokens were not saved: they need a kernel";
  }

  private renderHeader(): void {
    const { facts } = this.data;
    this.title.replaceChildren(h("b", {}, facts.title), h("span", {}, facts.subtitle));
    this.provenance.classList.toggle("lt-stale", !this.live);
    this.provenanceText.textContent = this.provenanceLine();
    this.provenance.title = `Click copies the details\n${this.detailsText()}`;
    this.provenance.setAttribute("aria-label", `${this.provenanceLine()}. Copy the details`);
  }

  private provenanceLine(): string {
    const { facts } = this.data;
    if (this.live) return facts.provenance;
    return `${facts.provenance} \u00b7 ${facts.saved ? `saved ${facts.saved}, ` : ""}not live`;
  }

  private detailsText(): string {
    const lines = Object.entries(this.data.facts.details).map(([k, v]) => `${k}: ${v}`);
    return [this.provenanceLine(), ...lines].join("\n");
  }

  private async copyDetails(): Promise<void> {
    const done = await copyText(this.detailsText());
    this.provenanceText.textContent = done ? "Copied" : "Copying is not allowed here";
    this.announcer.say(this.provenanceText.textContent);
    this.cleanup.later(1200, () => this.renderHeader());
  }

  /** What the study is doing, with the button that stops it or goes on with it. */
  private renderRun(): void {
    const { facts } = this.data;
    const open = facts.rows.filter((r) => r.status !== "done" && r.status !== "failed").length;
    this.run.hidden =
      facts.message !== "" || (!facts.running && open === 0 && this.runProblem + facts.progress === "");
    const can = this.live && facts.live;
    this.runButton.hidden = !can;
    this.runButton.textContent = facts.running
      ? "Stop"
      : facts.rows.every((r) => r.status === "waiting")
        ? "Start"
        : "Resume";
    const state = facts.progress || (facts.running ? "Running" : "Not running");
    const words = `${state} \u00b7 ${doneWords(this.data)}`;
    this.runWords.textContent = this.runProblem ? `${this.runProblem} \u00b7 ${words}` : words;
    this.run.classList.toggle("lt-qr-running", facts.running);
  }

  private announce(choice: Choice | null): void {
    if (choice === null || choice.headline === this.said) return;
    const first = this.said === "";
    this.said = choice.headline;
    if (!first) this.announcer.say(`${choice.headline} ${choice.body}`);
  }

  private captionWords(): string {
    const { base, rows } = this.data.facts;
    const words = ["Bars = 95\u202f%, dots = text blocks, hollow = another is smaller and closer."];
    const off = this.data.measured.filter((r) => r.kind === "kv").length;
    if (off > 0) words.push(`${plural(off, "type")} of the KV cache: in the table.`);
    const most = Math.max(0, ...rows.map((r) => r.bytes ?? 0));
    if (base.bytes !== null && base.bytes > most) words.push(`Base: ${size(base.bytes)}, off the chart.`);
    return words.join(" ");
  }

  private renderMaps(choice: Choice | null, shown: string | null, room: number): void {
    const { data, state, theme } = this;
    const ratio = Math.max(1, Math.min(4, window.devicePixelRatio || 1));
    const names = data.facts.rows.map((r) => r.name);
    const [residual, attention, heads] = data.facts.shapes;
    const row = state.selected_candidate === null ? -1 : names.indexOf(state.selected_candidate);
    const common = { theme, ratio, width: room, column: state.selected_layer ?? -1 };
    const candidates = {
      ...common,
      rows: shortNames(names),
      mine: choice?.name ? names.indexOf(choice.name) : -1,
      row,
    };
    this.sections.residual.hidden = data.layers.length === 0;
    if (data.layers.length > 0) this.residual.show({ ...candidates, columns: residual, values: data.layers });
    this.sections.attention.hidden = data.heads.length === 0;
    if (data.heads.length > 0)
      this.attention.show({ ...candidates, columns: attention, values: data.attention });
    const own = shown === null ? null : data.headsOf(shown);
    this.sections.heads.hidden = own === null;
    if (!own) return;
    this.headWords.textContent = `total variation of every head \u00b7 ${shown}`;
    this.headMap.show({
      ...common,
      rows: Array.from({ length: heads }, (_, i) => `H${i}`),
      columns: attention,
      values: own,
      mine: -1,
      row: state.selected_head ?? -1,
    });
    const can = this.live && data.facts.live && data.row(shown)?.kind !== "kv";
    setProps(this.compare, {
      disabled: !can || this.comparing,
      title: can ? null : this.live && data.facts.live ? "it has the base\u2019s own file" : "needs a kernel",
    });
  }

  private renderTable(choice: Choice | null, narrow: boolean): void {
    const focused = document.activeElement;
    const held = this.table.contains(focused) ? focused!.getAttribute("data-name") : null;
    const own = makeTable(this.data, choice, this.state.selected_candidate, this.theme, narrow, (n) =>
      this.choose(n),
    );
    this.table.replaceChildren(...[own, makeTexts(this.data)].filter((e) => e !== null));
    if (held !== null)
      [...this.table.querySelectorAll<HTMLElement>(".lt-qr-pick")]
        .find((e) => e.dataset.name === held)
        ?.focus();
  }

  private makeFooter(): HTMLElement {
    for (const kind of FILES) {
      const b = h("button", { type: "button", class: "lt-action" }, kind);
      this.cleanup.on(b, "click", () => this.save(kind, b));
      this.files.set(kind, b);
    }
    return h(
      "footer",
      { class: "lt-footer" },
      this.notes,
      h("span", { class: "lt-actions" }, ...this.files.values()),
    );
  }

  private renderFooter(): void {
    const notes = [...new Set(this.data.facts.rows.map((r) => r.speed_note).filter(Boolean))];
    this.notes.textContent = notes.length > 0 ? `Speed: ${notes.join("; ")}.` : "";
    const can = this.live && this.data.facts.live;
    for (const [kind, b] of this.files)
      setProps(b, { disabled: !can, title: can ? `Save the report as ${kind}` : "needs a kernel" });
  }

  private save(kind: FileKind, button: HTMLButtonElement): void {
    setProps(button, { disabled: true });
    this.source
      .file(kind)
      .then(
        ({ name, data }) => {
          download(name, new Blob([data as DataView<ArrayBuffer>]));
          this.announcer.say(`${kind} saved`);
        },
        (e: unknown) => {
          if (e instanceof Unavailable && e.why === "no-kernel") this.live = false;
          this.notes.textContent = `${kind} was not saved: ${reason(e)}`;
        },
      )
      .then(() => setProps(button, { disabled: false }));
  }

  // --------------------------------------------------------------------------- keyboard

  private key(event: KeyboardEvent): void {
    const path = event.composedPath();
    if (!path.includes(this.root) || path.includes(this.comparison) || event.isComposing) return;
    const target = path[0] as HTMLElement;
    const plain = !event.altKey && !event.ctrlKey && !event.metaKey;
    const parts = [this.plot, this.residual, this.attention, this.headMap, this.tokens];
    const used =
      event.key === "Escape" ? this.free() : plain && parts.some((part) => part.key(event, target));
    const native = target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ");
    if (used) event.preventDefault();
    if (used || native || target instanceof HTMLSelectElement || target instanceof HTMLInputElement)
      event.stopPropagation();
    if (!used && target.getAttribute("role") === "radio") stepRadio(target, event);
  }
}

function heading(name: string, words: string): HTMLElement {
  return h("h3", {}, h("b", {}, name), words);
}
