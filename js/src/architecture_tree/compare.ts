// Two files: A, B, and B − A in bits per weight on A's bytes; what changed by role.
// In: two TreeData and which leaf of A is which of B. Out: the overlay of the difference, its legend, a table.
import { css } from "../shared/colour";
import { h } from "../shared/dom";
import { bytes, count } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Overlay } from "./colours";
import type { RoleFacts, TreeData, TypeFacts } from "./data";
import { badge } from "./table";

const MINUS = "\u2212";
/** Bits per weight at the ends of the scale. */
const MOST = 2;

export function signed(value: number, write: (v: number) => string): string {
  if (Number.isNaN(value)) return "not in both files";
  return value === 0 ? "same" : `${value > 0 ? "+" : MINUS}${write(Math.abs(value))}`;
}

/** Bits per weight of B minus those of A, per leaf of A. */
export function deltaOverlay(a: TreeData, b: TreeData, pairs: Int32Array): Overlay {
  const values = new Float32Array(a.leaves).fill(Number.NaN);
  for (let leaf = 0; leaf < a.leaves; leaf++) {
    const other = pairs[leaf] ?? -1;
    if (other >= 0) values[leaf] = b.leafBits(other) - a.leafBits(leaf);
  }
  return {
    name: "delta",
    label: "B \u2212 A",
    words: "bits per weight: blue = B smaller, red = B larger",
    values,
    scale: "diverging",
    low: -MOST,
    high: MOST,
    write: (v) =>
      Number.isNaN(v) ? "not in both files" : `${signed(v, (x) => x.toFixed(2))} bits per weight`,
  };
}

/** "same type, same bytes", "Q4_1 → Q5_0, +230 kB". */
export function deltaWords(a: TreeData, b: TreeData, pairs: Int32Array, leaf: number): string {
  const other = pairs[leaf] ?? -1;
  const [one, two] = [a.typeOf(leaf), other < 0 ? null : b.typeOf(other)];
  if (other < 0) return "only in A";
  const more = b.leafBytes[other]! - a.leafBytes[leaf]!;
  const change = more === 0 ? "same bytes" : signed(more, bytes);
  if (!one || !two) return change;
  return one.name === two.name ? `same type, ${change}` : `${one.name} \u2192 ${two.name}, ${change}`;
}

export function deltaLegend(theme: Theme): HTMLElement {
  const ramp = h("div", { class: "lt-ramp" });
  const stops = Array.from({ length: 9 }, (_, i) => css(theme.diverging[Math.round((i / 8) * 255)]!));
  ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  const ticks = h("div", { class: "lt-ticks" });
  for (const [at, label] of [
    [0, `\u2264 ${MINUS}${MOST}`],
    [25, `${MINUS}1`],
    [50, "same"],
    [75, "+1"],
    [100, `\u2265 +${MOST}`],
  ] as const) {
    const mark = h("span", { class: at === 100 ? "lt-end" : "" }, label);
    mark.style.left = `${at}%`;
    if (at === 0) mark.style.transform = "none";
    ticks.append(mark);
  }
  return h(
    "div",
    { class: "lt-legend" },
    h("div", { class: "lt-scale" }, ramp, ticks),
    h("div", { class: "lt-quiet" }, "bits per weight: blue = B smaller, red = B larger"),
  );
}

/** What changed, by role, the greatest difference in bytes first. */
export function roleTable(
  roles: readonly RoleFacts[],
  types: readonly TypeFacts[],
  theme: Theme,
  choose: (role: string) => void,
): HTMLElement {
  const byName = new Map(types.map((t) => [t.name, t]));
  const most = Math.max(1, ...roles.map((r) => Math.abs(r.bytes_b - r.bytes_a)));
  const badges = (own: readonly (readonly [string, number])[], all: number) => {
    const cell = h("td", { class: "lt-at-badges" });
    for (const [name, n] of own) {
      const type = byName.get(name);
      if (type) cell.append(badge(type, theme));
      if (n !== all || own.length > 1) cell.append(h("span", { class: "lt-quiet" }, `\u00d7${count(n)} `));
    }
    if (own.length === 0) cell.append(h("span", { class: "lt-quiet" }, "\u2013"));
    return cell;
  };
  const bits = (b: number, w: number) => (w > 0 ? ((8 * b) / w).toFixed(2) : "\u2013");
  const body = roles.map((r) => {
    const more = r.bytes_b - r.bytes_a;
    const bar = h("i", { class: more > 0 ? "lt-at-more" : "lt-at-less" });
    bar.style.width = `${Math.round((96 * Math.abs(more)) / most)}px`;
    bar.style.background = css(theme.diverging[more > 0 ? 200 : 55]!);
    const row = h(
      "tr",
      { class: more === 0 ? "lt-at-same" : "" },
      h("th", { scope: "row", class: "lt-mono" }, h("bdi", {}, r.role)),
      h("td", { class: "lt-number" }, count(r.count)),
      badges(r.types_a, r.count),
      badges(r.types_b, r.count),
      h(
        "td",
        { class: "lt-number" },
        `${bits(r.bytes_a, r.weights_a)} \u2192 `,
        h("b", {}, bits(r.bytes_b, r.weights_b)),
      ),
      h("td", { class: "lt-number lt-at-extra" }, `${bytes(r.bytes_a)} \u2192 ${bytes(r.bytes_b)}`),
      h("td", { class: "lt-number lt-at-difference" }, bar, changeWords(r, more)),
    );
    row.addEventListener("click", () => choose(r.role));
    return row;
  });
  const heads = ["tensor", "count", "A", "B", "bits/weight A \u2192 B", "bytes A \u2192 B", "difference"];
  const numbers = new Set([1, 4, 5, 6]);
  const head = h(
    "tr",
    {},
    ...heads.map((t, i) =>
      h(
        "th",
        { scope: "col", class: `${numbers.has(i) ? "lt-number" : ""}${i === 5 ? " lt-at-extra" : ""}` },
        t,
      ),
    ),
  );
  return h("div", { class: "lt-at-roles" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...body)));
}

function changeWords(r: RoleFacts, more: number): string {
  const missing = r.changes["only in A"] ?? 0;
  const added = r.changes["only in B"] ?? 0;
  if (missing === r.count) return `only in A, ${signed(more, bytes)}`;
  if (added === r.count) return `only in B, ${signed(more, bytes)}`;
  if (more === 0 && (r.changes.type ?? 0) === 0) return "same";
  return more === 0 ? "same bytes" : signed(more, bytes);
}
