// The search box: results as one types, arrows step through them, Enter flies to one.
// In: a way to search. Out: the row that was chosen.
import { type Cleanup, h, setProps, Timer } from "../shared/dom";
import { count } from "../shared/format";
import type { Found } from "./data";

export interface SearchEvents {
  find(text: string): Promise<Found>;
  typed(text: string): void;
  go(row: number, text: string): void;
}

const SHOWN = 8;

export class SearchBox {
  readonly element: HTMLElement;
  readonly input: HTMLInputElement;
  private readonly total = h("span", { class: "lt-emb-found", role: "status" });
  private readonly list: HTMLElement;
  private found: Found = { rows: [], texts: [], found: 0 };
  private active = -1;
  private asked = 0;
  private readonly timer: Timer;

  constructor(
    cleanup: Cleanup,
    unique: string,
    private readonly events: SearchEvents,
  ) {
    const id = `lt-emb-results-${unique}`;
    this.timer = new Timer(cleanup);
    this.input = h("input", {
      type: "text",
      role: "combobox",
      "aria-label": "Search tokens",
      "aria-expanded": "false",
      "aria-controls": id,
      "aria-autocomplete": "list",
      placeholder: "search tokens",
      spellcheck: "false",
      autocomplete: "off",
      "data-region": "search",
    });
    this.list = h("div", {
      class: "lt-emb-results",
      role: "listbox",
      id,
      hidden: true,
      "aria-label": "Found tokens",
    });
    this.element = h(
      "div",
      { class: "lt-emb-search" },
      h("span", { class: "lt-emb-glass", "aria-hidden": "true" }, "\u2315"),
      this.input,
      this.total,
      this.list,
    );
    cleanup.on(this.input, "input", () => {
      events.typed(this.input.value);
      this.timer.start(60, () => this.search());
    });
    cleanup.on(this.input, "focus", () => this.search());
    cleanup.on(this.input, "blur", () => this.open(false));
    cleanup.on(this.list, "pointerdown", (e) => {
      e.preventDefault(); // the focus stays in the box
      const at = (e.target as HTMLElement).closest<HTMLElement>("[data-at]")?.dataset.at;
      if (at !== undefined) this.choose(Number(at));
    });
  }

  /** The trait's text, unless the user is typing. */
  show(text: string, able: boolean, why: string): void {
    setProps(this.input, { disabled: !able, title: able ? "" : why });
    if (this.input.value === text || document.activeElement === this.input) return;
    this.input.value = text;
    if (text && able) this.search();
    else if (!text) this.total.textContent = "";
  }

  private async search(): Promise<void> {
    const mine = ++this.asked;
    const text = this.input.value;
    if (text.trim() === "") {
      this.found = { rows: [], texts: [], found: 0 };
      this.total.textContent = "";
      this.open(false);
      return;
    }
    try {
      const found = await this.events.find(text);
      if (mine !== this.asked) return;
      this.found = found;
      this.total.textContent = found.found === 0 ? "none found" : `${count(found.found)} found`;
    } catch (e) {
      if (mine !== this.asked) return;
      this.found = { rows: [], texts: [], found: 0 };
      this.total.textContent = e instanceof Error ? e.message : "";
    }
    this.active = this.found.rows.length > 0 ? 0 : -1;
    this.open(document.activeElement === this.input && this.found.rows.length > 0);
  }

  private open(open: boolean): void {
    this.list.hidden = !open;
    setProps(this.input, { "aria-expanded": String(open), "aria-activedescendant": null });
    if (!open) return;
    const first = Math.max(0, Math.min(this.active - SHOWN + 1, this.found.rows.length - SHOWN));
    const rows = this.found.texts.slice(first, first + SHOWN).map((text, i) => {
      const at = first + i;
      const id = `${this.list.id}-${at}`;
      if (at === this.active) this.input.setAttribute("aria-activedescendant", id);
      return h(
        "div",
        { id, role: "option", "data-at": at, "aria-selected": String(at === this.active) },
        h("bdi", { class: "lt-mono" }, text),
        h("span", { class: "lt-quiet" }, String(this.found.rows[at])),
      );
    });
    const rest = this.found.found - this.found.rows.length;
    this.list.replaceChildren(
      ...rows,
      ...(rest > 0 ? [h("div", { class: "lt-quiet" }, `${count(rest)} more: type more letters`)] : []),
    );
  }

  private choose(at: number): void {
    const row = this.found.rows[at];
    if (row === undefined) return;
    this.open(false);
    this.events.go(row, this.found.texts[at] ?? "");
  }

  key(event: KeyboardEvent): boolean {
    if (event.key === "Escape") {
      if (!this.list.hidden) {
        this.open(false);
        return true;
      }
      return false;
    }
    if (event.key === "Enter") {
      this.choose(Math.max(0, this.active));
      return true;
    }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return false;
    const { length } = this.found.rows;
    if (length === 0) return true;
    this.active = (this.active + (event.key === "ArrowDown" ? 1 : -1) + length) % length;
    this.open(true);
    return true;
  }
}
