// TokenExplorer's view: the next token before and after llama.cpp's chain, its sliders, and what was written.
// In: ExplorerData, a state, a source of steps. Out: DOM in `root`, and changes of the state. Knows no Jupyter.
import { compose, type Part, toPng, toSvg } from "../attention_grid/picture";
import base from "../attention_grid/style.css";
import { Announcer, Cleanup, copyText, download, Frame, h, Timer } from "../shared/dom";
import { count, probability, running } from "../shared/format";
import { applyTheme, sameTheme, type Theme, watchTheme } from "../shared/theme";
import { Bars } from "./bars";
import { FILTERS, type Filter } from "./chain";
import type { ExplorerData, State } from "./data";
import { paintBars, paintWritten } from "./paint";
import { Sliders } from "./sliders";
import style from "./style.css";
import { footWords, kindWords } from "./words";
import { Written } from "./written";

/** Who computes, and who hears what the user does. What cannot be done rejects. */
export interface Source {
  /** Puts the distribution after a node into the data. */
  show(node: number): Promise<void>;
  /** Puts a token after a node and goes there. */
  step(node: number, token: number | null): Promise<void>;
  /** Lets the chain write tokens after a node and goes there. */
  sample(node: number, tokens: number): Promise<void>;
  stop(): void;
  change(patch: Partial<State>): void;
}

const NARROW = 600;
const WIDE = 900;
/** Below it the axis has two ticks. */
const FEW = 420;
const MANY = 40;
const ROWS = { wide: 16, narrow: 14 };
/** Characters of the text before the shown place. */
const TEXT = 400;

export class TokenExplorerView {
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
  private readonly prompt = h("p", { class: "lt-te-prompt lt-mono" });
  private readonly added = h("p", { class: "lt-te-added lt-quiet" });
  private readonly bars: Bars;
  private readonly sliders: Sliders;
  private readonly written: Written;
  private readonly main: HTMLElement;
  private readonly missing = h("div", { class: "lt-empty", hidden: true });
  private readonly status = h("div", { class: "lt-te-status", role: "status" });
  private readonly notes = h("span", { class: "lt-quiet" });
  private readonly seed = h("input", {
    type: "number",
    min: 0,
    step: 1,
    class: "lt-te-seed",
    "aria-label": "Seed",
  });
  private readonly buttons: HTMLButtonElement[];
  private readonly backButton: HTMLButtonElement;
  private readonly stopButton: HTMLButtonElement;
  private readonly frame: Frame;
  private readonly slow: Timer;
  private theme: Theme;
  private width = 0;
  private live = true;
  private working = "";
  private problem = "";
  private asked = -1;

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private readonly data: ExplorerData,
    private state: State,
  ) {
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-te");
    const button = (label: string, title: string, run: () => void, more = "") => {
      const b = h("button", { type: "button", class: `lt-button ${more}`, title }, label);
      cleanup.on(b, "click", run);
      return b;
    };
    this.bars = new Bars(cleanup, (id) => this.take(this.state.node, id));
    this.sliders = new Sliders(cleanup, (patch) => this.move(patch));
    this.written = new Written(cleanup, {
      goBefore: (node) => this.go(this.data.nodes[node]?.parent ?? 0),
      goTo: (leaf) => this.change({ leaf, node: leaf }),
      take: (place, token) => this.take(place, token),
    });
    this.slow = new Timer(cleanup);
    const sample = button(
      "Sample",
      "llama.cpp\u2019s chain chooses one token (S)",
      () => this.sample(1),
      "lt-te-first",
    );
    sample.append(" ", h("kbd", {}, "S"));
    this.buttons = [
      sample,
      button(`Generate ${MANY}`, `llama.cpp\u2019s chain writes ${MANY} tokens`, () => this.sample(MANY)),
      button("Greedy", "Takes the likeliest token (G)", () =>
        this.act("a token", () => this.source.step(this.state.node, null)),
      ),
    ];
    this.backButton = button("Back", "To the token before; what was written stays (Backspace)", () =>
      this.back(),
    );
    this.stopButton = button("Stop", "Stops writing (Esc)", () => this.source.stop());
    cleanup.on(this.seed, "change", () => {
      const seed = Math.max(0, Math.floor(Number(this.seed.value) || 0));
      this.change({ seed });
    });
    const answer = h(
      "div",
      { class: "lt-te-answer" },
      h(
        "h3",
        {},
        h("b", {}, "What is left"),
        "thin = model, solid = after the chain \u00b7 struck: cut, and by which filter",
      ),
      this.missing,
      this.bars.element,
    );
    const controls = h(
      "div",
      { class: "lt-te-controls" },
      h("h3", {}, h("b", {}, "Sampler chain"), "in llama.cpp\u2019s order"),
      this.sliders.element,
      h(
        "div",
        { class: "lt-te-buttons" },
        ...this.buttons,
        this.backButton,
        h("label", { class: "lt-quiet" }, "seed ", this.seed),
      ),
      h("div", { class: "lt-te-working" }, this.status, this.stopButton),
    );
    this.main = h("div", { class: "lt-te-main" }, answer, controls);
    root.append(
      h("style", {}, base),
      h("style", {}, style),
      h("header", { class: "lt-header" }, this.title, this.provenance),
      this.prompt,
      this.added,
      this.main,
      this.written.element,
      this.makeFooter(),
      this.announcer.element,
    );
    cleanup.on(this.provenance, "click", () => this.copyDetails());
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

  /** Tokens or a distribution have come. */
  setData(): void {
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

  destroy(): void {
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.classList.remove("lt-root", "lt-te", "lt-dark", "lt-wide", "lt-middle", "lt-narrow");
    this.root.removeAttribute("style");
  }

  // -------------------------------------------------------------------------- doing

  /** A slider: drawn in the next frame, told to the kernel like any state. */
  private move(patch: Partial<State>): void {
    this.state = { ...this.state, ...patch };
    this.frame.ask();
    this.source.change(patch);
  }

  private change(patch: Partial<State>): void {
    this.problem = "";
    this.source.change(patch);
  }

  private go(node: number): void {
    this.change({ node });
    this.cleanup.later(60, () => this.announcer.say(this.finding()));
  }

  private back(): void {
    const { node } = this.state;
    if (node > 0) this.go(this.data.nodes[node]?.parent ?? 0);
  }

  /** Puts a token there: another branch, or one that is kept already. */
  private take(place: number, token: number): void {
    const there = this.data.child(place, token);
    if (there !== null) {
      const own = this.data.path(this.state.leaf).includes(there);
      this.change(own ? { node: there } : { leaf: there, node: there });
    } else this.act(`${this.data.word(token)}`, () => this.source.step(place, token));
  }

  private sample(tokens: number): void {
    const what = tokens > 1 ? `${tokens} tokens` : "a token";
    this.act(what, () => this.source.sample(this.state.node, tokens));
  }

  private act(what: string, run: () => Promise<void>): void {
    if (this.working || !this.live) return;
    this.problem = "";
    this.working = what;
    this.slow.start(200, () => this.frame.ask());
    const settle = (problem: string) => {
      this.working = "";
      this.slow.stop();
      this.problem = problem;
      this.frame.ask();
      if (!problem) this.cleanup.later(60, () => this.announcer.say(this.finding()));
    };
    run().then(
      () => settle(""),
      (e: unknown) => settle(e instanceof Error ? e.message : String(e)),
    );
  }

  /** The distribution of the shown node, where it is not here. */
  private need(): void {
    const { node } = this.state;
    if (this.data.has(node) || this.asked === node || !this.live || this.working) return;
    this.asked = node;
    const settle = (problem: string) => {
      this.asked = -1;
      this.problem = problem;
      this.frame.ask();
    };
    this.source.show(node).then(
      () => settle(""),
      (e: unknown) => settle(e instanceof Error ? e.message : String(e)),
    );
  }

  private finding(): string {
    const chain = this.data.chain(this.state.node);
    if (!chain) return "";
    const d = chain.distribution;
    const id = d.order[0]!;
    const kept = chain.run(this.state).kept;
    return `Next token: ${this.data.word(id)} ${probability(d.probabilities[id]!)}, ${count(kept)} left after the chain`;
  }

  // ------------------------------------------------------------------------ drawing

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

  private get rows(): number {
    return this.width >= WIDE ? ROWS.wide : ROWS.narrow;
  }

  private render(): void {
    if (this.width === 0) return;
    const { data, state, width } = this;
    const mode = width >= WIDE ? "wide" : width >= NARROW ? "middle" : "narrow";
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === mode);
    this.renderHeader();
    this.renderPrompt();
    const chain = data.chain(state.node);
    this.bars.element.hidden = !chain;
    this.sliders.element.classList.toggle("lt-te-waiting", !chain);
    this.missing.hidden = chain !== null;
    if (chain) {
      const result = chain.run(state);
      const path = data.path(state.leaf);
      const at = state.node === 0 ? 0 : path.indexOf(state.node) + 1;
      const next = data.nodes[path[at] ?? 0]?.token ?? null;
      this.bars.show(data, state.node, result, this.rows, next, this.live, width < FEW);
      this.sliders.show(data, state, result, state.node);
    } else {
      this.missing.textContent = this.live
        ? "Running the model for this place \u2026"
        : "This distribution was not saved: it needs a kernel.";
      this.need();
    }
    this.written.show(data, state.node, state.leaf, this.theme, this.live);
    this.renderButtons();
    this.notes.textContent = footWords(data, state);
  }

  private renderButtons(): void {
    const why = this.live ? null : "It needs a kernel";
    for (const b of this.buttons) {
      b.disabled = !this.live || this.working !== "";
      if (why) b.title = why;
    }
    this.backButton.disabled = this.state.node === 0;
    if (document.activeElement !== this.seed) this.seed.value = String(this.state.seed);
    const waiting = this.working !== "" && !this.slow.running;
    this.stopButton.hidden = !waiting;
    this.status.classList.toggle("lt-te-bad", this.problem !== "");
    const ended =
      this.data.facts.speed.ended === 1 && this.state.node === this.state.leaf && this.state.node > 0;
    this.status.textContent =
      this.problem ||
      (waiting
        ? `Writing ${this.working} \u2026`
        : ended
          ? "The chain chose an end-of-text token here."
          : "");
  }

  private renderPrompt(): void {
    const { data, state } = this;
    const words: [string, string][] = data.facts.tokens.map((t, i) => [t, data.facts.kinds[i] ?? "normal"]);
    for (const at of data.path(state.node)) words.push([data.nodes[at]!.text, data.nodes[at]!.kind]);
    let from = words.length;
    for (let room = TEXT; from > 0 && room > 0; from--) room -= words[from - 1]![0].length;
    const parts = words.slice(from).map(([text, kind], i) => {
      const own = kindWords(kind, text);
      const marked = i + from < data.facts.tokens.length && state.selected_tokens.includes(i + from);
      const shown = own ? text : i + from === 0 ? text.replace(/^\u00b7/, " ") : running(text);
      if (!own && !marked) return shown;
      const kinds = `${own ? "lt-te-special" : ""}${marked ? " lt-te-marked" : ""}`.trim();
      return h(own ? "bdi" : "mark", { class: kinds, title: own || "Chosen in a linked widget" }, shown);
    });
    this.prompt.replaceChildren(
      ...(from > 0 ? ["\u2026 "] : []),
      ...parts,
      h("span", { class: "lt-te-blank" }, "?"),
    );
    this.added.textContent = data.facts.added;
    this.added.hidden = data.facts.added === "";
  }

  private renderHeader(): void {
    const { facts } = this.data;
    this.title.replaceChildren(
      h("b", {}, facts.title),
      h("span", {}, `exact over all ${count(facts.n_words)} tokens`),
    );
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
    const { temperature, top_k, typical_p, top_p, min_p, repeat_penalty, seed } = this.state;
    const settings = { repeat_penalty, top_k, typical_p, top_p, min_p, temperature, seed };
    const own = Object.entries(settings).map(([k, v]) => `${k}: ${v}`);
    return [this.provenanceLine(), ...lines, ...own].join("\n");
  }

  private async copyDetails(): Promise<void> {
    const done = await copyText(this.detailsText());
    this.provenanceText.textContent = done ? "Copied" : "Copying is not allowed here";
    this.announcer.say(this.provenanceText.textContent);
    this.cleanup.later(1200, () => this.renderHeader());
  }

  // ----------------------------------------------------------------------- keyboard

  private key(event: KeyboardEvent): void {
    const path = event.composedPath();
    if (!path.includes(this.root) || event.isComposing) return;
    const target = path[0] as HTMLElement;
    const typing = target instanceof HTMLInputElement && target.type === "number";
    const plain = !event.altKey && !event.ctrlKey && !event.metaKey;
    const used = plain && !typing && this.acts(event.key);
    if (used) event.preventDefault();
    const arrows = event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End";
    const press = event.key === "Enter" || event.key === " ";
    const slider = target instanceof HTMLInputElement;
    if (used || slider || (target instanceof HTMLButtonElement && (press || arrows))) {
      // The strip's own handler still has to hear its arrows.
      if (used || !arrows || slider) event.stopPropagation();
    }
  }

  private acts(key: string): boolean {
    if (key === "s" || key === "S") this.sample(1);
    else if (key === "g" || key === "G") this.act("a token", () => this.source.step(this.state.node, null));
    else if (key === "Backspace") this.back();
    else if (key === "Escape" && this.working) this.source.stop();
    else return false;
    return true;
  }

  // ----------------------------------------------------------------------- pictures

  private makeFooter(): HTMLElement {
    const save = (kind: "PNG" | "SVG") => {
      const title = `Download this view as ${kind}`;
      const b = h("button", { type: "button", class: "lt-action", title }, kind);
      this.cleanup.on(b, "click", () => void this.save(kind));
      return b;
    };
    return h(
      "footer",
      { class: "lt-footer" },
      this.notes,
      h("span", { class: "lt-actions" }, save("PNG"), save("SVG")),
    );
  }

  private async save(kind: "PNG" | "SVG"): Promise<void> {
    const { data, state, theme, rows } = this;
    const chain = data.chain(state.node);
    if (!chain) return;
    const style = getComputedStyle(this.root);
    const hue = (name: Filter) => style.getPropertyValue(`--lt-te-${name}`).trim() || "gray";
    const hues = Object.fromEntries(FILTERS.map((name) => [name, hue(name)])) as Record<Filter, string>;
    const shown = { data, node: state.node, leaf: state.leaf, result: chain.run(state), rows, theme, hues };
    const ratio = Math.max(2, Math.min(4, window.devicePixelRatio || 1));
    const part = (canvas: HTMLCanvasElement, heading: [string, string]): Part => ({
      heading,
      canvas,
      boxes: [],
      under: "",
      notes: [],
      ramp: null,
    });
    const parts = [
      part(paintBars(shown, 760, ratio), ["What is left", "thin = model, solid = after the chain"]),
    ];
    const text = paintWritten(shown, 760, ratio);
    if (text) parts.push(part(text, ["Generated", "stronger colour = less expected by the model"]));
    const subtitle = `exact over all ${count(data.facts.n_words)} tokens`;
    const picture = compose(
      data.facts.title,
      subtitle,
      `\u25cf ${this.provenanceLine()} \u00b7 ${this.notes.textContent}`,
      parts,
      theme,
    );
    const blob = kind === "PNG" ? await toPng(picture, ratio) : toSvg(picture);
    const model = (data.facts.model || "model").replace(/[^\w.-]+/g, "_");
    download(`tokens-${model}.${kind.toLowerCase()}`, blob);
    this.announcer.say(`${kind} saved`);
  }
}
