// Back through a text that the model wrote: one step a token, with what the model thought of it.
// In: data with generated tokens. Out: the step (null = the newest token), by slider, buttons, and the keys , and .
import { type Cleanup, h } from "../shared/dom";
import { count, probability } from "../shared/format";
import type { GridData } from "./data";
import { tokenName } from "./names";

export class Stepper {
  readonly element: HTMLElement;
  private readonly back = h(
    "button",
    {
      type: "button",
      class: "lt-button",
      title: "One token back: ,",
      "aria-keyshortcuts": ",",
      tabindex: -1,
    },
    "\u2039 Back",
  );
  private readonly forth = h(
    "button",
    {
      type: "button",
      class: "lt-button",
      title: "One token forward: .",
      "aria-keyshortcuts": ".",
      tabindex: -1,
    },
    "Forward \u203a",
  );
  private readonly slider = h("input", {
    type: "range",
    class: "lt-step-slider",
    step: 1,
    "aria-label": "Token that the model wrote",
  });
  private readonly place = h("span", { class: "lt-step-place lt-quiet" });
  private readonly token = h("span", { class: "lt-step-token" });
  private readonly facts = h("span", { class: "lt-step-facts" });
  private readonly top = h("span", { class: "lt-step-top lt-quiet" });
  private data: GridData | null = null;
  /** The token that is looked at; null = always the newest. */
  private at: number | null = null;
  private shown: number | null = null;

  constructor(
    cleanup: Cleanup,
    private readonly moved: (step: number | null) => void,
  ) {
    this.element = h(
      "div",
      { class: "lt-stepper", role: "group", "aria-label": "Steps of the text", hidden: true },
      h(
        "div",
        { class: "lt-step-row", "data-region": "stepper" },
        this.back,
        this.forth,
        this.slider,
        this.place,
      ),
      h("div", { class: "lt-step-row lt-step-words" }, this.token, this.facts, this.top),
    );
    cleanup.on(this.back, "click", () => this.move(-1));
    cleanup.on(this.forth, "click", () => this.move(1));
    cleanup.on(this.slider, "input", () => this.go(Number(this.slider.value)));
  }

  /** The step in words. */
  get now(): string {
    return this.slider.getAttribute("aria-valuetext") ?? "";
  }

  /** Rows of tokens from here on are not shown; Infinity = all are. */
  get until(): number {
    return this.at === null ? Number.POSITIVE_INFINITY : this.at + 1;
  }

  show(data: GridData): void {
    if (data === this.data && this.at === this.shown) return;
    this.data = data;
    const { generated } = data.facts;
    this.element.hidden = generated === undefined;
    if (generated === undefined) {
      this.at = null;
      return;
    }
    const { first, last } = this;
    if (this.at !== null && this.at >= last) this.at = null;
    const none = last < first;
    const now = this.at ?? last;
    this.back.disabled = none || now <= first;
    this.forth.disabled = none || this.at === null;
    this.slider.disabled = none;
    this.slider.min = String(first);
    // While the text is written the slider is as long as the text may get, so that its knob moves, not its scale.
    this.slider.max = String(Math.max(first, data.facts.n_tokens - 1));
    this.slider.value = String(none ? first : now);
    this.words(none ? null : now);
    this.shown = this.at;
  }

  /** One token back or forward; true when there is a text to step through. */
  move(by: number): boolean {
    if (this.element.hidden || this.last < this.first) return false;
    this.go((this.at ?? this.last) + by);
    return true;
  }

  private get first(): number {
    return this.data?.facts.generated ?? 0;
  }

  /** The newest token that stands in the thumbnails. */
  private get last(): number {
    const { data } = this;
    if (!data) return -1;
    const written = this.first + (data.facts.generation?.length ?? 0);
    return Math.min(written, data.until, data.queries.length) - 1;
  }

  private go(to: number): void {
    const { first, last } = this;
    const at = Math.max(first, Math.min(last, to));
    this.at = at === last ? null : at;
    this.slider.value = String(at);
    this.moved(this.at);
  }

  private words(at: number | null): void {
    const { data } = this;
    if (!data) return;
    if (at === null) {
      this.place.textContent = "no token yet";
      for (const part of [this.token, this.facts, this.top]) part.replaceChildren();
      this.slider.setAttribute("aria-valuetext", "no token yet");
      return;
    }
    const [p, rank, ms, top] = data.facts.generation![at - this.first]!;
    const total =
      data.facts.phase === "generating" ? data.facts.n_tokens - this.first : this.last - this.first + 1;
    const place = `token ${count(at - this.first + 1)} of ${count(total)}`;
    const facts = `${probability(p)} \u00b7 rank ${count(rank)} \u00b7 ${ms.toFixed(1)} ms`;
    this.place.textContent = place;
    this.token.replaceChildren(tokenName(data, at));
    this.facts.textContent = facts;
    const likely = top.flatMap(([text, q], i) => [
      i > 0 ? ", " : "",
      h("bdi", { class: "lt-mono" }, text),
      ` ${probability(q)}`,
    ]);
    this.top.replaceChildren(...(likely.length > 0 ? ["likeliest: ", ...likely] : []));
    this.slider.setAttribute("aria-valuetext", `${place}: ${data.queries[at] ?? ""}, ${facts}`);
  }
}
