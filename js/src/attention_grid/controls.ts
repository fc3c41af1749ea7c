// The quiet row of controls: order, scale, sink, key hints.
// In: the state. Out: what the user chose. In narrow layouts a segmented control is a <select>.
import { type Cleanup, h, setProps } from "../shared/dom";

/** A choice among few: buttons side by side, or a select where there is no room. */
export class Segmented<T extends string> {
  readonly element: HTMLElement;
  private readonly buttons = new Map<T, HTMLButtonElement>();
  private readonly select = h("select", { class: "lt-select" });
  private readonly row = h("div", { class: "lt-segmented", role: "radiogroup" });

  constructor(
    label: string,
    options: readonly (readonly [T, string, string])[],
    cleanup: Cleanup,
    choose: (value: T) => void,
  ) {
    this.row.setAttribute("aria-label", label);
    this.select.setAttribute("aria-label", label);
    for (const [value, text, title] of options) {
      const b = h("button", { type: "button", role: "radio", title }, text);
      cleanup.on(b, "click", () => choose(value));
      this.buttons.set(value, b);
      this.row.append(b);
      this.select.append(h("option", { value }, text));
    }
    cleanup.on(this.select, "change", () => choose(this.select.value as T));
    this.element = h("div", { class: "lt-choice" }, this.row, this.select);
  }

  /** Takes a choice away, or gives it back. */
  offer(value: T, there: boolean): void {
    this.buttons.get(value)!.hidden = !there;
    for (const option of this.select.options) if (option.value === value) option.hidden = !there;
  }

  show(value: T): void {
    this.select.value = value;
    for (const [v, b] of this.buttons)
      setProps(b, { "aria-checked": String(v === value), tabindex: v === value ? 0 : -1 });
  }
}

/** A button that is on or off, with its mark in words' clothing. */
export class Toggle {
  readonly element: HTMLButtonElement;
  private readonly box = h("span", { class: "lt-box", "aria-hidden": "true" });

  constructor(text: string, title: string, cleanup: Cleanup, flip: () => void) {
    this.element = h(
      "button",
      { type: "button", class: "lt-button lt-toggle", role: "checkbox", title },
      this.box,
      text,
    );
    cleanup.on(this.element, "click", flip);
  }

  show(on: boolean): void {
    this.element.setAttribute("aria-checked", String(on));
  }
}

/** One key and what it does. */
export function keyHint(key: string, does: string): HTMLElement {
  return h("span", { class: "lt-hint" }, h("kbd", {}, key), ` ${does}`);
}

/** Which keys do what, for wide layouts. */
export function keyHints(): HTMLElement {
  return h(
    "div",
    { class: "lt-hints", "aria-hidden": "true" },
    keyHint("\u2191\u2193\u2190\u2192", "step"),
    keyHint("\u21b5", "lock"),
    keyHint("Esc", "free"),
    keyHint("\u21e7", "drag = brush heads"),
  );
}
