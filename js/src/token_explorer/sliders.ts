// The chain's sliders in llama.cpp's order; each says what it does to this distribution.
// In: settings, a result. Out: DOM, and a new value while a slider is dragged.
import { type Cleanup, h, setProps } from "../shared/dom";
import type { Filter, Result, Settings } from "./chain";
import type { ExplorerData } from "./data";
import {
  cutWords,
  floorWords,
  NAMES,
  passage,
  penaltyWords,
  type Slider,
  temperatureWords,
  value,
} from "./words";

const ORDER: readonly Slider[] = ["repeat_penalty", "top_k", "typical_p", "top_p", "min_p", "temperature"];
const STEPS = 1000;

/** Where a value stands on its slider, 0 to 1. */
export function position(name: Slider, v: number, words: number): number {
  if (name === "top_k") return v <= 0 || v >= words ? 1 : Math.log(v) / Math.log(words);
  if (name === "min_p") return Math.sqrt(v);
  if (name === "temperature") return Math.min(v / 2, 1);
  return name === "repeat_penalty" ? Math.min(v - 1, 1) : v;
}

/** The value at a place of a slider. */
export function valueAt(name: Slider, at: number, words: number): number {
  if (name === "top_k") return at >= 1 ? 0 : Math.max(1, Math.round(words ** at));
  if (name === "min_p") return Number((at * at).toFixed(4));
  if (name === "temperature") return Number((2 * at).toFixed(2));
  return Number(((name === "repeat_penalty" ? 1 : 0) + at).toFixed(3));
}

interface Parts {
  readonly input: HTMLInputElement;
  readonly value: HTMLElement;
  readonly passage: HTMLElement;
  readonly words: HTMLElement;
}

export class Sliders {
  readonly element = h("div", { class: "lt-te-sliders" });
  private readonly parts = new Map<Slider, Parts>();
  private words = 2;

  constructor(cleanup: Cleanup, change: (patch: Partial<Settings>) => void) {
    for (const name of ORDER) {
      const input = h("input", { type: "range", min: 0, max: STEPS, step: 1, "aria-label": NAMES[name] });
      const own: Parts = {
        input,
        value: h("span", { class: "lt-mono" }),
        passage: h("span", { class: "lt-quiet lt-te-passage" }),
        words: h("div", { class: "lt-quiet lt-te-words" }),
      };
      this.parts.set(name, own);
      this.element.append(
        h(
          "div",
          { class: `lt-te-slider lt-te-${name}` },
          h(
            "div",
            { class: "lt-te-head" },
            h("i", { class: "lt-te-swatch", "aria-hidden": "true" }),
            h("b", {}, NAMES[name]),
            own.value,
            own.passage,
          ),
          input,
          own.words,
        ),
      );
      cleanup.on(input, "input", () =>
        change({ [name]: valueAt(name, Number(input.value) / STEPS, this.words) }),
      );
    }
  }

  show(data: ExplorerData, s: Settings, result: Result, node: number): void {
    this.words = data.facts.n_words;
    for (const [name, own] of this.parts) {
      const [passed, words] = this.says(name, data, s, result, node);
      const at = Math.round(position(name, s[name], this.words) * STEPS);
      if (valueAt(name, Number(own.input.value) / STEPS, this.words) !== s[name])
        own.input.value = String(at);
      own.input.style.setProperty("--lt-te-at", `${Number(own.input.value) / (STEPS / 100)}%`);
      const shown = value(name, s[name]);
      setProps(own.input, { "aria-valuetext": [shown, passed, words].filter(Boolean).join(", ") });
      own.value.textContent = shown;
      own.passage.textContent = passed;
      own.words.textContent = words;
    }
  }

  private says(
    name: Slider,
    data: ExplorerData,
    s: Settings,
    result: Result,
    node: number,
  ): [string, string] {
    if (name === "repeat_penalty") return ["", penaltyWords(result)];
    if (name === "temperature") return [`${result.kept} kept`, temperatureWords(data, result, s, node)];
    if (s.temperature <= 0) return ["", "no effect at temperature 0"];
    const most = data.chain(node)?.distribution.probabilities[result.order[result.left[0]]!] ?? 0;
    const floor = name === "min_p" ? floorWords(most, s.min_p) : "";
    return [passage(result, name as Filter), floor + cutWords(result, name as Filter)];
  }
}
