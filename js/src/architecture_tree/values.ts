// Statistics of a tensor's values, expanded in the worker when they are asked for; weight errors of two files.
// In: what the kernel answered. Out: DOM: a histogram, a table of the tensors that are most affected.
import { h, s } from "../shared/dom";
import { count } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { TreeData } from "./data";
import { badge } from "./table";

export interface Statistics {
  readonly numbers: Readonly<Record<string, number | null>>;
  readonly histogram: Float64Array | null;
  readonly edges: Float64Array | null;
}

/** Three figures; small and large numbers with their power of ten. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 0.001 && size < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(2);
  return text.replace("-", "\u2212").replace("e\u2212", "e\u2212");
}

/** The histogram: counts are square-rooted, so that few large values among many small ones stay visible. */
export function histogram(own: Statistics): HTMLElement {
  const { numbers, histogram: counts, edges } = own;
  if (!counts || !edges) return h("p", { class: "lt-quiet" }, "no value is a number");
  const most = Math.sqrt(Math.max(...counts, 1));
  const bars = s("svg", {
    class: "lt-at-histogram",
    viewBox: `0 0 ${counts.length} 60`,
    preserveAspectRatio: "none",
  });
  counts.forEach((n, i) => {
    const tall = (58 * Math.sqrt(n)) / most;
    if (n > 0)
      bars.append(
        s("rect", { x: i + 0.06, y: 60 - Math.max(1, tall), width: 0.88, height: Math.max(1, tall) }),
      );
  });
  const words = `mean ${figure(numbers.mean)}, standard deviation ${figure(numbers.std)}`;
  bars.setAttribute("role", "img");
  bars.setAttribute("aria-label", `Histogram of ${count(numbers.count ?? 0)} values: ${words}`);
  const [low, high] = [edges[0]!, edges.at(-1)!];
  const ticks = h("div", { class: "lt-ticks" });
  const zero = (0 - low) / (high - low);
  const marks: [number, string][] = [
    [0, figure(low)],
    [1, figure(high)],
  ];
  if (zero > 0.15 && zero < 0.85) marks.push([zero, "0"]);
  for (const [at, label] of marks) {
    const mark = h("span", { class: at === 1 ? "lt-end" : "" }, label);
    mark.style.left = `${100 * at}%`;
    if (at === 0) mark.style.transform = "none";
    ticks.append(mark);
  }
  const beyond = numbers.outliers ?? 0;
  const more = [
    words,
    `${count(numbers.zeros ?? 0)} zeros`,
    `${count(beyond)} beyond 6 standard deviations`,
    ...(numbers.not_finite ? [`${count(numbers.not_finite)} not finite`] : []),
  ];
  return h("div", {}, bars, ticks, h("p", { class: "lt-quiet" }, more.join(" \u00b7 ")));
}

/** The tensors whose weights differ most, the greatest relative error first. */
export function worstTable(
  a: TreeData,
  b: TreeData,
  pairs: Int32Array,
  errors: readonly Float32Array[],
  theme: Theme,
  choose: (leaf: number) => void,
): HTMLElement {
  const [rmse, relative, cosine] = errors as [Float32Array, Float32Array, Float32Array];
  const order = [...relative.keys()]
    .filter((leaf) => relative[leaf]! > 0)
    .sort((x, y) => relative[y]! - relative[x]!);
  const rows = order.slice(0, 12).map((leaf) => {
    const other = pairs[leaf]!;
    const [one, two] = [a.typeOf(leaf), b.typeOf(other)];
    const row = h(
      "tr",
      {},
      h("th", { scope: "row", class: "lt-mono" }, h("bdi", {}, a.fullName(leaf).replace(/\.weight$/, ""))),
      h("td", {}, one && badge(one, theme), " \u2192 ", two && badge(two, theme)),
      h("td", { class: "lt-number" }, figure(rmse[leaf])),
      h("td", { class: "lt-number" }, h("b", {}, figure(relative[leaf]))),
      h("td", { class: "lt-number" }, cosine[leaf]!.toFixed(5)),
    );
    row.addEventListener("click", () => choose(leaf));
    return row;
  });
  const heads = ["tensor", "type A \u2192 B", "RMSE", "relative", "cosine"];
  const head = h(
    "tr",
    {},
    ...heads.map((text, i) => h("th", { scope: "col", class: i > 1 ? "lt-number" : "" }, text)),
  );
  const same = relative.reduce((n, v) => n + (v === 0 ? 1 : 0), 0);
  const table = h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows));
  const left = order.length - rows.length;
  const rest = [
    left > 0 ? `${count(left)} more differ less` : "",
    same > 0 ? `${count(same)} are equal` : "",
  ];
  return h(
    "div",
    { class: "lt-at-roles" },
    table,
    h("p", { class: "lt-quiet" }, rest.filter(Boolean).join(" \u00b7 ")),
  );
}
