// The tree as a table: only the rows that are in sight are elements, however many there are.
// In: TreeData, what is chosen, a theme. Out: DOM (a treegrid), and the node that was chosen.
import { type Cleanup, Frame, h } from "../shared/dom";
import { bytes, plural } from "../shared/format";
import type { Theme } from "../shared/theme";
import { inkOn, typeBackground, typeColour } from "./colours";
import type { TreeData, TypeFacts } from "./data";
import { Opened, type Row, rowsOf } from "./rows";

export const ROW = 24;
/** Rows that are made above and below those in sight. */
const SPARE = 4;

export interface TableEvents {
  choose(node: number): void;
  hover(node: number): void;
  leave(): void;
}

let tables = 0;

export class TreeTable {
  readonly element = h("div", { class: "lt-at-table" });
  readonly grid: HTMLElement;
  private readonly scroller = h("div", { class: "lt-at-scroll", tabindex: -1 });
  private readonly spacer = h("div", { class: "lt-at-spacer" });
  private readonly name = `lt-at-rows-${++tables}`;
  private readonly frame: Frame;
  private opened = new Opened();
  private rows: Row[] = [];
  private runs: number[] = [];
  private chosen = -1;
  private cursor = 0;
  private hits: Uint8Array | null = null;
  private theme: Theme | null = null;
  private height = 0;
  /** Rows that are elements now, by their place; they are kept while nothing but the scroll changes. */
  private made = new Map<number, HTMLElement>();
  private scrolled = false;

  constructor(
    private data: TreeData,
    private readonly events: TableEvents,
    cleanup: Cleanup,
  ) {
    this.grid = h("div", {
      class: "lt-at-grid",
      role: "treegrid",
      tabindex: 0,
      "aria-label": "Tree of the model",
      "data-region": "tree",
    });
    const head = h("div", { class: "lt-at-row lt-at-head", role: "row", "aria-rowindex": 1 });
    for (const [label, kind] of [
      ["name", "name"],
      ["shape", "shape"],
      ["type", "type"],
      ["bits", "bits"],
      ["", "bar"],
      ["bytes", "bytes"],
    ] as const)
      head.append(h("span", { class: `lt-at-${kind}`, role: "columnheader" }, label));
    this.spacer.setAttribute("role", "rowgroup");
    this.scroller.append(this.spacer);
    this.scroller.setAttribute("role", "presentation");
    this.grid.append(head, this.scroller);
    this.element.append(this.grid);
    this.frame = new Frame(cleanup, () => {
      this.render(this.scrolled);
      this.scrolled = false;
    });
    cleanup.on(this.scroller, "scroll", () => {
      this.scrolled = true;
      this.frame.ask();
    });
    cleanup.on<MouseEvent>(this.spacer, "click", (e) => this.click(e));
    cleanup.on<PointerEvent>(this.spacer, "pointermove", (e) => this.over(e));
    cleanup.on(this.spacer, "pointerleave", () => events.leave());
    this.openFirst();
  }

  /** At first the stacks of layers are open, their layers folded to runs. */
  private openFirst(): void {
    for (const part of this.data.children(0)) {
      const layered = this.data.children(part).some((child) => this.data.kindOf(child) === "layer");
      if (layered || this.data.kindOf(part) === "stage") this.opened.set(part, null, true);
    }
    this.list();
  }

  setData(data: TreeData): void {
    this.data = data;
    this.opened = new Opened();
    this.chosen = -1;
    this.openFirst();
    this.made.clear();
    this.frame.ask();
  }

  show(theme: Theme, height: number, hits: Uint8Array | null): void {
    this.theme = theme;
    this.hits = hits;
    const other = height !== this.height;
    this.height = height;
    this.resize();
    if (other && this.chosen >= 0) this.scrollTo(this.cursor);
    this.render();
  }

  /** Chooses a node; it is shown, with all that is above it open. */
  choose(node: number): void {
    if (node === this.chosen) return;
    this.chosen = node;
    if (node >= 0) this.opened.reveal(this.data, node);
    this.list();
    const at = this.rows.findIndex((row) => row.count === 1 && row.first === node);
    if (at >= 0) {
      this.cursor = at;
      this.scrollTo(at);
    }
    this.made.clear();
    this.frame.ask();
  }

  get length(): number {
    return this.rows.length;
  }

  private list(): void {
    const made = rowsOf(this.data, this.opened, this.chosen);
    this.rows = made.rows;
    this.runs = made.runs;
    this.cursor = Math.max(0, Math.min(this.cursor, this.rows.length - 1));
    this.spacer.style.height = `${this.rows.length * ROW}px`;
    this.grid.setAttribute("aria-rowcount", String(this.rows.length + 1));
    this.resize();
  }

  private resize(): void {
    const rows = Math.min(this.rows.length * ROW, Math.max(8 * ROW, Math.floor(this.height / ROW) * ROW));
    this.scroller.style.height = `${rows}px`;
  }

  private get view(): number {
    return this.scroller.clientHeight || Number.parseFloat(this.scroller.style.height) || 20 * ROW;
  }

  private scrollTo(at: number): void {
    const { scrollTop } = this.scroller;
    if (at * ROW < scrollTop) this.scroller.scrollTop = at * ROW;
    else if ((at + 1) * ROW > scrollTop + this.view) this.scroller.scrollTop = (at + 1) * ROW - this.view;
  }

  // ------------------------------------------------------------------------------- rows

  private render(keep = false): void {
    if (!this.theme) return;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - SPARE);
    const end = Math.min(this.rows.length, Math.ceil((this.scroller.scrollTop + this.view) / ROW) + SPARE);
    const known = [...this.made.keys()].filter((at) => at >= first && at < end);
    const made = new Map<number, HTMLElement>();
    for (let at = first; at < end; at++)
      made.set(at, (keep && this.made.get(at)) || this.row(at, this.theme));
    if (keep && known.length > 0) {
      // What stays is not touched: only rows that come and go cost a layout.
      for (const [at, e] of this.made) if (!made.has(at)) e.remove();
      const own = [...made];
      this.spacer.prepend(...own.filter(([at]) => at < known[0]!).map(([, e]) => e));
      this.spacer.append(...own.filter(([at]) => at > known.at(-1)!).map(([, e]) => e));
    } else this.spacer.replaceChildren(...made.values());
    this.made = made;
    if (this.rows.length > 0) this.grid.setAttribute("aria-activedescendant", `${this.name}-${this.cursor}`);
  }

  private row(at: number, theme: Theme): HTMLElement {
    const row = this.rows[at]!;
    const { data } = this;
    const mine = row.count === 1 && row.first === this.chosen;
    const focused = at === this.cursor; // drawn by the style sheet, so that a click is never on a row that goes
    const dim = this.hits !== null && !this.anyHit(row);
    const e = h("div", {
      id: `${this.name}-${at}`,
      class: `lt-at-row${mine ? " lt-on" : ""}${focused ? " lt-at-focus" : ""}${dim ? " lt-at-dim" : ""}`,
      role: "row",
      "aria-level": row.level,
      "aria-posinset": row.place,
      "aria-setsize": row.siblings,
      "aria-rowindex": at + 2,
      "aria-selected": String(mine),
      "aria-expanded": row.opens ? String(row.open) : null,
      "data-row": at,
    });
    e.style.transform = `translateY(${at * ROW}px)`;
    const twist = h(
      "span",
      { class: "lt-at-twist", "aria-hidden": "true" },
      row.opens ? (row.open ? "\u25be" : "\u25b8") : "",
    );
    const name = h("span", { class: "lt-at-name", role: "gridcell" }, twist, h("bdi", {}, this.nameOf(row)));
    name.style.paddingLeft = `${(row.level - 1) * 13}px`;
    const shape = h("span", { class: "lt-at-shape", role: "gridcell" }, this.shapeOf(row));
    const bits = data.bits(row.first, data.end[row.last]!);
    const own = this.bytesOf(row);
    const counted = own > 0 || data.leafOf[row.first]! >= 0;
    const track = h("span", { class: "lt-at-track" });
    const bar = h("i", {});
    bar.style.width = `${100 * Math.sqrt(own / Math.max(1, data.bytes[0]!))}%`;
    track.append(bar);
    e.append(
      name,
      shape,
      h("span", { class: "lt-at-type", role: "gridcell" }, this.typeOf(row, theme)),
      h("span", { class: "lt-at-bits", role: "gridcell" }, Number.isNaN(bits) ? "" : bitsText(bits)),
      h("span", { class: "lt-at-bar", "aria-hidden": "true" }, counted ? track : null),
      h(
        "span",
        { class: "lt-at-bytes", role: "gridcell", title: counted ? `${own} bytes` : null },
        counted ? bytes(own) : "",
      ),
    );
    return e;
  }

  private anyHit(row: Row): boolean {
    const [first] = this.data.leavesOf(row.first);
    const [, end] = this.data.leavesOf(row.last);
    for (let leaf = first; leaf < end; leaf++) if (this.hits![leaf] === 1) return true;
    return false;
  }

  private bytesOf(row: Row): number {
    let sum = 0;
    for (let n = row.first; n <= row.last; n = this.data.end[n]!) sum += this.data.bytes[n]!;
    return sum;
  }

  private nameOf(row: Row): string {
    const { data } = this;
    const name = data.shortName(row.first);
    if (row.count === 1) return name;
    const last = data.shortName(row.last);
    const word = /^(.*?)(\d+)$/.exec(name);
    const to = /(\d+)$/.exec(last)?.[1];
    if (!word || to === undefined) return `${name} \u2013 ${last}`;
    const plural = data.kindOf(row.first) === "kv_group" ? "" : "s"; // "KV 0 – 2", "layers 0 – 16", "H0 – H8"
    const plain = word[1]!.trimEnd();
    return word[1] === plain ? `${name} \u2013 ${last}` : `${plain}${plural} ${word[2]} \u2013 ${to}`;
  }

  private shapeOf(row: Row): string {
    const { data } = this;
    if (row.count > 1) return plural(row.count, kindWord(data, row.first));
    const leaf = data.leafOf[row.first]!;
    if (leaf >= 0 && data.leafType[leaf]! >= 0) return data.shape(leaf).join("\u00d7");
    return leaf >= 0 ? "" : data.text(data.note[row.first]!);
  }

  private typeOf(row: Row, theme: Theme): HTMLElement | null {
    const { data } = this;
    const leaf = row.count === 1 ? data.leafOf[row.first]! : -1;
    if (leaf >= 0) {
      const type = data.typeOf(leaf);
      return type && badge(type, theme);
    }
    const [first] = data.leavesOf(row.first);
    const [, end] = data.leavesOf(row.last);
    const mix = data.mix(first, end);
    const total = mix.reduce((sum, m) => sum + m.bytes, 0);
    if (total === 0) return null;
    const bar = h("span", {
      class: "lt-at-mix",
      title: mix.map((m) => `${m.count} \u00d7 ${data.facts.types[m.type]!.name}`).join(", "),
    });
    for (const own of [...mix].sort((a, b) => hue(data, a.type) - hue(data, b.type))) {
      const part = h("i", {});
      part.style.width = `${(100 * own.bytes) / total}%`;
      part.style.background = typeBackground(data.facts.types[own.type]!, theme);
      bar.append(part);
    }
    return bar;
  }

  // ---------------------------------------------------------------------------- pointer

  private rowAt(e: Event): number {
    const row = (e.target as Element).closest<HTMLElement>("[data-row]");
    return row ? Number(row.dataset.row) : -1;
  }

  private click(e: MouseEvent): void {
    const at = this.rowAt(e);
    const row = this.rows[at];
    if (!row) return;
    this.cursor = at;
    this.grid.focus({ preventScroll: true });
    const twist = (e.target as Element).closest(".lt-at-twist") !== null;
    if (row.opens && (twist || row.count > 1)) this.open(at, !row.open);
    else this.enter(at);
  }

  private over(e: PointerEvent): void {
    const row = this.rows[this.rowAt(e)];
    if (row && row.count === 1) this.events.hover(row.first);
    else this.events.leave();
  }

  // --------------------------------------------------------------------------- keyboard

  /** Chooses the row's node; a second time it opens or closes it. */
  private enter(at: number): void {
    const row = this.rows[at]!;
    if (row.count > 1 || (row.first === this.chosen && row.opens)) {
      this.open(at, !row.open);
      return;
    }
    if (row.opens && !row.open) this.open(at, true);
    this.events.choose(row.first);
  }

  private open(at: number, open: boolean): void {
    const row = this.rows[at]!;
    this.opened.set(row.first, row.count > 1 ? this.runs[at]! : null, open);
    this.list();
    this.cursor = this.rows.findIndex((r) => r.first === row.first && r.count === row.count);
    if (this.cursor < 0) this.cursor = Math.min(at, this.rows.length - 1);
    this.render();
  }

  /** A key that was pressed on the tree; whether it was used. */
  key(e: KeyboardEvent): boolean {
    const at = this.cursor;
    const row = this.rows[at];
    if (!row) return false;
    const page = Math.max(1, Math.floor(this.view / ROW) - 1);
    const moves: Record<string, number> = {
      ArrowUp: at - 1,
      ArrowDown: at + 1,
      PageUp: at - page,
      PageDown: at + page,
      Home: 0,
      End: this.rows.length - 1,
    };
    const to = moves[e.key];
    if (to !== undefined) this.move(to);
    else if (e.key === "ArrowRight") this.right(at, row);
    else if (e.key === "ArrowLeft") this.left(at, row);
    else if (e.key === "Enter" || e.key === " ") this.enter(at);
    else return false;
    return true;
  }

  private right(at: number, row: Row): void {
    if (row.opens && !row.open) this.open(at, true);
    else if (row.opens) this.move(at + 1);
  }

  private left(at: number, row: Row): void {
    if (row.open) this.open(at, false);
    else this.move(this.above(at));
  }

  private move(to: number): void {
    this.cursor = Math.max(0, Math.min(this.rows.length - 1, to));
    this.scrollTo(this.cursor);
    this.render();
    const row = this.rows[this.cursor];
    if (row && row.count === 1) this.events.hover(row.first);
    else this.events.leave();
  }

  private above(at: number): number {
    const level = this.rows[at]!.level;
    for (let i = at - 1; i >= 0; i--) if (this.rows[i]!.level < level) return i;
    return at;
  }
}

const hue = (data: TreeData, type: number) => data.facts.types[type]!.hue ?? 99;

/** "5.50"; whole numbers as they are. */
export function bitsText(bits: number): string {
  return Number.isInteger(bits) ? String(bits) : bits.toFixed(2);
}

const WORDS: Readonly<Record<string, string>> = { kv_group: "KV head" };

function kindWord(data: TreeData, node: number): string {
  const kind = data.kindOf(node);
  return WORDS[kind] ?? kind;
}

/** A quant type's name on its colour. */
export function badge(type: TypeFacts, theme: Theme): HTMLElement {
  const colour = typeColour(type, theme);
  const e = h("span", { class: "lt-at-badge" }, type.name);
  e.style.background = `rgb(${colour.map(Math.round).join(",")})`;
  e.style.color = inkOn(colour);
  return e;
}
