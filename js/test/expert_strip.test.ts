// ExpertStrip: its data, its layout, and the widget as a notebook runs it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { bits, type Facts, StripData } from "../src/expert_strip/data";
import { columnAt, hit, layoutStrip } from "../src/expert_strip/layout";
import { drawnRow, sourceRows } from "../src/expert_strip/paint";
import { layoutTable, tableHit, windowAt } from "../src/expert_strip/table";
import widget from "../src/expert_strip/widget";
import { entropyWords, layerWords, loadWords, subtitle } from "../src/expert_strip/words";
import { FakeModel } from "./fixture";
import { observers, page, resize } from "./page";

interface Stored {
  facts: Facts;
  embedded: number[];
  overview: string;
  measures: string;
  loads: string;
  embedded_ids: string;
  embedded_weights: string;
  choices: [number, number, number, number][];
  tokens_of: [number, number, number][];
}

const stored = JSON.parse(readFileSync(join(import.meta.dirname, "data", "experts.json"), "utf8")) as Stored;
const view = (text: string) => {
  const b = new Uint8Array(Buffer.from(text, "base64"));
  return new DataView(b.buffer, b.byteOffset, b.byteLength);
};
const { facts } = stored;
const last = facts.tokens.length - 1;

function stripData(changes: Partial<Facts> = {}, embedded = true): StripData {
  const data = StripData.from(
    { ...facts, ...changes },
    view(stored.overview),
    view(stored.measures),
    view(stored.loads),
  );
  if (embedded) data.putAll(stored.embedded, view(stored.embedded_ids), view(stored.embedded_weights));
  return data;
}

/** Many layers, experts and tokens; nothing is chosen. */
function large(layers: number, experts: number, tokens: number, rows: number): StripData {
  const many: Facts = {
    ...facts,
    n_experts: experts,
    rows,
    tokens: Array.from({ length: tokens }, (_, i) => `t${i}`),
    layers: Array.from({ length: layers }, (_, layer) => ({ layer, used: 2, computed: null })),
  };
  const empty = (n: number) => new Uint8Array(n);
  return StripData.from(
    many,
    empty(layers * rows * experts),
    empty(8 * layers * rows),
    empty(8 * layers * experts),
  );
}

describe("data", () => {
  test("a token's experts are those that Python says, strongest first", () => {
    const data = stripData();
    for (let token = 0; token < 8; token++) {
      const want = stored.choices.filter((c) => c[0] === token);
      const got = data.choices(1, token)!;
      expect(got.map((c) => c.expert)).toEqual(want.map((c) => c[1]));
      got.forEach((c, i) => {
        expect(c.weight).toBeCloseTo(want[i]![2], 6);
        expect(c.share).toBeCloseTo(want[i]![3], 6);
      });
    }
  });

  test("what was not computed has no experts, what is not here is not known", () => {
    const data = stripData();
    expect(data.choices(2, 3)).toEqual([]);
    expect(data.computed(2, 3)).toBe(false);
    expect(data.choices(2, last)!.length).toBe(2);
    const bare = stripData({}, false);
    expect(bare.choices(1, 6)).toBeNull();
    expect(bare.hasToken(6)).toBe(false);
    bare.put(1, view("AAA="), view("AAAA")); // of a wrong length
    expect(bare.isExact(1)).toBe(false);
  });

  test("one token's answer serves all layers", () => {
    const bare = stripData({}, false);
    const ids = new Uint16Array([1, 2, 3, 4, 65535, 65535]);
    bare.putToken(6, ids, new Float32Array([0.75, 0.25, 1, 1, Number.NaN, Number.NaN]));
    expect(bare.choices(0, 6)).toEqual([
      { expert: 1, weight: 0.75, share: 0.75 },
      { expert: 2, weight: 0.25, share: 0.25 },
    ]);
    expect(bare.choices(1, 6)![0]).toEqual({ expert: 3, weight: 1, share: 0.5 });
    expect(bare.choices(2, 6)).toEqual([]);
    expect(bare.hasToken(6)).toBe(true);
  });

  test("counts are whole numbers of tokens", () => {
    const data = stripData();
    for (const [layer, expert, tokens] of stored.tokens_of) expect(data.count(layer, expert)).toBe(tokens);
  });

  test("entropy in bits", () => {
    expect(bits([0.5, 0.5])).toBe(1);
    expect(bits([1, 0])).toBe(0);
    expect(bits([Number.NaN, 1])).toBeNaN();
    expect(entropyWords(0.8, 2)).toBe("0.80 of 1 bit");
    expect(entropyWords(2.5, 6)).toBe("2.50 of 2.58 bits");
    expect(entropyWords(null, 8)).toBe("–");
  });

  test("words", () => {
    const data = stripData();
    expect(subtitle(data)).toBe(`3 layers × 8 experts, 2 per token · ${facts.tokens.length} tokens`);
    expect(loadWords(data, 1, 5)).toMatch(
      /^\d+ of \d+ tokens · load 0\.\d{3} · by weight 0\.\d{3} · even 0\.125$/,
    );
    expect(layerWords(data, facts.layers[0]!)).toMatch(/^most work E\d 0\.\d{3} · least E\d/);
    expect(layerWords(data, facts.layers[2]!)).toMatch(/6 experts without a token$/);
    expect(layerWords(data, { layer: 9, used: 0 })).toBe("this layer has no experts");
  });
});

describe("layout", () => {
  test("never is wider than its room, from 360 to 1600 px, and every cell is hit where it is drawn", () => {
    for (const [layers, experts] of [
      [3, 8],
      [24, 64],
      [48, 128],
      [61, 256],
      [420, 2],
    ] as const)
      for (const width of [360, 600, 1084, 1600]) {
        const data = large(layers, experts, 700, 350);
        const layout = layoutStrip(data, width);
        expect(layout.width).toBeLessThanOrEqual(width);
        expect(layout.height).toBeLessThan(layers > 100 ? 1500 : 700);
        for (const index of [0, 1, layers - 1]) {
          const { x, band } = columnAt(layout, index);
          const at = hit(layout, experts, x + 0.5, band.top + 0.5);
          expect(at).toMatchObject({ index, where: "cells", row: 0 });
          expect(hit(layout, experts, x + 0.01, band.load - 5)).toMatchObject({
            index,
            where: "load",
            expert: 0,
          });
          expect(hit(layout, experts, x + 0.5, band.names + 4)).toMatchObject({ index, where: "name" });
        }
        expect(hit(layout, experts, 10, 40)).toBeNull();
      }
  });

  test("every token stands in exactly one drawn row", () => {
    const data = large(4, 8, 3001, 512);
    const layout = layoutStrip(data, 1084);
    for (let token = 0; token < 3001; token++) {
      const [first, stop] = sourceRows(data, layout, drawnRow(data, layout, token));
      expect(data.span(first)[0]).toBeLessThanOrEqual(token);
      expect(data.span(stop - 1)[1]).toBeGreaterThan(token);
    }
  });

  test("the table shows a window around the token", () => {
    expect(windowAt(24, 20)).toEqual([0, 24]);
    expect(windowAt(3000, null)).toEqual([0, 24]);
    expect(windowAt(3000, 100)).toEqual([88, 112]);
    expect(windowAt(3000, 2999)).toEqual([2976, 3000]);
    const table = layoutTable(large(4, 128, 3000, 350), 100, 600);
    expect(table.width).toBeLessThanOrEqual(602);
    expect(tableHit(table, 128, table.left + 1, table.top + 1)).toEqual({ token: 88, expert: 0 });
    expect(tableHit(table, 128, table.left + 1, table.base - 5)).toEqual({ token: null, expert: 0 });
    expect(tableHit(table, 128, table.left - 5, table.top + 1)).toBeNull();
  });
});

const open: (() => void)[] = [];

function makeModel(state: Record<string, unknown> = {}): FakeModel {
  const buffers = ["overview", "measures", "loads", "embedded_ids", "embedded_weights"] as const;
  const traits = Object.fromEntries(buffers.map((name) => [name, view(stored[name])]));
  const rest = { selected_expert: null, measure: "experts", embedded: stored.embedded };
  return new FakeModel({ facts, ...traits, ...rest, ...state });
}

function show(model: FakeModel): HTMLElement {
  const el = document.createElement("div");
  document.body.append(el);
  open.push(widget.render({ model, el } as never) as () => void);
  return el;
}

const text = (el: Element, selector: string) => el.querySelector(selector)?.textContent ?? "";
const settle = () => vi.advanceTimersByTimeAsync(120);
const press = (target: Element, key: string, more: KeyboardEventInit = {}) => {
  const event = new KeyboardEvent("keydown", {
    key,
    bubbles: true,
    composed: true,
    cancelable: true,
    ...more,
  });
  target.dispatchEvent(event);
  return event;
};

describe("ExpertStrip", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    for (const dispose of open.splice(0)) dispose();
    document.body.replaceChildren();
    page.width = 1084;
    vi.useRealTimers();
  });

  test("says what it shows and where it comes from", () => {
    const el = show(makeModel());
    expect(text(el, "h2")).toContain("Experts3 layers × 8 experts, 2 per token");
    expect(text(el, ".lt-provenance")).toBe(facts.provenance);
    expect(el.querySelector(".lt-overview canvas")?.getAttribute("aria-label")).toContain(
      "3 layers × 8 experts",
    );
  });

  test("a lock from Python reads the token and marks its strongest expert", async () => {
    const model = makeModel();
    const el = show(model);
    model.set("selected_layer", 1);
    model.set("selected_tokens", [6, 2]);
    await settle();
    const [first, second] = stripData().choices(1, 6)!;
    expect(text(el, ".lt-sentence")).toContain(`goes toE${first!.expert}${first!.weight.toFixed(3)}`);
    expect(text(el, ".lt-sentence")).toContain(`then E${second!.expert} ${second!.weight.toFixed(3)}`);
    expect(text(el, ".lt-detail")).toContain(`Where E${first!.expert} works`);
    expect(el.querySelectorAll(".lt-es-word").length).toBe(facts.tokens.length);
    expect(el.querySelectorAll(".lt-es-word.lt-some").length).toBe(stripData().count(1, first!.expert));
    expect(model.sent).toEqual([]);
  });

  test("keys step, lock, isolate and free, and reach no notebook", async () => {
    const model = makeModel();
    const el = show(model);
    const notebook = vi.fn();
    document.addEventListener("keydown", notebook, true);
    const grid = el.querySelector<HTMLElement>("[data-region=overview]")!;
    grid.focus();
    for (const key of ["ArrowRight", "ArrowDown", "ArrowDown", "Enter"])
      expect(press(grid, key).defaultPrevented).toBe(true);
    expect([model.get("selected_layer"), model.get("selected_tokens")]).toEqual([1, [2]]);
    await settle();
    expect(grid.querySelector("[aria-selected=true]")?.textContent).toContain("layer 1: E");
    press(grid, "Enter", { shiftKey: true });
    for (let i = 0; i < 3; i++) press(grid, "Escape");
    expect(model.get("selected_layer")).toBeNull();
    expect(press(grid, "a").defaultPrevented).toBe(false);
    document.removeEventListener("keydown", notebook, true);
    expect(notebook).toHaveBeenCalledTimes(1);
  });

  test("in the open layer keys choose a token and an expert", async () => {
    const model = makeModel({ selected_layer: 1, selected_tokens: [6], selected_expert: 2 });
    const el = show(model);
    const table = el.querySelector<HTMLElement>("[data-region=table]")!;
    table.focus();
    for (const key of ["ArrowDown", "ArrowRight", "Enter"]) {
      expect(press(table, key).defaultPrevented).toBe(true);
      await settle();
    }
    expect([model.get("selected_tokens"), model.get("selected_expert")]).toEqual([[7], 3]);
    expect(table.querySelector("[aria-selected=true]")?.textContent).toMatch(/, expert 3: /);
    press(table, "End");
    press(table, "Enter");
    await settle();
    expect(text(el, ".lt-detail")).toContain("Where E7 works");
  });

  test("a layer that is not here is asked for, and a dead kernel is said", async () => {
    const model = makeModel({ embedded: [], selected_layer: 1, selected_tokens: [6] });
    const el = show(model);
    await settle();
    expect(model.sent).toMatchObject([
      { type: "token", token: 6 },
      { type: "layer", layer: 1 },
    ]);
    expect(text(el, ".lt-notice")).toContain("Reading this layer");
    const size = facts.tokens.length * 2;
    const [ids, weights] = [view(stored.embedded_ids), view(stored.embedded_weights)];
    const part = (v: DataView, n: number) => new DataView(v.buffer, v.byteOffset + size * n, size * n);
    model.receive({ ...model.sent[1] }, part(ids, 2), part(weights, 4));
    await settle();
    expect(el.querySelector<HTMLElement>(".lt-notice")!.hidden).toBe(true);
    expect(text(el, ".lt-sentence")).toContain("goes to");
    model.set("selected_layer", 0);
    await vi.advanceTimersByTimeAsync(4000);
    expect(text(el, ".lt-notice")).toContain("need a kernel");
    expect(text(el, ".lt-provenance")).toContain("not live");
  });

  test("a saved strip asks nobody", async () => {
    const model = makeModel({ facts: { ...facts, live: false }, embedded: [], selected_layer: 1 });
    const el = show(model);
    await settle();
    expect(model.sent).toEqual([]);
    expect(text(el, ".lt-notice")).toContain("need a kernel");
  });

  test("a model without experts is one sentence", () => {
    const none = { ...facts, layers: [], n_experts: 0, used: 0, message: "This model has no experts: so." };
    const el = show(makeModel({ facts: none, embedded: [] }));
    expect(text(el, ".lt-empty")).toBe("This model has no experts: so.");
    expect(el.querySelector<HTMLElement>(".lt-overview")!.hidden).toBe(true);
  });

  test("a layer without experts and one of few tokens are told apart", async () => {
    const layers = [
      { layer: 0, used: 0 },
      ...facts.layers.slice(0, 2).map((l) => ({ ...l, layer: l.layer + 1 })),
    ];
    const model = makeModel({
      facts: { ...facts, layers },
      embedded: [],
      selected_layer: 0,
      selected_tokens: [3],
    });
    const el = show(model);
    await settle();
    expect(text(el, ".lt-sentence")).toContain("same MLP");
    const whole = makeModel({ selected_layer: 2, selected_tokens: [3] });
    expect(text(show(whole), ".lt-sentence")).toContain("was not computed in this layer");
  });

  test("text from a model is only ever text", async () => {
    const tokens = facts.tokens.map((t, i) => (i === 3 ? "<img src=x onerror=alert(1)>" : t));
    const model = makeModel({ facts: { ...facts, tokens }, selected_layer: 1, selected_tokens: [3] });
    const el = show(model);
    await settle();
    expect(el.querySelector("img")).toBeNull();
    expect(text(el, ".lt-es-text")).toContain("<img src=x");
  });

  test("controls set the measure; every width draws", async () => {
    const model = makeModel({ selected_layer: 1, selected_tokens: [6] });
    const el = show(model);
    el.querySelectorAll<HTMLElement>("[role=radio]")[2]!.click();
    expect(model.get("measure")).toBe("evenness");
    await settle();
    expect(text(el, ".lt-legend")).toContain("1 = its experts count alike");
    for (const width of [420, 700, 1600]) {
      resize(width);
      await settle();
      expect(el.querySelector<HTMLElement>(".lt-root")!.classList.contains("lt-narrow")).toBe(width < 600);
    }
  });

  test("cleans up after itself", async () => {
    const model = makeModel({ selected_layer: 1 });
    const watching = observers.size;
    const el = show(model);
    await settle();
    for (const dispose of open.splice(0)) dispose();
    expect(model.listening).toBe(0);
    expect(observers.size).toBe(watching);
    expect(el.children.length).toBe(0);
    model.set("selected_layer", 0);
    await settle();
  });
});
