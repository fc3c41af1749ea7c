// The right column: neighbours of the locked token, what moved most, the histogram of all, the selection.
// In: what was read. Out: lists that step with the arrows and fly with Enter.
import { css } from "../shared/colour";
import { type Cleanup, h, s } from "../shared/dom";
import { count, plural, weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import { rampColour } from "./colours";
import type { About, DriftFacts, SpaceData } from "./data";

export interface PanelEvents {
  /** Lock a row and fly there. */
  go(row: number): void;
  /** Preview a row, or none. */
  look(row: number | null): void;
  clear(): void;
  /** So many nearest (from 1), a least cosine (below 1), or no lines. */
  network(value: number | null): void;
}

interface Entry {
  readonly row: number;
  readonly text: string;
  readonly share: number | null;
  readonly value: string;
}

const LISTED = 60;

/** A list with bars. */
class BarList {
  readonly element: HTMLElement;
  private readonly title = h("h4", {});
  private readonly list = h("div", { class: "lt-emb-list", role: "listbox" });
  private readonly hint = h("div", { class: "lt-quiet lt-emb-hint" });
  private rows: readonly number[] = [];

  constructor(
    cleanup: Cleanup,
    name: string,
    private readonly events: PanelEvents,
  ) {
    this.list.dataset.region = name;
    this.element = h("div", {}, this.title, this.list, this.hint);
    const of = (e: Event) => (e.target as HTMLElement).closest<HTMLElement>("[data-row]");
    cleanup.on(this.list, "click", (e) => {
      const row = of(e)?.dataset.row;
      if (row !== undefined) events.go(Number(row));
    });
    cleanup.on(this.list, "pointerover", (e) => {
      const row = of(e)?.dataset.row;
      events.look(row === undefined ? null : Number(row));
    });
    cleanup.on(this.list, "pointerleave", () => events.look(null));
    cleanup.on(this.list, "focusin", (e) => {
      const row = of(e)?.dataset.row;
      if (row !== undefined) events.look(Number(row));
    });
    cleanup.on(this.list, "focusout", () => events.look(null));
  }

  show(heading: readonly (Node | string)[], label: string, entries: readonly Entry[], hint: string): void {
    this.title.replaceChildren(...heading);
    this.list.setAttribute("aria-label", label);
    this.hint.textContent = hint;
    this.hint.hidden = hint === "";
    const rows = entries.map((e) => e.row);
    const focused = this.list.contains(document.activeElement);
    const same = rows.length === this.rows.length && rows.every((r, i) => r === this.rows[i]);
    if (same && focused) return;
    this.rows = rows;
    this.list.replaceChildren(
      ...entries.map((e, i) =>
        h(
          "div",
          {
            class: "lt-emb-row",
            role: "option",
            tabindex: i === 0 ? 0 : -1,
            "data-row": e.row,
            "aria-label": `${e.text} ${e.value}`,
          },
          h("bdi", { class: "lt-mono", title: e.text }, e.text),
          e.share === null ? h("span", {}) : h("span", { class: "lt-track" }, bar(e.share)),
          h("span", { class: "lt-number" }, e.value),
        ),
      ),
    );
  }

  key(event: KeyboardEvent): boolean {
    const items = [...this.list.querySelectorAll<HTMLElement>("[data-row]")];
    const at = items.indexOf(event.target as HTMLElement);
    if (at < 0) return false;
    if (event.key === "Enter" || event.key === " ") {
      this.events.go(Number(items[at]!.dataset.row));
      return true;
    }
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to === undefined) return false;
    const next = items[Math.max(0, Math.min(items.length - 1, to))]!;
    for (const item of items) item.tabIndex = item === next ? 0 : -1;
    next.focus();
    return true;
  }
}

function bar(share: number): HTMLElement {
  const i = h("i", {});
  i.style.width = `${(100 * Math.max(0, Math.min(1, share))).toFixed(1)}%`;
  return i;
}

/** What the control of the network offers. */
const NETWORKS = [null, 1, 2, 3, 5, 10, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8] as const;
/** Rows whose network can be drawn without choosing some. */
export const FEW = 2000;

function networkWords(value: number | null): string {
  if (value === null) return "no lines";
  return value >= 1 ? `${value} nearest of each` : `cosine at least ${value}`;
}

export interface PanelState {
  readonly data: SpaceData;
  readonly locked: number | null;
  readonly about: About | null;
  readonly why: string;
  readonly selected: readonly number[];
  readonly network: number | null;
  readonly live: boolean;
  readonly drift: boolean;
  readonly theme: Theme;
  /** Of the histogram, in pixels. */
  readonly width: number;
}

/** What stands beside the cloud, and `drift` under it: there a long list leaves no empty field. */
export class Panel {
  readonly element = h("div", { class: "lt-emb-panel" });
  readonly drift = h("div", { class: "lt-emb-drift" });
  private readonly near: BarList;
  private readonly moved: BarList;
  private readonly chosen: BarList;
  private readonly status = h("div", { class: "lt-quiet lt-emb-status" });
  private readonly clear = h("button", { type: "button", class: "lt-button" }, "Free the selection");
  private readonly lines = h("div", { class: "lt-emb-network" });
  private readonly choice = h("select", {
    class: "lt-select",
    "aria-label": "Lines between what is selected",
  });
  private readonly linesTold = h("div", { class: "lt-quiet lt-emb-hint" });
  private readonly histogram = h("div", { class: "lt-emb-histogram" });
  private readonly sentence = h("p", { class: "lt-emb-sentence" });

  constructor(cleanup: Cleanup, events: PanelEvents) {
    this.near = new BarList(cleanup, "near", events);
    this.moved = new BarList(cleanup, "moved", events);
    this.chosen = new BarList(cleanup, "chosen", events);
    cleanup.on(this.clear, "click", () => events.clear());
    this.chosen.element.append(this.clear);
    this.lines.append(
      h("h4", {}, h("b", {}, "Network "), h("span", {}, "lines by cosine, all dimensions")),
      this.choice,
      this.linesTold,
    );
    cleanup.on(this.choice, "change", () =>
      events.network(this.choice.value === "" ? null : Number(this.choice.value)),
    );
    this.element.append(this.status, this.chosen.element, this.lines, this.near.element);
    this.drift.append(this.moved.element, h("div", {}, this.histogram, this.sentence));
  }

  /** Lists by the name of their region. */
  list(region: string): { key(e: KeyboardEvent): boolean } | null {
    return { near: this.near, moved: this.moved, chosen: this.chosen }[region] ?? null;
  }

  show(state: PanelState): void {
    this.showNear(state);
    this.showChosen(state);
    this.showNetwork(state);
    const { drift } = state.data.facts;
    const driven = state.drift && drift !== null;
    this.drift.hidden = !driven;
    if (driven) this.showDrift(drift, state);
  }

  private showNear({ data, locked, about, why }: PanelState): void {
    this.near.element.hidden = about === null || about.rows.length === 0;
    this.status.hidden = !this.near.element.hidden && why === "";
    const what = data.facts.texts ? "text" : "token";
    if (locked === null)
      this.status.textContent = `Click a point, or search a ${what}: its neighbours stand here.`;
    else if (about === null) this.status.textContent = why || "reading\u2026";
    else if (about.rows.length === 0)
      this.status.textContent = `${about.text} has no neighbours: its vector has no direction.`;
    else this.status.textContent = why;
    if (!about || about.rows.length === 0) return;
    const least = Math.min(...about.cosines);
    const start = Math.max(0, Math.floor(10 * least - 0.5) / 10);
    const entries = about.rows.map((row, i) => ({
      row,
      text: about.texts[i] ?? "",
      share: (about.cosines[i]! - start) / (1 - start),
      value: weight(about.cosines[i]!),
    }));
    this.near.show(
      [
        h("b", {}, "Nearest to "),
        h("bdi", { class: "lt-mono lt-emb-locked" }, about.text),
        h("span", {}, `cosine, all ${count(data.facts.width)} dimensions`),
      ],
      `Nearest to ${about.text}, by cosine`,
      entries,
      `bars start at ${start.toFixed(2)} \u00b7 \u2191\u2193 steps, \u21b5 moves there`,
    );
  }

  private showChosen({ data, selected }: PanelState): void {
    this.chosen.element.hidden = selected.length === 0;
    if (selected.length === 0) return;
    const entries = selected.slice(0, LISTED).map((row) => ({
      row,
      text: data.text(row) ?? "\u2026",
      share: null,
      value: String(data.idOf(row)),
    }));
    const rest = selected.length - entries.length;
    this.chosen.show(
      [h("b", {}, "Selected "), h("span", {}, plural(selected.length, data.facts.texts ? "text" : "token"))],
      "Selected tokens",
      entries,
      rest > 0 ? `${count(rest)} more \u00b7 all of them are in selected_tokens` : "",
    );
  }

  private showNetwork({ data, selected, network, live }: PanelState): void {
    this.lines.hidden = network === null && (selected.length < 2 || !live) && data.n > FEW;
    if (this.lines.hidden) return;
    const offered = [...new Set([...NETWORKS, network])];
    if (offered.length !== this.choice.options.length)
      this.choice.replaceChildren(
        ...offered.map((value) =>
          h("option", { value: value === null ? "" : String(value) }, networkWords(value)),
        ),
      );
    this.choice.value = network === null ? "" : String(network);
    this.choice.disabled = !live;
    const told = data.facts.network;
    const scale = data.links ? ` \u00b7 cosine ${weight(told!.low)} (faint) to ${weight(told!.high)}` : "";
    this.linesTold.textContent =
      network === null ? "" : told === null ? "finding lines\u2026" : told.words + scale;
    this.linesTold.hidden = this.linesTold.textContent === "";
  }

  private showDrift(drift: DriftFacts, { theme, width }: PanelState): void {
    const most = drift.movers[0]?.moved || 1;
    this.moved.show(
      [h("b", {}, "Moved most "), h("span", {}, "1 \u2212 cosine, \u00d710\u207b\u00b3")],
      "Moved most, in thousandths",
      drift.movers.map((m) => ({
        row: m.row,
        text: m.text,
        share: m.moved / most,
        value: (1000 * m.moved).toFixed(1),
      })),
      "",
    );
    const thousand = (v: number) => (1000 * v).toFixed(1);
    this.histogram.replaceChildren(
      h(
        "h4",
        {},
        h("b", {}, "All tokens "),
        h(
          "span",
          {},
          `median ${thousand(drift.median)}, 98\u202f% between ${thousand(drift.low)} and ${thousand(drift.high)}`,
        ),
      ),
      bars(drift, theme, width),
    );
    const first = drift.movers[0];
    this.sentence.replaceChildren(
      ...(drift.kept === null
        ? [h("span", {}, "Neighbours were not compared.")]
        : [
            h("b", {}, `${drift.kept.toFixed(1)} of ${drift.k} nearest neighbours survive`),
            ` ${drift.label} (${plural(drift.rows, "token")} looked at).`,
          ]),
      ...(first ? [" Most moved is ", h("bdi", { class: "lt-mono" }, first.text), "."] : []),
      ...(drift.aligned === "procrustes"
        ? [" The second model was turned onto the first (orthogonal Procrustes)."]
        : []),
    );
  }
}

/** The histogram in the colours of the cloud. */
function bars(drift: DriftFacts, theme: Theme, width: number): SVGElement {
  const [w, tall] = [width, 64];
  const { histogram, edges } = drift;
  const most = Math.max(1, ...histogram);
  const [first, last] = [edges[0] ?? 0, edges[edges.length - 1] ?? 1];
  const x = (v: number) => ((v - first) / (last - first || 1)) * w;
  const svg = s("svg", {
    width: w,
    height: tall + 16,
    role: "img",
    "aria-label": "Histogram of the distance moved",
  });
  histogram.forEach((n, i) => {
    if (n === 0) return;
    const middle = (edges[i]! + edges[i + 1]!) / 2;
    const share = Math.max(0, Math.min(1, (middle - drift.low) / (drift.high - drift.low || 1)));
    const high = Math.max(1, (n / most) * tall);
    svg.append(
      s("rect", {
        x: x(edges[i]!) + 0.5,
        y: tall - high,
        width: Math.max(1, x(edges[i + 1]!) - x(edges[i]!) - 1),
        height: high,
        fill: css(rampColour(theme, share)),
      }),
    );
  });
  svg.append(s("line", { x1: 0, x2: w, y1: tall + 0.5, y2: tall + 0.5, stroke: css(theme.line2) }));
  for (const v of [first, (first + last) / 2, last]) {
    const anchor = v === first ? "start" : v === last ? "end" : "middle";
    const text = s("text", {
      x: x(v),
      y: tall + 13,
      "text-anchor": anchor,
      "font-size": 10,
      fill: css(theme.ink3),
    });
    text.textContent = (1000 * v).toFixed(1);
    svg.append(text);
  }
  return svg;
}
