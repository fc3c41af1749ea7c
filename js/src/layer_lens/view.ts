// LayerLens's view: the table of layers and tokens, the cell that is read, the strips over one axis of layers.
// In: LensData, a state, a source of windows and pushes. Out: DOM in `root`, and changes of the state. Knows no Jupyter.
import { Segmented } from "../attention_grid/controls";
import { compose, toPng, toSvg } from "../attention_grid/picture";
import base from "../attention_grid/style.css";
import { css } from "../shared/colour";
import { Announcer, Cleanup, copyText, download, Frame, h, Timer } from "../shared/dom";
import { bound, count, plural } from "../shared/format";
import { Unavailable } from "../shared/kernel";
import { applyTheme, sameTheme, type Theme, type ThemeChoice, watchTheme } from "../shared/theme";
import { stepRadio } from "./choice";
import type { LensData, Measure } from "./data";
import { stepOf } from "./layout";
import { klShare, READABLE, shade } from "./paint_table";
import { Panel } from "./panel";
import { PushBar } from "./push_bar";
import { StripsView } from "./strips";
import style from "./style.css";
import { TableView } from "./table";
import { mixers, subtitle, sumWords } from "./words";

/** The shared state: the public traits. */
export interface State {
  readonly layer: number | null;
  readonly head: number | null;
  readonly token: number | null;
  readonly embedding: boolean;
  readonly word: number | null;
  readonly against: number | null;
  readonly measure: Measure;
  readonly every: 1 | 2 | 4 | null;
  readonly theme: ThemeChoice;
}

/** Where cells and pushes come from, and who hears what the user does. What does not come rejects. */
export interface Source {
  /** Puts the cells of some tokens into the data. */
  window(first: number, stop: number, heard: (share: number) => void): Promise<void>;
  /** Puts the push on a word after a token into the data. */
  push(position: number, word: number | null, against: number | null): Promise<void>;
  /** Ends what is being read. */
  stop(): void;
  change(patch: Partial<State>): void;
}

type Every = "1" | "2" | "4";

const NARROW = 600;
const WIDE = 900;
const PANEL = 300;
const BETWEEN = 24;
/** Tokens that are read beside those that are seen. */
const AHEAD = 4;
let views = 0;

export class LayerLensView {
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
  private readonly measure: Segmented<Measure>;
  private readonly every: Segmented<Every>;
  private readonly controls: HTMLElement;
  private readonly table: TableView;
  private readonly status = h("div", { class: "lt-ll-status", role: "status" });
  private readonly legend = h("div", { class: "lt-legend" });
  private readonly panel = new Panel();
  private readonly pushBar: PushBar;
  private readonly strips: StripsView;
  private readonly sum = h("p", { class: "lt-ll-sum" });
  private readonly notes = h("span", {});
  private readonly left = h("div", { class: "lt-ll-left" });
  private readonly body: HTMLElement;
  private readonly frame: Frame;
  private readonly slow: Timer;
  private theme: Theme;
  private width = 0;
  private live = true;
  private reading: readonly [number, number] | null = null;
  /** How much of it is done. */
  private share = 0;
  private readonly readingText = h("span", {});
  private readonly stopButton = h("button", { type: "button", class: "lt-button" }, "Stop");
  private problem = "";
  private pushAsked = "";
  private pushProblem = "";

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private data: LensData,
    private state: State,
  ) {
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-ll");
    this.measure = new Segmented<Measure>(
      "Cell colour",
      [
        ["probability", "Probability", "Probability of the token that the cell shows"],
        ["rank", "Rank of answer", "Rank of the model\u2019s final answer among all tokens; log scale"],
        ["entropy", "Entropy", "How undecided the layer is: 0 = sure, 1 = all tokens alike"],
        [
          "kl",
          "KL",
          "How far the layer\u2019s distribution is from the one that the model ends with, in nats",
        ],
      ],
      cleanup,
      (measure) => this.source.change({ measure }),
    );
    this.every = new Segmented<Every>(
      "Rows",
      [
        ["1", "Every layer", "A row for every layer"],
        ["2", "Every 2nd", "A row for every second layer, the output always"],
        ["4", "Every 4th", "A row for every fourth layer, the output always"],
      ],
      cleanup,
      (every) => this.source.change({ every: Number(every) as 1 | 2 | 4 }),
    );
    const own = `ll-${++views}`;
    this.table = new TableView(
      {
        lock: (row, token) => this.lock(row, token),
        scrolled: () => this.need(),
      },
      own,
      cleanup,
    );
    this.strips = new StripsView(
      {
        layer: (layer, head) => this.choose({ layer, embedding: false, ...(head === null ? {} : { head }) }),
      },
      own,
      cleanup,
    );
    this.pushBar = new PushBar(cleanup, (patch) => this.choose(patch));
    this.controls = h(
      "div",
      { class: "lt-controls" },
      h("span", { class: "lt-quiet lt-ll-label" }, "Cell colour"),
      this.measure.element,
      this.every.element,
      h(
        "span",
        { class: "lt-quiet lt-ll-outlined" },
        "outlined = already the model\u2019s final answer for that token",
      ),
    );
    this.slow = new Timer(cleanup);
    cleanup.on(this.stopButton, "click", () => this.source.stop());
    this.left.append(
      h("h3", {}, h("b", {}, "Logit lens"), "most likely next token if the model stopped here"),
      this.table.element,
      this.status,
      this.legend,
    );
    this.body = h(
      "div",
      {},
      h("div", { class: "lt-ll-main" }, this.left, this.panel.element),
      h(
        "div",
        { class: "lt-ll-under" },
        h(
          "div",
          { class: "lt-ll-bar" },
          h("h3", {}, h("b", {}, "Through the layers"), "click one: it is selected in every linked widget"),
          this.pushBar.element,
        ),
        this.strips.element,
        this.sum,
      ),
      this.makeFooter(),
    );
    root.append(
      h("style", {}, base),
      h("style", {}, style),
      h("header", { class: "lt-header" }, this.title, this.provenance),
      this.message,
      this.controls,
      this.body,
      this.announcer.element,
    );
    cleanup.on(this.provenance, "click", () => this.copyDetails());
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

  /** Cells, a push, or another telling of the same trace have come. */
  setData(data: LensData): void {
    this.data = data;
    this.frame.ask();
  }

  /** The shared state changed, here or elsewhere. */
  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    if (state.token !== before.token && this.token !== null) this.table.reveal(this.token);
    this.frame.ask();
  }

  /** Whether a kernel answers. A saved picture says that it is one. */
  setLive(live: boolean): void {
    if (live === this.live) return;
    this.live = live;
    this.frame.ask();
  }

  destroy(): void {
    this.hideTips();
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.classList.remove("lt-root", "lt-ll", "lt-dark", "lt-wide", "lt-middle", "lt-narrow");
    this.root.removeAttribute("style");
  }

  // ------------------------------------------------------------------- what is chosen

  /** The chosen token, where the prompt has it. */
  private get token(): number | null {
    const { token } = this.state;
    return token !== null && token < this.data.tokens ? token : null;
  }

  /** The token that is read: the chosen one, else the last. */
  private get position(): number {
    return this.token ?? Math.max(0, this.data.tokens - 1);
  }

  /** The locked row; null = none. */
  private get row(): number | null {
    if (this.state.embedding) return -1;
    return this.state.layer;
  }

  /** After which token the push is asked for: others than the last need the logits of all. */
  private get pushPosition(): number {
    return this.data.facts.every_logit ? this.position : Math.max(0, this.data.tokens - 1);
  }

  private choose(patch: Partial<State>): void {
    const changed = Object.entries(patch).some(([key, value]) => this.state[key as keyof State] !== value);
    if (!changed) return;
    this.source.change(patch);
    this.cleanup.later(60, () => this.announcer.say(this.panel.words));
  }

  private lock(row: number, token: number): void {
    this.choose({ embedding: row < 0, layer: row < 0 ? null : row, token });
  }

  /** Frees the innermost thing; true when there was one. */
  private free(): boolean {
    if (this.hideTips()) return true;
    const { head, layer, token, embedding, word, against } = this.state;
    if (head !== null) this.choose({ head: null });
    else if (layer !== null || embedding) this.choose({ layer: null, embedding: false, token: null });
    else if (token !== null) this.choose({ token: null });
    else if (word !== null || against !== null) this.choose({ word: null, against: null });
    else return false;
    this.announcer.say("Freed");
    return true;
  }

  private hideTips(): boolean {
    const shown = [this.table.hideTip(), this.strips.hideTip()];
    return shown.includes(true);
  }

  // ------------------------------------------------------------------- what must be here

  /** Asks for cells that are seen and not here, one question at a time; then for the push. */
  private need(): void {
    const { data } = this;
    if (data.facts.message !== "" || this.width === 0 || this.reading || !this.live || this.problem) return;
    const [from, to] = this.table.seen();
    const wanted = [this.position];
    for (let p = from; p < to; p++) wanted.push(p);
    const missing = wanted.filter((p) => !data.has(p));
    if (missing.length === 0) {
      this.needPush();
      return;
    }
    // The read token first: far from what is seen it is a question of its own.
    const near = missing.filter((p) => Math.abs(p - missing[0]!) <= to - from + AHEAD);
    const first = Math.max(0, Math.min(...near) - (near.length > 1 ? AHEAD : 0));
    const stop = Math.min(data.tokens, Math.max(...near) + 1 + (near.length > 1 ? AHEAD : 0));
    this.reading = [first, stop];
    this.share = 0;
    this.slow.start(200, () => this.showStatus());
    const heard = (share: number) => {
      this.share = share;
      this.showStatus();
    };
    const settle = (problem: string) => {
      this.reading = null;
      this.problem = problem;
      this.slow.stop();
      this.frame.ask();
    };
    this.source.window(first, stop, heard).then(
      () => settle(""),
      (e: unknown) => {
        const gone = e instanceof Unavailable && e.why === "no-kernel";
        if (gone) this.live = false;
        settle(gone ? "" : words(e));
      },
    );
  }

  private needPush(): void {
    const { data, state, pushPosition: position } = this;
    const own = data.push;
    const word = state.word ?? data.answer(position);
    const here = own?.position === position && own.word === word && own.against === state.against;
    if (here) {
      this.pushProblem = "";
      return;
    }
    const asked = JSON.stringify([position, state.word, state.against]);
    if (asked === this.pushAsked) return;
    this.pushAsked = asked;
    this.pushProblem = "";
    const settle = (problem: string) => {
      if (this.pushAsked !== asked) return;
      this.pushProblem = problem;
      this.frame.ask();
    };
    this.source.push(position, state.word, state.against).then(
      () => settle(""),
      (e: unknown) => settle(words(e)),
    );
  }

  private retry(): void {
    this.problem = "";
    this.pushAsked = "";
    this.frame.ask();
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

  private get ratio(): number {
    return Math.max(1, Math.min(4, window.devicePixelRatio || 1));
  }

  private render(): void {
    if (this.width === 0) return;
    const { data, width, state, theme, ratio } = this;
    const mode = width >= WIDE ? "wide" : width >= NARROW ? "middle" : "narrow";
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === mode);
    this.renderHeader();
    const nothing = data.facts.message !== "";
    this.message.hidden = !nothing;
    this.message.textContent = data.facts.message;
    this.controls.hidden = nothing;
    this.body.hidden = nothing;
    if (nothing) return;
    this.measure.show(state.measure);
    this.every.show(String(stepOf(data, state.every)) as Every);
    const beside = mode === "wide";
    this.table.show(data, {
      theme,
      ratio,
      width: beside ? width - PANEL - BETWEEN : width,
      measure: state.measure,
      every: state.every,
      row: this.row,
      position: this.position,
      chosen: this.token !== null,
    });
    this.left.style.width = beside ? `${this.table.width}px` : "";
    const room = beside ? width - this.table.width - BETWEEN : width;
    this.panel.show(data, this.row ?? data.output, this.position, this.token !== null, room);
    const tone = (name: string) => getComputedStyle(this.root).getPropertyValue(name).trim();
    this.strips.show(data, {
      theme,
      ratio,
      width,
      attention: tone("--lt-attn"),
      mlp: tone("--lt-mlp"),
      layer: state.layer,
      head: state.head,
      narrow: mode !== "wide",
      pushProblem: this.pushProblem || (this.live ? "" : "not saved: it needs a kernel"),
    });
    this.pushBar.show(data, this.pushPosition, this.row ?? data.output, state.word, state.against);
    this.renderSum();
    this.notes.textContent = footWords(data);
    this.renderLegend();
    this.showStatus();
    this.need();
  }

  private renderHeader(): void {
    this.title.replaceChildren(h("b", {}, this.data.facts.title), h("span", {}, subtitle(this.data)));
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

  private showStatus(): void {
    const { data } = this;
    const reads = this.reading && !this.slow.running && !this.problem;
    const told = reads && this.stopButton.parentNode === this.status; // a button that is being pressed stays
    if (!told) this.status.replaceChildren();
    if (this.problem) {
      const again = h("button", { type: "button", class: "lt-button" }, "Try again");
      again.addEventListener("click", () => this.retry());
      this.status.append(
        h(
          "div",
          { class: "lt-error" },
          h("b", {}, "The lens was not read."),
          h("p", {}, this.problem),
          again,
        ),
      );
    } else if (this.reading && reads) {
      const [a, b] = this.reading;
      const share = this.share > 0 ? ` ${Math.round(100 * this.share)}\u202f%` : "";
      this.readingText.textContent = `Reading ${plural(b - a, "token")} in every layer \u2026${share} `;
      if (!told) this.status.append(this.readingText, this.stopButton);
    } else if (!this.live && !this.everySeen()) {
      this.status.append("Plain columns were not read when this was saved: they need a kernel.");
    }
    this.status.hidden = this.status.childNodes.length === 0 || data.facts.message !== "";
  }

  private everySeen(): boolean {
    const [from, to] = this.table.seen();
    for (let p = from; p < to; p++) if (!this.data.has(p)) return false;
    return true;
  }

  /** Ends of the scale, and what its colour means. */
  private get scale(): { ticks: [number, string][]; words: string } {
    const { measure } = this.state;
    const words = this.data.facts.n_words;
    if (measure === "rank")
      return {
        ticks: [
          [0, count(words)],
          [0.5, count(Math.sqrt(words))],
          [1, "1"],
        ],
        words: "rank of the model\u2019s final answer at this layer; log scale",
      };
    if (measure === "kl")
      return {
        ticks: [0, 1, 10, 100].map((v): [number, string] => [klShare(v), v < 100 ? `${v}` : `\u2265${v}`]),
        words: "KL divergence D(final \u2016 layer) in nats; log scale, 0 = the same",
      };
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((v): [number, string] => [v, bound(v)]);
    const what =
      measure === "entropy"
        ? "entropy, as a share of that of all tokens alike: 0 = sure"
        : "probability of the shown token; the scale stops where text stays readable";
    return { ticks, words: what };
  }

  private renderLegend(): void {
    const stops = Array.from({ length: 9 }, (_, i) => css(shade(this.theme, i / 8)));
    const ramp = h("div", { class: "lt-ramp" });
    ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    const { ticks, words: what } = this.scale;
    const marks = ticks.map(([at, label]) => {
      const mark = h("span", { class: at === 1 ? "lt-end" : at === 0 ? "lt-begin" : "" }, label);
      mark.style.left = `${at * 100}%`;
      return mark;
    });
    this.legend.replaceChildren(
      h("div", { class: "lt-scale" }, ramp, h("div", { class: "lt-ticks" }, ...marks)),
      h("div", { class: "lt-quiet" }, what),
    );
  }

  /** The parts, what they add up to, and what is left over. */
  private renderSum(): void {
    const { push } = this.data;
    this.sum.hidden = push === null && this.pushProblem === "";
    if (this.pushProblem) {
      this.sum.replaceChildren(h("b", {}, "No push on this choice: "), this.pushProblem);
      return;
    }
    if (!push) return;
    const last = !this.data.facts.every_logit && this.position !== push.position;
    const note = last ? "after the last token; others need a trace with logits=\u2019all\u2019." : "";
    this.sum.replaceChildren(
      h("b", {}, "Adds up: "),
      `${sumWords(push, mixers(this.data.facts.layers))}. `,
      h("span", { class: "lt-quiet" }, [push.note, note].filter(Boolean).map(sentence).join(" ")),
    );
  }

  // --------------------------------------------------------------------------- keyboard

  private key(event: KeyboardEvent): void {
    const path = event.composedPath();
    if (!path.includes(this.root) || event.isComposing || this.data.facts.message !== "") return;
    const target = path[0] as HTMLElement;
    const plain = !event.altKey && !event.ctrlKey && !event.metaKey;
    const stepped = plain && (this.table.key(event, target) || this.strips.key(event, target));
    const used = event.key === "Escape" ? this.free() : stepped;
    const native = target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ");
    if (used) event.preventDefault();
    if (used || native || target instanceof HTMLSelectElement) event.stopPropagation();
    if (!used && target.getAttribute("role") === "radio") stepRadio(target, event);
  }

  // ---------------------------------------------------------------------------- pictures

  private makeFooter(): HTMLElement {
    const save = (kind: "PNG" | "SVG") => {
      const title = `Download this view as ${kind}`;
      const b = h("button", { type: "button", class: "lt-action", title }, kind);
      this.cleanup.on(b, "click", () => this.save(kind));
      return b;
    };
    return h(
      "footer",
      { class: "lt-footer" },
      h(
        "span",
        { class: "lt-ll-key lt-quiet" },
        h("i", { class: "lt-ll-attention" }),
        mixers(this.data.facts.layers) || "attention",
        h("i", { class: "lt-ll-mlp" }),
        "MLP",
        this.notes,
      ),
      h("span", { class: "lt-actions" }, save("PNG"), save("SVG")),
    );
  }

  private async save(kind: "PNG" | "SVG"): Promise<void> {
    const { facts } = this.data;
    const readable = this.theme.sequential.map((_, i) => this.theme.sequential[Math.round(i * READABLE)]!);
    const picture = compose(
      facts.title,
      subtitle(this.data),
      this.provenanceLine(),
      [
        {
          heading: ["Logit lens", "most likely next token if the model stopped here"],
          canvas: this.table.canvas,
          boxes: this.table.lockedBox(),
          under: this.panel.heading,
          notes: this.panel.notes,
          ramp: this.scale.ticks,
        },
        {
          heading: ["Through the layers", `blue = ${mixers(facts.layers)}, purple = MLP`],
          canvas: this.strips.canvas,
          boxes: [],
          under: this.data.push ? sumWords(this.data.push, mixers(facts.layers)) : "",
          notes: [],
          ramp: null,
        },
      ],
      { ...this.theme, sequential: readable },
    );
    const blob = kind === "PNG" ? await toPng(picture, Math.max(2, this.ratio)) : toSvg(picture);
    const model = (facts.model || "model").replace(/[^\w.-]+/g, "_");
    download(`lens-${model}.${kind.toLowerCase()}`, blob);
    this.announcer.say(`${kind} saved`);
  }
}

/** What the strips leave out, and how their colours and times are meant. */
function footWords(data: LensData): string {
  const { times } = data.facts;
  const words = ["first token left out of medians (it is the sink)"];
  if ((data.push?.heads ?? 0) > 0) words.push("heads: red pushes towards, blue away");
  if (times) words.push(`times: operations one by one, median of ${times.repeats}`);
  return words.join(" \u00b7 ");
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
}

function words(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}
