// ArchitectureTree: its data, its places, and the widget as a notebook runs it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Overlay, shadesOf } from "../src/architecture_tree/colours";
import { deltaOverlay } from "../src/architecture_tree/compare";
import { type Facts, KINDS, TreeData } from "../src/architecture_tree/data";
import { GraphData, type GraphFacts, layoutPlace } from "../src/architecture_tree/graph_data";
import { boxOf, columnsOf, layoutMap, rasterize } from "../src/architecture_tree/layout";
import { Opened, rowsOf } from "../src/architecture_tree/rows";
import widget from "../src/architecture_tree/widget";
import { bytes } from "../src/shared/format";
import { applyTheme } from "../src/shared/theme";
import { FakeModel } from "./fixture";
import { observers, page, resize } from "./page";

type Stored = { facts: Facts; graph: GraphFacts; ids: string[] } & Record<string, string>;
const stored = JSON.parse(
  readFileSync(join(import.meta.dirname, "data", "architecture.json"), "utf8"),
) as Record<"pair" | "moe", Stored>;

function view(text: string): DataView {
  const own = new Uint8Array(Buffer.from(text, "base64"));
  return new DataView(own.buffer, own.byteOffset, own.byteLength);
}

const BINARY = [
  ...["nodes", "leaves", "nodes_b", "leaves_b", "pairs", "overlay_values"],
  ...["graph_nodes", "graph_seconds", "graph_edges", "graph_weights", "errors"],
];

function traits(name: "pair" | "moe", more: Record<string, unknown> = {}): Record<string, unknown> {
  const own = stored[name];
  const binary = Object.fromEntries(BINARY.map((key) => [key, view(own[key]!)]));
  const state = { selected_node: "", overlay: "type", search: "" };
  return { facts: own.facts, graph: own.graph, ...binary, ...state, ...more };
}

function tree(name: "pair" | "moe", side: 0 | 1 = 0): TreeData {
  const own = stored[name];
  const end = side === 0 ? "" : "_b";
  return new TreeData(own.facts, side, view(own[`nodes${end}`]!), view(own[`leaves${end}`]!));
}

/** A model of many layers, each an attention block of 4 tensors and experts of 3 tensors. */
function large(layers: number, experts: number): TreeData {
  const nodes: number[][] = [[-1, 1, 0, -1, -1, 0]];
  const leaves: number[][] = [];
  const strings = ["", "m", "layers", "layer", "attention", "experts", "expert", "t"];
  const add = (parent: number, name: number, kind: string, layer: number) =>
    nodes.push([parent, name, KINDS.indexOf(kind as never), layer, -1, 0]) - 1;
  const tensor = (parent: number, layer: number) =>
    leaves.push([add(parent, 7, "tensor", layer), 7, 0, 0, 4096, 0, 0]);
  const stack = add(0, 2, "stage", -1);
  for (let l = 0; l < layers; l++) {
    const layer = add(stack, 3, "layer", l);
    const attention = add(layer, 4, "block", l);
    for (let t = 0; t < 4; t++) tensor(attention, l);
    const block = add(layer, 5, "block", l);
    for (let e = 0; e < experts; e++) {
      const expert = add(block, 6, "expert", l);
      for (let t = 0; t < 3; t++) tensor(expert, l);
    }
  }
  const column = <T extends Int32Array | Float64Array>(
    rows: number[][],
    make: (n: number) => T,
    width: number,
  ) => {
    const out = make(rows.length * width);
    rows.forEach((row, i) => {
      row.forEach((v, c) => {
        out[c * rows.length + i] = v;
      });
    });
    return new DataView(out.buffer);
  };
  const facts = {
    ...stored.moe.facts,
    strings,
    shapes: [[32, 32]],
    types: [{ name: "F32", bits: 32, hue: 32, family: "plain", block: 1 }],
  } as Facts;
  return new TreeData(
    facts,
    0,
    column(nodes, (n) => new Int32Array(n), 6),
    column(leaves, (n) => new Float64Array(n), 7),
  );
}

describe("data", () => {
  test("ids are those of model.tree.nodes, and found again", () => {
    const data = tree("moe");
    const ids = Array.from({ length: data.count }, (_, i) => data.id(i));
    expect([...ids].sort()).toEqual([...stored.moe.ids].sort());
    for (const [i, id] of ids.entries()) expect(data.find(id)).toBe(i);
    expect(data.find("model/nothing")).toBe(-1);
    expect(data.find("")).toBe(-1);
  });

  test("a node's bytes are those of all below; bits are of tensors alone", () => {
    const data = tree("pair");
    const leaves = data.leafBytes.reduce((a, b) => a + b, 0);
    expect(data.bytes[0]).toBe(leaves);
    expect(data.tensorBytes[0]!).toBeLessThan(leaves);
    expect(data.bits(0)).toBeCloseTo((8 * data.tensorBytes[0]!) / data.weights[0]!, 10);
    const layer = data.place(1, null);
    expect(data.kindOf(layer)).toBe("layer");
    const [first, end] = data.leavesOf(layer);
    expect(data.leafBytes.slice(first, end).reduce((a, b) => a + b, 0)).toBe(data.bytes[layer]);
  });

  test("full names have the number of their layer", () => {
    const data = tree("pair");
    const [first] = data.leavesOf(data.place(1, null));
    expect(data.fullName(first)).toBe("blk.1.attn_norm.weight");
    expect(data.role(first)).toBe("blk.attn_norm.weight");
  });

  test("all words of a search must stand in name, type or shape", () => {
    const data = tree("pair");
    const names = (words: string) => [...data.search(words)!].map((leaf) => data.fullName(leaf));
    expect(names("blk.1 ffn").every((name) => name.startsWith("blk.1.ffn_"))).toBe(true);
    expect(names("Q8_0 ffn_down").length).toBe(
      stored.pair.facts.roles.find((r) => r.role === "ffn_down")!.count,
    );
    expect(names("nothing")).toEqual([]);
    expect(data.search("  ")).toBeNull();
  });
});

describe("places", () => {
  test("area is bytes, to the last", () => {
    for (const data of [tree("moe"), tree("pair"), tree("pair", 1), large(50, 6)]) {
      const own = columnsOf(data);
      const layout = layoutMap([own], 600, 330);
      for (let leaf = 0; leaf < data.leaves; leaf++) {
        const box = boxOf(data, own, layout, leaf, leaf + 1)!;
        expect(box.width * box.height).toBeCloseTo(data.leafBytes[leaf]! * layout.area, 6);
      }
    }
  });

  test("two files have the same columns and one scale", () => {
    const both = [tree("pair"), tree("pair", 1)];
    const own = both.map(columnsOf);
    const layout = layoutMap(own, 800, 140);
    expect(layout.columns.map((c) => c.key)).toEqual(own[0]!.map((c) => c.key));
    const area = both.map((data, i) => {
      const box = boxOf(data, own[i]!, layout, ...data.leavesOf(data.place(0, null)))!;
      return (box.width * box.height) / data.bytes[data.place(0, null)]!;
    });
    expect(area[0]).toBeCloseTo(area[1]!, 10);
  });

  test("a pixel shows the leaf at its middle: pixels are in proportion to bytes", () => {
    const data = tree("moe");
    const own = columnsOf(data);
    const layout = layoutMap([own], 600, 330);
    const { owner } = rasterize(data, own, layout, 1);
    const pixels = new Map<number, number>();
    for (const leaf of owner) pixels.set(leaf, (pixels.get(leaf) ?? 0) + 1);
    for (let leaf = 0; leaf < data.leaves; leaf++) {
      const exact = data.leafBytes[leaf]! * layout.area;
      if (exact > 2000) expect(pixels.get(leaf)! / exact).toBeCloseTo(1, 1);
    }
  });

  test("only what B has stands between the columns of A", () => {
    const column = (key: string, group: string, size: number) => ({
      ...{ key, label: key, node: 0, first: 0, end: 1 },
      ...{ bytes: size, group },
    });
    const a = [column("input", "input", 10), column("output", "output", 10)];
    const b = [column("input", "input", 10), column("vision", "vision", 20), column("output", "output", 5)];
    const layout = layoutMap([a, b], 400, 100);
    expect(layout.columns.map((c) => [c.key, c.width])).toEqual([
      ["input", 100],
      ["vision", 200],
      ["output", 100],
    ]);
  });
});

describe("rows", () => {
  const names = (data: TreeData, opened: Opened, chosen: number) =>
    rowsOf(data, opened, chosen).rows.map((r) => [r.level, data.shortName(r.first), r.count]);

  test("layers that are built alike are one row, a chosen one stands out of it", () => {
    const data = large(30, 4);
    const opened = new Opened();
    const stack = data.children(0)[0]!;
    opened.set(stack, null, true);
    expect(rowsOf(data, opened, -1).rows.map((r) => r.count)).toEqual([1, 30]);
    const layer = data.place(17, null);
    opened.reveal(data, layer);
    expect(rowsOf(data, opened, layer).rows.map((r) => r.count)).toEqual([1, 17, 1, 12]);
    opened.set(layer, null, true);
    expect(names(data, opened, layer).slice(1, 5)).toEqual([
      [2, "layer", 17],
      [2, "layer", 1],
      [3, "attention", 1],
      [3, "experts", 1],
    ]);
  });

  test("an open run shows its nodes one level deeper", () => {
    const data = large(5, 0);
    const opened = new Opened();
    const stack = data.children(0)[0]!;
    opened.set(stack, null, true);
    opened.set(-1, data.children(stack)[0]!, true);
    const { rows } = rowsOf(data, opened, -1);
    expect(rows.map((r) => r.level)).toEqual([1, 2, 3, 3, 3, 3, 3]);
    expect(rows.slice(2).map((r) => [r.place, r.siblings])).toEqual([1, 2, 3, 4, 5].map((n) => [n, 5]));
  });

  test("quant types do not part what is built alike, shapes do", () => {
    const data = tree("pair");
    const layers = data.children(data.parent[data.place(0, null)]!);
    expect(new Set(layers.map((l) => data.signature[l])).size).toBe(1);
    const blocks = data.children(layers[0]!);
    expect(new Set(blocks.map((b) => data.signature[b])).size).toBe(blocks.length);
  });

  test("a hundred thousand nodes are laid out, drawn and listed", () => {
    const data = large(1000, 24);
    expect(data.count).toBeGreaterThan(100_000);
    const own = columnsOf(data);
    rasterize(data, own, layoutMap([own], 600, 330), 1);
    const opened = new Opened();
    opened.set(data.children(0)[0]!, null, true);
    expect(rowsOf(data, opened, data.place(500, null)).rows.length).toBeGreaterThan(1);
  });
});

describe("colours", () => {
  const theme = applyTheme(document.createElement("div"), "light");
  const typed: Overlay = {
    ...{ name: "type", label: "", words: "", values: null, low: 0, high: 0 },
    scale: "type",
    write: String,
  };

  test("legacy types have a texture, and dimmed leaves are paler", () => {
    const data = tree("pair");
    const leaf = data.search("q8_0")![0]!;
    const kept = new Uint8Array(data.leaves);
    const [all, none] = [shadesOf(data, typed, theme, null), shadesOf(data, typed, theme, kept)];
    expect(all.texture[leaf]).toBe(1);
    expect(all.first[leaf]).not.toBe(all.second[leaf]);
    expect(none.first[leaf]).not.toBe(all.first[leaf]);
  });

  test("the difference is bits of B minus bits of A, symmetric about zero", () => {
    const [a, b] = [tree("pair"), tree("pair", 1)];
    const pairs = new Int32Array(view(stored.pair.pairs!).buffer);
    const own = deltaOverlay(a, b, pairs);
    const leaf = a.search("blk.0.ffn_down")![0]!;
    expect(own.values![leaf]).toBeCloseTo(4.5 - 8.5, 6);
    expect(own.low).toBe(-own.high);
    expect(own.values![a.search("output_norm")![0]!]).toBe(0);
  });
});

describe("operator graph", () => {
  const own = stored.moe;
  const graph = new GraphData(
    own.graph,
    ...(["graph_nodes", "graph_seconds", "graph_edges", "graph_weights"].map((k) => view(own[k]!)) as [
      DataView,
      DataView,
      DataView,
      DataView,
    ]),
  );

  test("places are layers, and what is before and after", () => {
    expect(graph.places.map((p) => graph.placeName(p))).toEqual([
      "input",
      "layer 0",
      "layer 1",
      "layer 2",
      "output",
    ]);
    expect(graph.places.reduce((n, p) => n + p.operations.length, 0)).toBe(graph.count);
  });

  test("an operation stands right of all it reads, and no two in one place", () => {
    for (const place of graph.places) {
      const boxes = layoutPlace(graph, place);
      const at = new Map(boxes.map((b) => [b.operation, b]));
      for (const box of boxes) for (const s of box.from) expect(at.get(s)!.column).toBeLessThan(box.column);
      expect(new Set(boxes.map((b) => `${b.column},${b.row}`)).size).toBe(boxes.length);
    }
  });

  test("what computes nothing is stepped over", () => {
    const boxes = layoutPlace(graph, graph.places[1]!);
    const names = boxes.map((b) => graph.operation(b.operation));
    expect(names).toContain("FLASH_ATTN_EXT");
    expect(names).not.toContain("RESHAPE");
    const flash = boxes.find((b) => graph.operation(b.operation) === "FLASH_ATTN_EXT")!;
    expect(flash.from.map((s) => graph.operation(s))).toContain("ROPE");
  });
});

describe("widget", () => {
  const open: (() => void)[] = [];
  const settle = () => vi.advanceTimersByTimeAsync(150);
  const text = (el: Element, selector: string) => el.querySelector(selector)?.textContent ?? "";
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

  function show(model: FakeModel): HTMLElement {
    const el = document.createElement("div");
    document.body.append(el);
    open.push(widget.render({ model, el } as never) as () => void);
    return el;
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

  test("says what the model is, and only rows in sight are elements", async () => {
    const el = show(new FakeModel(traits("moe")));
    await settle();
    expect(text(el, "h2")).toContain("qwen3moe F32 \u00b7 39 tensors");
    expect(text(el, ".lt-provenance")).toContain("read from the file header");
    const grid = el.querySelector(".lt-at-grid")!;
    expect(grid.getAttribute("role")).toBe("treegrid");
    expect(el.querySelectorAll(".lt-at-spacer .lt-at-row").length).toBeLessThan(40);
    expect(el.querySelector(".lt-at-row[aria-expanded=true] .lt-at-name")!.textContent).toContain("input");
  });

  test("the tree is walked, opened and chosen by keyboard, and Jupyter hears none of it", async () => {
    const model = new FakeModel(traits("moe"));
    const el = show(model);
    await settle();
    const grid = el.querySelector<HTMLElement>(".lt-at-grid")!;
    const notebook = vi.fn();
    document.addEventListener("keydown", notebook);
    grid.focus();
    for (let i = 0; i < 4; i++) expect(press(grid, "ArrowDown").defaultPrevented).toBe(true);
    expect(text(el, ".lt-at-focus .lt-at-name")).toContain("layers 0 \u2013 2");
    for (let i = 0; i < 4; i++) press(grid, "ArrowRight");
    press(grid, "Enter");
    document.removeEventListener("keydown", notebook);
    expect(model.get("selected_node")).toBe("model/layers/L0/attention");
    expect(model.get("selected_layer")).toBe(0);
    expect(notebook).not.toHaveBeenCalled();
    await settle();
    expect(el.querySelector(".lt-on .lt-at-name")!.textContent).toContain("attention");
    press(grid, "ArrowLeft");
    press(grid, "ArrowLeft");
    expect(text(el, ".lt-at-focus .lt-at-name")).toContain("layer 0");
    press(grid, "Escape");
    await settle();
    expect(model.get("selected_node")).toBe("");
  });

  test("a head that another widget chose is opened, and its node told back", async () => {
    const model = new FakeModel(traits("moe"));
    const el = show(model);
    await settle();
    model.state.selected_head = 3;
    model.set("selected_layer", 1);
    await settle();
    expect(model.get("selected_node")).toBe("model/layers/L1/attention/KV 1/H3");
    expect(text(el, ".lt-on .lt-at-name")).toContain("H3");
    const saves = model.saves;
    await settle();
    expect(model.saves).toBe(saves);
  });

  test("a search counts, steps with Enter, and is freed with Esc", async () => {
    const model = new FakeModel(traits("moe"));
    const el = show(model);
    await settle();
    press(el.querySelector(".lt-at-grid")!, "/");
    const input = el.querySelector<HTMLInputElement>(".lt-at-search input")!;
    expect(document.activeElement).toBe(input);
    input.value = "ffn_down_exps";
    input.dispatchEvent(new Event("input"));
    await settle();
    expect(text(el, ".lt-at-found")).toBe("3 found");
    press(input, "Enter");
    await settle();
    expect(text(el, ".lt-at-found")).toBe("1 of 3");
    expect(model.get("selected_node")).toBe("model/layers/L0/experts/ffn_down_exps.weight");
    press(input, "Enter", { shiftKey: true });
    await settle();
    expect(text(el, ".lt-at-found")).toBe("3 of 3");
    press(input, "Escape");
    await settle();
    expect(model.get("search")).toBe("");
  });

  test("values are asked for once wanted, and drawn when they come", async () => {
    const node = "model/layers/L0/attention/attn_q.weight";
    const model = new FakeModel(traits("moe", { selected_node: node, selected_layer: 0 }));
    const el = show(model);
    await settle();
    expect(model.sent).toEqual([]);
    el.querySelector<HTMLButtonElement>(".lt-at-values button")!.click();
    await settle();
    expect(model.sent).toMatchObject([{ type: "tensor", side: 0, name: "blk.0.attn_q.weight" }]);
    const counts = new Float64Array(64).fill(3);
    const edges = Float64Array.from({ length: 65 }, (_, i) => i / 32 - 1);
    const numbers = { count: 192, mean: 0.01, std: 0.5, zeros: 2, outliers: 0, not_finite: 0 };
    model.receive(
      { ...model.sent[0], type: "tensor", statistics: numbers },
      new DataView(counts.buffer),
      new DataView(edges.buffer),
    );
    await settle();
    expect(el.querySelectorAll(".lt-at-histogram rect").length).toBe(64);
    expect(text(el, ".lt-at-values p")).toContain("mean 0.01, standard deviation 0.5");
  });

  test("the operations of the chosen layer are drawn, a click chooses the weight", async () => {
    const model = new FakeModel(traits("moe", { selected_layer: 2, selected_node: "model/layers/L2" }));
    const el = show(model);
    await settle();
    expect(text(el, ".lt-at-graph h4")).toContain("Layer 2");
    const down = [...el.querySelectorAll(".lt-at-reads")].find((g) =>
      g.getAttribute("aria-label")!.startsWith("ffn_moe_down"),
    )!;
    down.dispatchEvent(new Event("click"));
    expect(model.get("selected_node")).toBe("model/layers/L2/experts/ffn_down_exps.weight");
  });

  test("without a graph there is a button that makes one", async () => {
    const model = new FakeModel(traits("pair", { graph: {} }));
    const el = show(model);
    await settle();
    [...el.querySelectorAll<HTMLButtonElement>("[role=radio]")].find((b) => b.textContent === "A")!.click();
    await settle();
    el.querySelector<HTMLButtonElement>(".lt-at-offer button")!.click();
    await settle();
    expect(model.sent).toMatchObject([{ type: "graph" }]);
    expect(text(el, ".lt-at-offer")).toContain("running a prompt");
    model.receive({ ...model.sent[0], type: "error", message: "no memory" });
    await settle();
    expect(text(el, ".lt-at-offer")).toContain("no memory");
  });

  test("memory is planned with what was typed, and shown with its commands", async () => {
    const model = new FakeModel(traits("moe"));
    const el = show(model);
    await settle();
    const [context, gpu] = [...el.querySelectorAll<HTMLInputElement>(".lt-at-wish input")];
    context!.value = "4096";
    gpu!.value = "8GB";
    press(gpu!, "Enter");
    await settle();
    expect(model.sent).toMatchObject([{ type: "fit", n_ctx: 4096, kv_type: "f16", gpu: "8GB" }]);
    model.set("plan", {
      ...{ n_ctx: 4096, kv_type: "f16", total: 3e8, gpu_bytes: 8e9, gpu_layers: 4, layers: 4 },
      owners: { weights: 1e8, kv: 1e8, recurrent: 0, compute: 99e6, output: 1e6 },
      contexts: [[4096, 3e8]],
      ...{ server: "llama-server -m x.gguf", modelfile: "FROM x.gguf" },
    });
    model.receive({ ...model.sent[0], type: "fit" });
    await settle();
    expect(text(el, ".lt-at-memory")).toContain(
      "300\u202fMB with 4\u202f096 tokens of context; all layers fit",
    );
    expect(el.querySelectorAll(".lt-at-owners i").length).toBe(4);
    expect(text(el, ".lt-at-command")).toBe("llama-server -m x.gguf");
  });

  test("two files: three maps, what changed by role, and the weights that differ most", async () => {
    const model = new FakeModel(traits("pair"));
    const el = show(model);
    await settle();
    expect(text(el, "h2")).toContain("llama-q8-0".slice(0, 5));
    expect(el.querySelectorAll(".lt-at-both .lt-at-map").length).toBe(3);
    const tables = [...el.querySelectorAll(".lt-at-roles table")];
    expect(tables.length).toBe(2);
    expect(tables[1]!.querySelector("tbody tr")!.textContent).toMatch(/Q8_0.*Q4_0.*8\.50 \u2192 4\.50/);
    expect(text(el, ".lt-at-both")).toContain("B \u2212 A");
    const button = [...el.querySelectorAll<HTMLButtonElement>("button")].find(
      (b) => b.textContent === "Show weight error",
    )!;
    button.click();
    await settle();
    expect(text(el, ".lt-at-both")).toContain("Weight error");
    expect(model.sent).toEqual([]);
  });

  test("narrow and wide, many views, and nothing stays behind", async () => {
    const models = [new FakeModel(traits("moe")), new FakeModel(traits("pair"))];
    const shown = models.map(show);
    await settle();
    resize(560);
    await settle();
    expect(shown[0]!.querySelector(".lt-root")!.className).toContain("lt-narrow");
    for (const dispose of open.splice(0)) dispose();
    expect(models.map((m) => m.listening)).toEqual([0, 0]);
    expect(observers.size).toBe(0);
    expect(shown.every((el) => el.childElementCount === 0)).toBe(true);
  });

  test("a saved page says so and asks for nothing", async () => {
    const facts = { ...stored.moe.facts, live: false };
    const model = new FakeModel({ ...traits("moe", { selected_layer: 0, graph: {} }), facts });
    const el = show(model);
    await settle();
    expect(text(el, ".lt-provenance")).toContain("not live");
    expect(text(el, ".lt-at-offer")).toContain("needs a kernel");
    expect([model.sent, model.pings]).toEqual([[], 0]);
  });
});

test("bytes have three figures", () => {
  const words = [0, 832, 2304, 652_000, 98_362_432, 999_499, 999_600, -7_100_000].map(bytes);
  expect(words.map((w) => w.replace("\u202f", " "))).toEqual([
    ...["0 B", "832 B", "2.3 kB", "652 kB", "98.4 MB", "999 kB", "1.0 MB"],
    "\u22127.1 MB",
  ]);
});
