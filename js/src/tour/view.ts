// Tour's view: a map of the model, the step's words and drawings, a question, and its answer once it was predicted.
// In: Facts, a state. Out: DOM in `root`, and changes of the state. Knows no Jupyter, needs no kernel.
import base from "../attention_grid/style.css";
import { Announcer, Cleanup, copyText, Frame, h } from "../shared/dom";
import { applyTheme, sameTheme, type Theme, watchTheme } from "../shared/theme";
import { type Facts, looksAt, type Place, places, SHOWN, type State, type Step } from "./data";
import { draw } from "./figures";
import style from "./style.css";

const NARROW = 600;
const WIDE = 900;
/** Px of the column of words, and between the columns, where drawings stand beside it. */
const WORDS = 360;
const GAP = 32;

export class TourView {
  private readonly cleanup = new Cleanup();
  private readonly announcer = new Announcer(this.cleanup);
  private readonly heading = h("h2", {});
  private readonly provenanceText = h("span", {});
  private readonly provenance = h(
    "button",
    { type: "button", class: "lt-provenance" },
    h("span", { class: "lt-dot", "aria-hidden": "true" }),
    this.provenanceText,
  );
  private readonly map = h("nav", { class: "lt-to-map", "aria-label": "The way through the model" });
  private readonly title = h("h3", { class: "lt-to-title", tabindex: -1 });
  private readonly words = h("div", { class: "lt-to-words" });
  private readonly question = h("div", { class: "lt-to-question" });
  private readonly figures = h("div", { class: "lt-to-figures" });
  private readonly back: HTMLButtonElement;
  private readonly next: HTMLButtonElement;
  private readonly way: readonly Place[];
  private readonly frame: Frame;
  private theme: Theme;
  private width = 0;
  private live = true;

  constructor(
    private readonly root: HTMLElement,
    private readonly facts: Facts,
    private state: State,
    private readonly change: (patch: Partial<State>) => void,
  ) {
    const { cleanup } = this;
    this.way = places(facts.steps);
    root.classList.add("lt-root", "lt-to");
    const button = (label: string, title: string, by: number, more = "") => {
      const b = h("button", { type: "button", class: `lt-button ${more}`, title }, label);
      cleanup.on(b, "click", () => this.go(this.state.step + by));
      return b;
    };
    this.back = button("Back", "The step before (\u2190)", -1);
    this.next = button("Next", "The next step (\u2192)", 1, "lt-to-next");
    this.makeMap();
    root.append(
      h("style", {}, base),
      h("style", {}, style),
      h("header", { class: "lt-header" }, this.heading, this.provenance),
      this.map,
      h(
        "div",
        { class: "lt-to-bar-of-step" },
        this.title,
        h("span", { class: "lt-to-moves" }, this.back, this.next),
      ),
      h(
        "div",
        { class: "lt-to-body" },
        h("div", { class: "lt-to-left" }, this.words, this.question),
        this.figures,
      ),
      this.announcer.element,
    );
    cleanup.on(this.provenance, "click", () => void this.copyDetails());
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

  /** The shared state changed, here or elsewhere. */
  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    if (state.step !== before.step) this.announcer.say(this.where());
    this.frame.ask();
  }

  /** Whether a kernel answers. A saved tour says that it is one; all of it works without. */
  setLive(live: boolean): void {
    if (live === this.live) return;
    this.live = live;
    this.frame.ask();
  }

  destroy(): void {
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.classList.remove("lt-root", "lt-to", "lt-dark", "lt-wide", "lt-middle", "lt-narrow");
    this.root.removeAttribute("style");
  }

  // -------------------------------------------------------------------------- doing

  private get step(): Step {
    return this.facts.steps[this.state.step]!;
  }

  private get predicted(): number | undefined {
    return this.state.predictions[this.step.key];
  }

  private where(): string {
    return `Step ${this.state.step + 1} of ${this.facts.steps.length}: ${this.step.title}`;
  }

  private go(step: number): void {
    const last = this.facts.steps.length - 1;
    const to = Math.max(0, Math.min(last, step));
    if (to !== this.state.step) this.change({ step: to, ...looksAt(this.facts, to) });
  }

  private predict(option: number): void {
    if (this.predicted !== undefined) return;
    this.change({ predictions: { ...this.state.predictions, [this.step.key]: option } });
    this.cleanup.later(60, () => this.announcer.say(this.verdict()));
  }

  private verdict(): string {
    const { question } = this.step;
    const answer = question.options[question.answer]!;
    const said = this.predicted;
    const word = said === SHOWN ? "Answer" : said === question.answer ? "Right" : "Not so";
    return `${word}: ${answer}. ${question.because}`;
  }

  private async copyDetails(): Promise<void> {
    const done = await copyText(this.detailsText());
    this.provenanceText.textContent = done ? "Copied" : "Copying is not allowed here";
    this.announcer.say(this.provenanceText.textContent);
    this.cleanup.later(1200, () => this.frame.ask());
  }

  private detailsText(): string {
    return Object.entries(this.facts.details)
      .map(([key, value]) => `${key}: ${value}`)
      .join("\n");
  }

  private key(event: KeyboardEvent): void {
    if (!event.composedPath().includes(this.root) || event.isComposing) return;
    const target = event.composedPath()[0];
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const used = this.acts(event.key);
    if (used) event.preventDefault();
    const press = event.key === "Enter" || event.key === " ";
    if (used || (press && target instanceof HTMLButtonElement)) event.stopPropagation();
  }

  private acts(key: string): boolean {
    const option = Number(key) - 1;
    if (key === "ArrowRight") this.go(this.state.step + 1);
    else if (key === "ArrowLeft") this.go(this.state.step - 1);
    else if (key === "Home") this.go(0);
    else if (key === "End") this.go(this.facts.steps.length - 1);
    else if (key >= "1" && key <= "9" && option < this.step.question.options.length) this.predict(option);
    else return false;
    return true;
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

  /** Boxes in order; those of the layer that is looked at stand in a frame of their own. */
  private makeMap(): void {
    const box = (place: Place) => {
      const b = h("button", {
        type: "button",
        class: "lt-to-place",
        title: this.facts.steps[place.from]!.title,
      });
      b.append(place.name);
      this.cleanup.on(b, "click", () => this.go(place.from));
      return b;
    };
    const { layer, n_layers } = this.facts;
    const inside = h("span", { class: "lt-to-layer" });
    inside.append(h("span", { class: "lt-to-layer-name" }, `layer ${layer} of ${n_layers}`));
    for (const place of this.way) {
      if (place.inside && !inside.isConnected && inside.parentNode === null) this.map.append(inside);
      (place.inside ? inside : this.map).append(box(place));
    }
  }

  private render(): void {
    if (this.width === 0) return;
    const mode = this.width >= WIDE ? "wide" : this.width >= NARROW ? "middle" : "narrow";
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === mode);
    this.renderHeader();
    this.renderMap();
    const { step } = this;
    this.title.textContent = step.title;
    this.words.replaceChildren(...step.says.map((words) => h("p", {}, words)));
    this.renderQuestion();
    const room = mode === "wide" ? this.width - WORDS - GAP : this.width;
    const shown = this.predicted === undefined ? step.figures : [...step.figures, ...step.after];
    this.figures.replaceChildren(...shown.map((figure) => draw(figure, this.theme, room)));
    this.figures.hidden = shown.length === 0;
    // Not `disabled`: a button that has the focus would lose it, and with it the keys.
    this.back.setAttribute("aria-disabled", String(this.state.step === 0));
    this.next.setAttribute("aria-disabled", String(this.state.step === this.facts.steps.length - 1));
  }

  private renderHeader(): void {
    const { facts, state } = this;
    this.heading.replaceChildren(
      h("b", {}, facts.title),
      h("span", {}, `step ${state.step + 1} of ${facts.steps.length}`),
    );
    const saved = facts.saved ? `saved ${facts.saved}, ` : "";
    const line = this.live ? facts.provenance : `${facts.provenance} \u00b7 ${saved}not live`;
    this.provenance.classList.toggle("lt-stale", !this.live);
    this.provenanceText.textContent = line;
    this.provenance.title = `Click copies the details\n${this.detailsText()}`;
    this.provenance.setAttribute("aria-label", `${line}. Copy the details`);
  }

  private renderMap(): void {
    const boxes = this.map.querySelectorAll<HTMLButtonElement>(".lt-to-place");
    this.way.forEach((place, i) => {
      const here = this.state.step >= place.from && this.state.step < place.to;
      const own = this.facts.steps.slice(place.from, place.to);
      const done = own.every((step) => this.state.predictions[step.key] !== undefined);
      // One tab stop: the keys of the widget walk on from there.
      boxes[i]!.tabIndex = here ? 0 : -1;
      if (here && this.map.contains(document.activeElement)) boxes[i]!.focus();
      if (here) boxes[i]!.setAttribute("aria-current", "step");
      else boxes[i]!.removeAttribute("aria-current");
      boxes[i]!.classList.toggle("lt-to-done", done);
    });
  }

  /** The question's buttons stay the same elements, so that the focus is not lost by an answer. */
  private renderQuestion(): void {
    const { question, key, see } = this.step;
    if (this.question.dataset.key !== key) {
      const focused = this.question.contains(document.activeElement);
      this.question.dataset.key = key;
      const options = question.options.map((words, i) => {
        const b = h(
          "button",
          { type: "button", class: "lt-to-option" },
          h("kbd", {}, String(i + 1)),
          h("bdi", {}, words),
        );
        b.addEventListener("click", () => this.predict(i));
        return b;
      });
      const show = h("button", { type: "button", class: "lt-link lt-to-show" }, "Show the answer");
      show.addEventListener("click", () => {
        this.predict(SHOWN);
        this.next.focus();
      });
      this.question.replaceChildren(
        h("p", { class: "lt-to-ask" }, question.text),
        h("div", { class: "lt-to-options", role: "group", "aria-label": question.text }, ...options),
        show,
        h("p", { class: "lt-to-verdict" }),
        h("p", { class: "lt-quiet lt-to-see" }, see),
      );
      if (focused) this.title.focus();
    }
    const said = this.predicted;
    const open = said === undefined;
    this.question.querySelectorAll<HTMLElement>(".lt-to-option").forEach((b, i) => {
      b.setAttribute("aria-disabled", String(!open));
      b.setAttribute("aria-pressed", String(said === i));
      b.classList.toggle("lt-to-right", !open && i === question.answer);
    });
    this.question.querySelector<HTMLElement>(".lt-to-show")!.hidden = !open;
    const verdict = this.question.querySelector<HTMLElement>(".lt-to-verdict")!;
    verdict.hidden = open;
    verdict.textContent = open ? "" : this.verdict();
  }
}
