// A comparison as a notebook or an exported page runs it: traits in, DOM and messages out; numbers against the package's own.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Replay } from "../src/attention_grid/replay";
import { ComparisonData, type Facts, roundUp } from "../src/head_comparison/data";
import { computePair, distance } from "../src/head_comparison/pair";
import widget from "../src/head_comparison/widget";
import { FakeModel } from "./fixture";
import { observers, page, resize } from "./page";

interface Stored {
  state: Record<string, unknown> & { facts: Facts; embedded: Record<string, never> };
  buffers: Record<string, string>;
  embedded_data: string[];
  rows: { js: (number | null)[]; tv: (number | null)[]; mean_js: number; mean_tv: number };
}

const file = join(import.meta.dirname, "data", "comparison.json");
const all = JSON.parse(readFileSync(file, "utf8")) as Record<string, Stored>;
const view = (text: string) => {
  const copy = new Uint8Array(Buffer.from(text, "base64"));
  return new DataView(copy.buffer);
};

/** The traits of a stored comparison. */
function traits(name: string, changes: Record<string, unknown> = {}): Record<string, unknown> {
  const { state, buffers, embedded_data } = all[name]!;
  const binary = Object.fromEntries(Object.entries(buffers).map(([key, text]) => [key, view(text)]));
  return { ...structuredClone(state), ...binary, embedded_data: embedded_data.map(view), ...changes };
}

const live = (name: string) => ({ ...traits(name), facts: { ...all[name]!.state.facts, live: true } });
const dataOf = (name: string) => {
  const t = traits(name);
  return new ComparisonData(t.facts as Facts, t.distances, t.similarity, t.statistics);
};

const open: (() => void)[] = [];

function show(model: FakeModel): HTMLElement {
  const el = document.createElement("div");
  document.body.append(el);
  open.push(widget.render({ model, el } as never) as () => void);
  return el;
}

const text = (el: Element, selector: string) => el.querySelector(selector)?.textContent ?? "";
const settle = () => vi.advanceTimersByTimeAsync(60);
const region = (el: Element, name: string) => el.querySelector<HTMLElement>(`[data-region=${name}]`)!;

function press(target: Element, key: string): KeyboardEvent {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, composed: true, cancelable: true });
  target.dispatchEvent(event);
  return event;
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  for (const dispose of open.splice(0)) dispose();
  document.body.replaceChildren();
  page.width = 1084;
  vi.useRealTimers();
});

/** Both replays of a stored comparison's chosen pair. */
function replays(name: string): [Replay, Replay] {
  const { state, embedded_data } = all[name]!;
  const s = state as unknown as Record<string, number | null>;
  const sides = state.facts.sides.length;
  const left = `0:${s.selected_layer},${s.selected_head}`;
  const right = `${sides - 1}:${s.other_layer ?? s.selected_layer},${s.other_head ?? s.selected_head}`;
  return [left, right].map((key) => {
    const facts = state.embedded[key] as unknown as { buffers: number[] };
    return new Replay(
      facts as never,
      facts.buffers.map((i) => view(embedded_data[i]!)),
    );
  }) as [Replay, Replay];
}

describe("a pair of heads", () => {
  test.each(["quant types", "heads", "layers", "sinks", "prefix"])(
    "%s: distances are the package's own",
    async (name) => {
      vi.useRealTimers();
      const { rows, state } = all[name]!;
      const [left, right] = replays(name);
      const result = (await computePair(left, right, state.facts, () => true))!;
      rows.js.forEach((want, i) => {
        if (want === null) expect(result.js[i]).toBeNaN();
        else expect(Math.abs(result.js[i]! - want)).toBeLessThan(1e-5);
        if (rows.tv[i] === null) expect(result.tv[i]).toBeNaN();
        else expect(Math.abs(result.tv[i]! - rows.tv[i]!)).toBeLessThan(1e-5);
      });
      expect(Math.abs(result.meanJs - rows.mean_js)).toBeLessThan(1e-5);
      expect(Math.abs(result.meanTv - rows.mean_tv)).toBeLessThan(1e-5);
    },
  );

  test("the difference is right minus left, masked only where both are", async () => {
    vi.useRealTimers();
    const [left, right] = replays("quant types");
    const result = (await computePair(left, right, all["quant types"]!.state.facts, () => true))!;
    const { matrix } = result.difference!;
    expect(matrix.data[5 * matrix.keys + 3]).toBeCloseTo(
      right.value("softmax", 5, 3) - left.value("softmax", 5, 3),
      6,
    );
    expect(matrix.data[3 * matrix.keys + 5]).toBeNaN();
    const [q, k] = result.peak;
    expect(Math.abs(matrix.data[q * matrix.keys + k]!)).toBeCloseTo(result.mostInner, 6);
  });

  test("the distance of rows is 0 for the same, 1 for nothing in common, and needs a choice", () => {
    const line = (...w: number[]) => Float32Array.from(w);
    expect(distance(line(0.5, 0.5), line(0.5, 0.5), false)).toEqual({ js: 0, tv: 0, choice: true });
    const apart = distance(line(1, 0), line(0, 1), false)!;
    expect(apart.js).toBeCloseTo(1, 6);
    expect(apart.tv).toBe(1);
    expect(distance(line(1, Number.NaN), line(1, Number.NaN), false)!.choice).toBe(false);
    expect(distance(line(Number.NaN), line(1), false)).toBeNull();
    expect(distance(line(0.2, 0.2), line(0.2, 0.2), true)!.js).toBe(0);
  });

  test("more tokens than pixels share cells, each its greatest, the first key alone", async () => {
    vi.useRealTimers();
    const n = 1300;
    const row = (i: number) => {
      const w = new Float32Array(n).fill(Number.NaN);
      w.fill(0, 0, i + 1);
      w[0] = 0.25;
      w[i] = i === 0 ? 1 : 0.75;
      return w;
    };
    const fake = { rows: n, keys: n, facts: { sink: null }, row } as unknown as Replay;
    const result = (await computePair(fake, fake, { rows: n, keys: n }, () => true))!;
    const { matrix, covers } = result.left;
    expect([matrix.rows, matrix.keys, covers.sink]).toEqual([512, 512, true]);
    expect(matrix.data[300 * 512]).toBe(0.25);
    expect(Math.max(...matrix.data.subarray(300 * 512 + 1, 301 * 512).filter((v) => !Number.isNaN(v)))).toBe(
      0.75,
    );
    expect(result.meanTv).toBe(0);
  });

  test("what nobody waits for is given up", async () => {
    vi.useRealTimers();
    const [left, right] = replays("quant types");
    const slow = {
      ...left,
      rows: left.rows,
      keys: left.keys,
      facts: left.facts,
      row: (i: number) => {
        const until = performance.now() + 12;
        while (performance.now() < until);
        return left.row(i);
      },
    } as unknown as Replay;
    expect(await computePair(slow, right, all["quant types"]!.state.facts, () => false)).toBeNull();
  });
});

describe("the map", () => {
  test("two traces: layers by heads, both measures, the list highest first", () => {
    const data = dataOf("quant types");
    const now = { left: { layer: 0, head: 0 }, right: { layer: 0, head: 0 } };
    const js = data.map("jensen-shannon", now.left, now.right);
    expect([js.rows.length, js.columns.length]).toEqual([8, 4]);
    expect(js.most).toBe(roundUp(Math.max(...js.values)));
    expect(data.map("total-variation", now.left, now.right).values[5]).toBeGreaterThan(js.values[5]!);
    const ranked = data.ranked(js, now);
    expect(ranked.length).toBe(32);
    expect(ranked.map((e) => e.value)).toEqual([...js.values].sort((a, b) => b - a));
    expect(data.placeOf(ranked[0]!.pair)).toEqual([ranked[0]!.pair.left.head, ranked[0]!.pair.left.layer]);
  });

  test("one trace: overlap with the left head, which is not its own neighbour", () => {
    const data = dataOf("heads");
    const left = { layer: 2, head: 1 };
    const map = data.map("jensen-shannon", left, left);
    expect(map.alike).toBe(true);
    expect(map.values[1 * 4 + 2]).toBe(1);
    expect(data.ranked(map, { left, right: left }).length).toBe(31);
    expect([...data.facts.order].sort((a, b) => a - b)).toEqual(Array.from({ length: 32 }, (_, i) => i));
  });

  test("two layers: every head with every head", () => {
    const data = dataOf("layers");
    const now = { left: { layer: 1, head: 0 }, right: { layer: 3, head: 0 } };
    expect(data.pairAt(2, 5, now)).toEqual({ left: { layer: 1, head: 2 }, right: { layer: 3, head: 5 } });
    expect(data.map("jensen-shannon", now.left, now.right).values.length).toBe(64);
  });
});

describe("HeadComparison", () => {
  test("says what is compared, the three numbers of a cell, and the distances", async () => {
    const el = show(new FakeModel(traits("quant types")));
    await settle();
    expect(text(el, "h2")).toMatch(/^Head comparisonllama F16 against llama-q4-0 Q4_0 · \d+ tokens$/);
    expect(el.querySelectorAll(".lt-provenance").length).toBe(2);
    expect(text(el, ".lt-provenance")).toContain("not live");
    const { mean_js } = all["quant types"]!.rows;
    expect(text(el, ".lt-sentence")).toMatch(/looks at.*A0?\.?\d.*B.*B − A[−+]/);
    expect(text(el, ".lt-sentence")).toContain(`whole head: JS ${mean_js.toFixed(3)} bits`);
    expect(el.querySelectorAll(".lt-plate:not([hidden])").length).toBe(3);
    expect(el.querySelectorAll(".lt-rank").length).toBe(8);
    expect(el.querySelectorAll(".lt-stats-table tbody tr").length).toBe(9);
  });

  test("a click in the list chooses a pair, in both traits of both sides", async () => {
    const model = new FakeModel(traits("quant types"));
    const el = show(model);
    await settle();
    el.querySelectorAll<HTMLElement>(".lt-rank")[2]!.click();
    await settle();
    expect(model.get("other_layer")).toBeNull();
    expect(el.querySelectorAll(".lt-rank")[2]!.getAttribute("aria-selected")).toBe("true");
    expect(text(el, ".lt-plate h4")).toContain(
      `L${model.get("selected_layer")} H${model.get("selected_head")}`,
    );
  });

  test("keys step the map, Enter compares, and the notebook hears nothing", async () => {
    const model = new FakeModel(traits("quant types"));
    const el = show(model);
    await settle();
    const map = region(el, "map");
    const notebook = vi.fn();
    document.addEventListener("keydown", notebook, true);
    map.focus();
    press(map, "Home");
    for (const key of ["ArrowRight", "ArrowRight", "Enter"])
      expect(press(map, key).defaultPrevented).toBe(true);
    press(map, "b");
    document.removeEventListener("keydown", notebook, true);
    expect(model.get("selected_layer")).toBe(2);
    expect(notebook).toHaveBeenCalledTimes(1);
  });

  test("keys step the crosshair through all three, Esc lets the cell go", async () => {
    const model = new FakeModel(traits("quant types", { selected_tokens: [6, 2] }));
    const el = show(model);
    await settle();
    const plates = region(el, "plates");
    plates.focus();
    press(plates, "ArrowDown");
    expect(model.get("selected_tokens")).toEqual([7, 2]);
    await settle();
    expect(plates.getAttribute("aria-label")).toMatch(/left .*, right .*, difference/);
    press(plates, "Escape");
    expect(model.get("selected_tokens")).toEqual([]);
  });

  test("the text chooses a query", async () => {
    const model = new FakeModel(traits("quant types"));
    const el = show(model);
    await settle();
    el.querySelectorAll<HTMLElement>(".lt-word")[4]!.click();
    expect(model.get("selected_tokens")).toEqual([4]);
  });

  test("the other distance", async () => {
    const model = new FakeModel(traits("quant types"));
    const el = show(model);
    await settle();
    const first = text(el, ".lt-rank b");
    [...el.querySelectorAll<HTMLElement>("[role=radio]")]
      .find((b) => b.textContent === "Total variation")!
      .click();
    await settle();
    expect(model.get("distance")).toBe("total-variation");
    expect(Number(text(el, ".lt-rank b"))).toBeGreaterThan(Number(first));
  });

  test("one trace: the clustered matrix chooses two heads, and they can be swapped", async () => {
    const model = new FakeModel(traits("heads"));
    const el = show(model);
    await settle();
    const square = region(el, "clusters");
    square.focus();
    press(square, "Home");
    press(square, "Enter");
    const { order } = all.heads!.state.facts;
    const owner = (at: number) => [Math.floor(order[at]! / 8), order[at]! % 8];
    await settle();
    expect([model.get("other_layer"), model.get("other_head")]).toEqual(owner(0));
    const before = [model.get("selected_layer"), model.get("other_layer")];
    [...el.querySelectorAll("button")].find((b) => b.textContent === "Swap A and B")!.click();
    expect([model.get("other_layer"), model.get("selected_layer")]).toEqual(before);
  });

  test("two layers can be exchanged for others where a kernel is there", async () => {
    const model = new FakeModel(live("layers"));
    const el = show(model);
    model.receive({ type: "error", id: "x", message: "" });
    await settle();
    const [a, b] = el.querySelectorAll<HTMLSelectElement>(".lt-layer");
    expect([a!.value, b!.value]).toEqual(["1", "3"]);
    a!.value = "0";
    a!.dispatchEvent(new Event("change"));
    expect(model.get("selected_layer")).toBe(0);
    await settle();
    expect(model.sent.at(-1)).toMatchObject({ type: "head", side: 0, layer: 0 });
  });

  test("what is not embedded is asked for, and without a kernel it says so", async () => {
    const model = new FakeModel({ ...live("quant types"), embedded: {} });
    const el = show(model);
    await settle();
    expect(model.sent.map((m) => [m.type, m.side])).toEqual([
      ["head", 0],
      ["head", 1],
    ]);
    const saved = show(new FakeModel({ ...traits("quant types"), embedded: {} }));
    await settle();
    expect(text(saved, ".lt-pair .lt-notice")).toContain("need a kernel");
    expect(saved.querySelectorAll(".lt-rank").length).toBe(8);
    expect(el.querySelector<HTMLElement>(".lt-plates")!.hidden).toBe(true);
  });

  test("tokens that do not go together are named, and the rest is shown", async () => {
    const prefix = show(new FakeModel(traits("prefix")));
    const nothing = show(new FakeModel(traits("nothing")));
    await settle();
    expect(text(prefix, ".lt-notice")).toContain("are compared, the rest is not");
    expect(text(prefix, ".lt-ranking h4")).toContain("Nothing changed");
    expect(text(nothing, ".lt-notice")).toContain("side by side");
    expect(nothing.querySelectorAll(".lt-plate:not([hidden])").length).toBe(2);
    expect(text(nothing, ".lt-map-box")).toContain("not comparable");
    expect(nothing.querySelectorAll(".lt-stats-table tbody tr").length).toBe(9);
  });

  test("a linked widget that frees its head leaves this one's where it was", async () => {
    const model = new FakeModel(traits("quant types"));
    const el = show(model);
    await settle();
    const before = text(el, ".lt-plate h4");
    model.set("selected_layer", null);
    model.set("selected_head", null);
    await settle();
    expect(text(el, ".lt-plate h4")).toBe(before);
  });

  test("narrow: one column, fewer statistics; hidden at first: drawn when shown", async () => {
    page.width = 0;
    const el = show(new FakeModel(traits("quant types")));
    await settle();
    expect(text(el, "h2")).toBe("");
    resize(400);
    await settle();
    expect(el.firstElementChild!.classList.contains("lt-narrow")).toBe(true);
    expect(el.querySelector(".lt-plates")!.classList.contains("lt-stacked")).toBe(true);
    expect(el.querySelectorAll(".lt-stats-table tbody tr").length).toBe(5);
  });

  test("texts are only ever texts", async () => {
    const facts = structuredClone(all["quant types"]!.state.facts) as unknown as {
      sides: Record<string, unknown>[];
    };
    const evil = "<img src=x onerror=alert(1)>";
    for (const side of facts.sides) {
      side.label = evil;
      side.tokens = (side.tokens as string[]).map(() => evil);
      side.query_tokens = side.tokens;
    }
    const el = show(new FakeModel(traits("quant types", { facts })));
    await settle();
    expect(el.querySelector("img")).toBeNull();
    expect(text(el, ".lt-sentence")).toContain(evil);
  });

  test("leaves nothing behind", async () => {
    const counts = { added: 0, removed: 0 };
    const spies = [window, document].flatMap((t) => [
      vi.spyOn(t, "addEventListener").mockImplementation(() => void counts.added++),
      vi.spyOn(t, "removeEventListener").mockImplementation(() => void counts.removed++),
    ]);
    const model = new FakeModel({ ...live("quant types"), embedded: {} });
    const before = observers.size;
    const el = document.createElement("div");
    document.body.append(el);
    const dispose = widget.render({ model, el } as never) as () => void;
    await settle();
    dispose();
    for (const s of spies) s.mockRestore();
    expect(counts.added).toBeGreaterThan(2);
    expect(counts.removed).toBe(counts.added);
    expect(model.listening).toBe(0);
    expect(observers.size).toBe(before);
    expect(el.childNodes.length).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});
