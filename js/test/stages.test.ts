// The stages side by side, the two vectors of a cell, and sums over tokens and heads, on heads of all kinds.
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Cell } from "../src/attention_grid/cross";
import { diverge, roundUp, shrink, stageGeometry, symmetricLimit } from "../src/attention_grid/paint_stage";
import { compose, toSvg } from "../src/attention_grid/picture";
import { highest, top } from "../src/attention_grid/profile";
import { type HeadFacts, Replay } from "../src/attention_grid/replay";
import { constant, operation, signed, sinkShare, stageValue } from "../src/attention_grid/stage_words";
import { perRow, StagesView, strongest } from "../src/attention_grid/stages";
import { half, loudest, VectorsView } from "../src/attention_grid/vectors";
import { Cleanup } from "../src/shared/dom";
import { applyTheme } from "../src/shared/theme";
import { gridData, head, heads } from "./fixture";
import { page } from "./page";

const NO = Number.NaN;
const facts = (more: Partial<HeadFacts>): HeadFacts => ({ ...head.facts, ...more });
const kind = (name: string) => heads.get(name)!;
const words = (name: string, mask: "causal" | "none" | "other") =>
  kind(name).facts.stages.map((stage) => operation(stage, kind(name).facts, mask));
const cleanup = new Cleanup();

afterEach(() => {
  cleanup.run();
  document.body.replaceChildren();
  page.width = 1084;
});

/** What a view is drawn with. */
function look(width = 1084, mode: "wide" | "narrow" = "wide") {
  page.width = width;
  const root = document.createElement("div");
  document.body.append(root);
  const theme = applyTheme(root, "light");
  return { head: gridData().head(17, 5)!, scale: "log" as const, sinkAside: true, theme, ratio: 1, mode };
}

describe("words and numbers of stages", () => {
  test("the operation is written with the model's numbers", () => {
    expect(words("smollm2", "causal")).toEqual(["q\u00b7k\u1d40", "÷ √64", "future = −∞", "rows sum to 1"]);
    expect(words("window", "causal")[2]).toBe(`window ${kind("window").facts.window} · future = −∞`);
    expect(words("no mask", "none")[2]).toBe("every key is seen");
    expect(words("position bias", "none")).toContain("+ position bias");
    const { slope } = kind("distance").facts;
    expect(words("distance", "causal")[2]).toBe(`− ${constant(slope)}·|i − j| · future = −∞`);
    const cap = constant(kind("soft cap and window").facts.soft_cap);
    expect(words("soft cap and window", "causal")[2]).toBe(`${cap}·tanh(x/${cap})`);
    expect(words("sink", "causal").at(-1)).toBe(`rows + sink ${signed(kind("sink").facts.sink!)} sum to 1`);
    expect(operation("masked", facts({}), "other")).toBe("unseen = −∞");
  });

  test("a soft cap stands where the model has it: after the scale, or before it", () => {
    expect(kind("soft cap and window").facts.stages.slice(1, 3)).toEqual(["scaled", "capped"]);
    expect(kind("soft cap, unfused").facts.stages.slice(1, 3)).toEqual(["capped", "scaled"]);
  });

  test("a scale is a root where it is one", () => {
    const scale = (s: number) => operation("scaled", facts({ scale: s }), "none");
    expect(scale(Math.fround(1 / Math.sqrt(80)))).toBe("÷ √80");
    expect(scale(0.0884)).toBe("× 0.0884");
    expect(scale(Math.fround(1 / Math.sqrt(144)))).toBe("÷ √144");
    expect(scale(1)).toBe("× 1");
    expect(scale(0.5)).toBe("× 0.5");
  });

  test("values have three figures and a true minus", () => {
    expect([54.23, 6.779, -0.0611, 123.4, 0, -1e-6].map(signed)).toEqual([
      "54.2",
      "6.78",
      "−0.061",
      "123",
      "0",
      "−1.0e−6",
    ]);
    expect(signed(Number.NEGATIVE_INFINITY)).toBe("−∞");
    expect(signed(NO)).toBe("–");
  });

  test.each([...heads])("every stage of a head with %s is read out as Python has it", (_, own) => {
    const { replay } = own;
    const cell: Cell = [replay.rows - 1, Math.max(0, replay.keys - 3)];
    for (const stage of replay.stages) {
      const want = own.stage(stage)[cell[0] * replay.keys + cell[1]]!;
      const text = stageValue(replay, stage, ...cell);
      if (Number.isNaN(want)) expect(text).toBe(stage === "softmax" ? "0" : "−∞");
      else if (stage !== "softmax") expect(text).toBe(signed(want));
    }
  });

  test("a masked cell is −∞, and 0 after the softmax", () => {
    const { replay } = head;
    expect(stageValue(replay, "scaled", 3, 9)).not.toContain("∞");
    expect(stageValue(replay, "masked", 3, 9)).toBe("−∞");
    expect(stageValue(replay, "softmax", 3, 9)).toBe("0");
    const least = head.stage("softmax").reduce((m, w, i, all) => (w < all[m]! ? i : m), 0);
    expect(stageValue(replay, "softmax", Math.floor(least / 24), least % 24)).toMatch(/^\de−\d+$/);
  });

  test("a sink takes what the row leaves", () => {
    const own = kind("sink").replay;
    const share = Math.exp(own.facts.sink! - Math.log(rowTotal(own, own.rows - 1)));
    expect(sinkShare(own, own.rows - 1)).toBeCloseTo(share, 5);
    expect(sinkShare(head.replay, 3)).toBeNaN();
  });
});

/** The sum of exp(score) of a row, its sink included. */
function rowTotal(replay: Replay, row: number): number {
  const masked = replay.row(row, "masked");
  return masked.reduce((sum, x) => sum + (Number.isNaN(x) ? 0 : Math.exp(x)), Math.exp(replay.facts.sink!));
}

describe("pictures of stages", () => {
  test("cells are whole pixels, and many cells share one", () => {
    expect(stageGeometry(24, 24, 133, 2)).toEqual({ width: 264, height: 264, columns: 24, rows: 24 });
    expect(stageGeometry(24, 24, 133, 1)).toMatchObject({ width: 120, columns: 24 });
    expect(stageGeometry(3, 3, 133, 1)).toMatchObject({ width: 66 });
    expect(stageGeometry(4096, 4096, 133, 1)).toEqual({ width: 133, height: 133, columns: 133, rows: 133 });
    const flat = stageGeometry(2, 100, 133, 1);
    expect(flat.width).toBe(100);
    expect(flat.height).toBeGreaterThanOrEqual(16);
  });

  test("fewer cells keep the entry of greatest magnitude, with its sign", () => {
    const matrix = { rows: 2, keys: 4, data: Float32Array.of(1, -5, NO, NO, 2, 3, NO, 0.5) };
    expect([...shrink(matrix, 1, 2).data]).toEqual([-5, 0.5]);
    expect([...shrink(matrix, 2, 2).data]).toEqual([-5, NO, 3, 0.5]);
    expect(shrink(matrix, 2, 4)).toBe(matrix);
  });

  test("signed scales are symmetric about 0 and end at a round number, without the sink", () => {
    const matrix = {
      rows: 2,
      keys: 3,
      data: Float32Array.of(900, 7, NO, -800, -71, Number.NEGATIVE_INFINITY),
    };
    expect(symmetricLimit(matrix, true)).toBe(80);
    expect(symmetricLimit(matrix, false)).toBe(1000);
    expect([0, 1, 1.2, 71, 0.031, 100].map(roundUp)).toEqual([1, 1, 1.5, 80, 0.04, 100]);
    expect([-100, -80, 0, 80, 90].map((v) => diverge(v, 80))).toEqual([0, 0, 128, 255, 255]);
  });

  test("all stand in one row, and two by two where it is narrow", () => {
    expect(perRow(4, 630, false)).toMatchObject({ each: 4, room: 133 });
    expect(perRow(5, 630, false)).toMatchObject({ each: 5 });
    expect(perRow(4, 584, true)).toMatchObject({ each: 2 });
    expect(perRow(4, 550, false)).toMatchObject({ each: 4 });
    expect(perRow(4, 330, false)).toMatchObject({ each: 2 });
    expect(perRow(6, 700, false).each).toBe(3 * Math.ceil(perRow(6, 700, false).each / 3));
  });

  test("a pixel of many cells stands for the strongest of them", () => {
    const { replay } = head;
    const scores = head.stage("scores");
    const [query, key] = strongest(replay, "scores", 1, 3, 0, 3);
    let most = 0;
    for (let i = 8; i < 16; i++)
      for (let j = 0; j < 8; j++) most = Math.max(most, Math.abs(scores[i * 24 + j]!));
    expect(Math.abs(scores[query * 24 + key]!)).toBe(most);
    expect(strongest(replay, "masked", 0, 3, 2, 3)).toEqual([3, 19]);
  });
});

describe("StagesView", () => {
  const chosen: Cell[] = [];
  const hovered: (Cell | null)[] = [];
  const tiles: [string, Cell][] = [];

  function open(replay: Replay, cell: Cell, width = 630) {
    for (const list of [chosen, hovered, tiles]) list.length = 0;
    const view = new StagesView(cleanup, {
      choose: (c) => chosen.push(c),
      hover: (c) => hovered.push(c),
      tile: async (_head, own, stage, size) => {
        tiles.push([stage, size]);
        return own.tile(stage, 0, own.rows, 0, own.keys, ...size);
      },
    });
    document.body.append(view.element);
    view.show(gridData(), replay, cell, look(width, width < 600 ? "narrow" : "wide"));
    return view;
  }
  const values = (view: StagesView) =>
    [...view.element.querySelectorAll(".lt-stage-value")].map((e) => e.textContent);
  const canvases = (view: StagesView) => [...view.element.querySelectorAll("canvas")];
  const box = (canvas: HTMLCanvasElement, size: number) => {
    canvas.getBoundingClientRect = () => new DOMRect(0, 0, size, size);
  };

  test("shows each stage with the chosen cell's value above it", () => {
    const view = open(head.replay, [23, 6]);
    const at = 23 * 24 + 6;
    expect(view.element.querySelector("h4")!.textContent).toContain("Four stages");
    expect(values(view)).toEqual([
      signed(head.stage("scores")[at]!),
      signed(head.stage("scaled")[at]!),
      signed(head.stage("masked")[at]!),
      head.stage("softmax")[at]!.toFixed(3),
    ]);
    expect(view.element.querySelectorAll(".lt-stage-cell:not([hidden])").length).toBe(4);
    expect(view.element.querySelectorAll(".lt-stage-arrow").length).toBe(3);
    const group = view.element.querySelector("[role=group]")!;
    expect(group.getAttribute("aria-label")).toMatch(/^Stages of ·the 23 and ·lamp 6: scores .*softmax 0\./);
    expect(group.getAttribute("data-region")).toBe("detail");
  });

  test("a soft cap is a stage of its own", () => {
    const own = kind("soft cap and window").replay;
    const view = open(own, [own.rows - 1, own.keys - 1]);
    expect(view.element.querySelector("h4")!.textContent).toContain("Five stages");
    expect(
      [...view.element.querySelectorAll(".lt-stage-head")].map((e) => e.firstChild!.textContent),
    ).toEqual([...own.stages]);
  });

  test("the cell that is pointed at is read out in all, and forgotten afterwards", () => {
    const view = open(head.replay, [23, 6]);
    const before = values(view);
    box(canvases(view)[1]!, 120);
    canvases(view)[1]!.dispatchEvent(
      new PointerEvent("pointermove", { bubbles: true, clientX: 52, clientY: 62 }),
    );
    expect(hovered).toEqual([[12, 10]]);
    view.hover([12, 10]);
    expect(values(view)[0]).toBe(signed(head.stage("scores")[12 * 24 + 10]!));
    expect(view.element.querySelector("h4 span")!.textContent).toContain("·sea₁₂ → ·while₁₀");
    expect(view.element.querySelectorAll(".lt-stage-hover:not([hidden])").length).toBe(4);
    view.hover(null);
    expect(values(view)).toEqual(before);
  });

  test("a click chooses the cell", () => {
    const view = open(head.replay, [23, 6]);
    box(canvases(view)[3]!, 120);
    canvases(view)[3]!.dispatchEvent(new MouseEvent("click", { bubbles: true, clientX: 2, clientY: 117 }));
    expect(chosen).toEqual([[23, 0]]);
  });

  test("a sink's share of the row stands above", () => {
    const own = kind("sink").replay;
    const view = open(own, [5, 2]);
    expect(view.element.querySelector(".lt-stage:last-child .lt-stage-op")!.textContent).toMatch(
      /sum to 1the sink takes (0|<|1)/,
    );
  });

  test("two by two where it is narrow", () => {
    const view = open(head.replay, [23, 6], 420);
    expect(view.element.querySelectorAll(".lt-stage-arrow").length).toBe(2);
    expect(view.element.querySelectorAll(".lt-stage-wraps").length).toBe(1);
  });

  test("pictures of the view show them with their values and operations", async () => {
    const view = open(head.replay, [23, 6]);
    const canvas = document.createElement("canvas");
    const row = view.pictured;
    const part = { heading: ["", ""], canvas, boxes: [], under: "", notes: [], ramp: null, row } as const;
    const svg = await toSvg(compose("Attention", "", "measured", [part], look().theme)).text();
    for (const text of [
      "Four stages",
      "scores",
      signed(head.stage("scores")[23 * 24 + 6]!),
      "÷ √64",
      "future = −∞",
    ])
      expect(svg).toContain(`>${text}</text>`);
    view.hide();
    expect(view.pictured).toBeNull();
  });

  test("a long head is asked for in tiles, one after another, and read out exactly", async () => {
    const view = open(longHead(1100), [1099, 4]);
    await vi.waitFor(() => expect(tiles.length).toBe(4));
    expect(tiles.map(([stage]) => stage)).toEqual(["scores", "scaled", "masked", "softmax"]);
    expect(tiles[0]![1]).toEqual([320, 320]);
    expect(values(view)[0]).toBe(signed(longHead(1100).value("scores", 1099, 4)));
    expect(view.element.querySelector(".lt-waiting")).toBeNull();
  });
});

/** A causal head of n tokens with two numbers each. */
function longHead(n: number): Replay {
  const bytes = (array: Float32Array | Float64Array | Int32Array) => new Uint8Array(array.buffer);
  const q = Float32Array.from({ length: 2 * n }, (_, i) => Math.sin(i));
  const k = Float32Array.from({ length: 2 * n }, (_, i) => Math.cos(i * 3));
  const lse = Float64Array.from({ length: n }, (_, i) => {
    let total = 0;
    for (let j = 0; j <= i; j++)
      total += Math.exp((q[2 * i]! * k[2 * j]! + q[2 * i + 1]! * k[2 * j + 1]!) * 0.125);
    return Math.log(total);
  });
  const stop = Int32Array.from({ length: n }, (_, i) => i + 1);
  return new Replay(facts({ rows: n, keys: n, size: 2, dtype: "f4" }), [
    bytes(q),
    bytes(k),
    bytes(lse),
    bytes(new Int32Array(n)),
    bytes(stop),
  ]);
}

describe("VectorsView", () => {
  test("the product's largest terms, and how few make half of it", () => {
    const product = Float32Array.of(1, -8, 3, 0.5);
    expect(loudest(product)).toEqual([1, 2, 0]);
    expect(half(product)).toBe(1);
    expect(half(new Float32Array(3))).toBe(0);
  });

  test("query times key sums to the score, and the KV head is named", () => {
    const view = new VectorsView(cleanup);
    document.body.append(view.element);
    view.show(gridData(), head.replay, [23, 6], look());
    const score = signed(head.stage("scores")[23 * 24 + 6]!);
    expect(view.element.textContent).toContain(`Σ = ${score}`);
    expect(view.element.textContent).toContain("element by element · KV head 1, shared by H3–H5");
    const q = head.replay.query(23);
    const k = head.replay.key(6);
    const press = (key: string) => view.key(new KeyboardEvent("keydown", { key }));
    expect([press("ArrowRight"), press("ArrowRight"), press("a")]).toEqual([true, true, false]);
    expect(view.element.querySelector("[role=status]")!.textContent).toBe(
      `element 1: ${signed(q[1]!)} × ${signed(k[1]!)} = ${signed(q[1]! * k[1]!)}`,
    );
    press("End");
    expect(view.element.querySelector("[role=status]")!.textContent).toMatch(/^element 63:/);
  });
});

describe("profiles", () => {
  test("name the highest tokens and leave out what is next to nothing", () => {
    expect(highest(Float32Array.of(0.1, NO, 0.9, 0, 0.001))).toEqual([2, 0]);
    expect(highest(Float32Array.of(NO, 0))).toEqual([]);
  });

  test("the first token does not set the scale where it stands aside", () => {
    expect(top(Float32Array.of(3, 0.2, NO), true)).toBe(0.2);
    expect(top(Float32Array.of(3, 0.2, NO), false)).toBe(3);
    expect(top(Float32Array.of(0.7, NO), true)).toBe(0.8);
  });
});
