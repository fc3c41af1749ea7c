// The arrays and the geometry behind the grid, on real data.
import { describe, expect, test } from "vitest";
import { maxReduce } from "../src/attention_grid/atlas";
import { CODE_WEIGHT, FUTURE, floats, GridData, histogram, OUTSIDE, SEEN } from "../src/attention_grid/data";
import { CellIndex, layoutGrid, placeCells } from "../src/attention_grid/layout";
import { blockAt, columnX, matrixGeometry } from "../src/attention_grid/paint_matrix";
import { compose, escapeXml, toSvg } from "../src/attention_grid/picture";
import { read } from "../src/attention_grid/reading";
import { automaticMaximum, logPosition, positions, rampCodes } from "../src/attention_grid/scale";
import { applyTheme } from "../src/shared/theme";
import { facts, gridData, matrix, thumbnails } from "./fixture";

const layer = (n: number, heads: number, kv: number, more = {}) => ({
  ...facts.layers[0]!,
  layer: n,
  heads,
  kv_heads: kv,
  ...more,
});

/** The same facts with other layers; nothing has arrived for them. */
function shaped(layers: ReturnType<typeof layer>[]) {
  return GridData.from({ ...facts, layers, phase: "computing" }, null, null);
}

describe("data", () => {
  const data = gridData();

  test("finds heads by the model's numbering and groups them by KV head", () => {
    expect(data.heads.length).toBe(270);
    expect(data.head(17, 5)).toMatchObject({ index: 17 * 9 + 5, layer: 17, head: 5, kv: 1 });
    expect(data.head(17, 9)).toBeUndefined();
    expect(data.head(30, 0)).toBeUndefined();
  });

  test("thumbnail codes agree with the exact weights", () => {
    const thumb = data.approximate(data.head(17, 5)!);
    matrix.data.forEach((w, i) => {
      const t = thumb.data[i]!;
      if (Number.isNaN(w)) expect(t).toBeNaN();
      else if (w >= 1e-4) expect(Math.abs(t / w - 1)).toBeLessThan(0.02);
    });
  });

  test("ranks heads by a statistic, those without a value last", () => {
    const ranked = data.ranked("induction");
    expect(ranked[0]).toMatchObject({ layer: 17, head: 5 });
    expect(data.rank(ranked[0]!, "induction")).toBe(1);
    const stats = new Float32Array(270 * facts.statistics.length).fill(Number.NaN);
    stats[5 * facts.statistics.length] = 0.5;
    const sparse = GridData.from(facts, thumbnails, stats);
    expect(sparse.ranked("induction")[0]!.index).toBe(5);
    expect(sparse.rank(sparse.heads[0]!, "induction")).toBe(0);
  });

  test("a filter keeps what is inside and drops what has no value", () => {
    const kept = data.kept({ induction: [0.1, null] });
    const n = kept.reduce((a, b) => a + b, 0);
    expect(n).toBeGreaterThan(5);
    expect(n).toBeLessThan(60);
    expect(
      shaped([layer(0, 9, 3)])
        .kept({ induction: [0, null] })
        .every((k) => k === 0),
    ).toBe(true);
  });

  test("names the nearest value when nothing passes", () => {
    const near = data.nearest({ induction: [0.99, null] });
    expect(near).toMatchObject({ key: "induction", head: { layer: 17, head: 5 } });
    expect(data.kept({ induction: near!.range }).reduce((a, b) => a + b, 0)).toBe(1);
  });

  test("histograms count every head that has a value once", () => {
    const values = data.column("sink");
    expect(histogram(values, null, 0, 1, 36).reduce((a, b) => a + b, 0)).toBe(270);
    expect(histogram(Float32Array.of(Number.NaN, 0.5), null, 0, 1, 4)).toEqual([0, 0, 1, 0]);
  });

  test("a layer that arrives fills its heads and no others", () => {
    const empty = shaped([layer(0, 2, 1), layer(1, 2, 1)]);
    const size = facts.side_rows * facts.side_keys;
    expect(empty.has(empty.heads[2]!)).toBe(false);
    empty.fill(1, new Uint8Array(2 * size).fill(9), new Float32Array(2 * facts.statistics.length).fill(0.25));
    expect(empty.layerArrived(0)).toBe(false);
    expect(empty.value(empty.heads[3]!, "sink")).toBe(0.25);
    expect(empty.thumbnail(empty.heads[2]!)[0]).toBe(9);
  });

  test("masked, outside the window and zero are told apart", () => {
    const windowed = GridData.from({ ...facts, layers: [layer(0, 1, 1, { window: 8 })] }, null, null);
    const mask = windowed.mask(0, 24, 24);
    expect([mask[0 * 24 + 1], mask[20 * 24 + 20], mask[20 * 24 + 12], mask[20 * 24 + 13]]).toEqual([
      FUTURE,
      SEEN,
      OUTSIDE,
      SEEN,
    ]);
    const open = GridData.from({ ...facts, layers: [layer(0, 1, 1, { mask: "none" })] }, null, null);
    expect(open.mask(0, 24, 24).every((m) => m === SEEN)).toBe(true);
  });

  test("floats survive a buffer that starts at any byte", () => {
    const shifted = new Uint8Array(9);
    shifted.set(new Uint8Array(Float32Array.of(0.5, 2).buffer), 1);
    expect([...floats(new DataView(shifted.buffer, 1, 8))]).toEqual([0.5, 2]);
  });
});

describe("scales", () => {
  test("log runs from 0.001 to 1", () => {
    expect(logPosition(0.001)).toBeCloseTo(0);
    expect(logPosition(0.1)).toBeCloseTo(2 / 3);
    expect(logPosition(1)).toBe(1);
    expect(logPosition(0)).toBe(0);
  });

  test("the sink does not set the linear scale when it stands aside", () => {
    expect(automaticMaximum(matrix, false)).toBe(1);
    expect(automaticMaximum(matrix, true)).toBeLessThan(0.95);
  });

  test("thumbnails and the large matrix are coloured by the same rules", () => {
    const data = gridData();
    const head = data.head(17, 5)!;
    for (const scale of ["log", "linear", "row"] as const)
      for (const aside of [true, false]) {
        const codes = new Uint8Array(24 * 24);
        rampCodes(data.thumbnail(head), 24, scale, aside, codes);
        const at = positions(data.approximate(head), scale, aside);
        for (let row = 1; row < 24; row++)
          for (let key = 0; key <= row; key++) {
            const weight = CODE_WEIGHT[data.thumbnail(head)[row * 24 + key]!]!;
            expect(Math.abs(codes[row * 24 + key]! / 255 - at(row)(weight))).toBeLessThan(0.03);
          }
      }
  });
});

describe("layout", () => {
  const data = gridData();

  test("at 1100 px 30 layers stand in one band of 34 px cells", () => {
    const l = layoutGrid(data, 1084);
    expect(l).toMatchObject({ mode: "wide", beside: false, pitch: 34 });
    expect(l.bands.length).toBe(1);
  });

  test("at 600 px in two bands, below that in bands of 8", () => {
    expect(layoutGrid(data, 584).bands.map((b) => b.to - b.from)).toEqual([15, 15]);
    expect(layoutGrid(data, 384).bands.map((b) => b.to - b.from)).toEqual([8, 8, 8, 6]);
  });

  test("never is wider than its room, from 360 to 1600 px, from 1 to 420 layers", () => {
    for (const layers of [1, 5, 18, 32, 60, 420])
      for (const heads of [1, 9, 32])
        for (const width of [344, 384, 584, 884, 1084, 1584]) {
          const d = shaped(Array.from({ length: layers }, (_, i) => layer(i, heads, 1)));
          expect(layoutGrid(d, width).width).toBeLessThanOrEqual(width);
        }
  });

  const square = shaped(Array.from({ length: 32 }, (_, i) => layer(i, 32, 8)));
  const deep = shaped(Array.from({ length: 420 }, (_, i) => layer(i, 2, 1)));

  test("32 x 32 heads stand beside their detail in one band, every 4th named", () => {
    const l = layoutGrid(square, 1084);
    expect(l.beside).toBe(true);
    expect(l.bands.length).toBe(1);
    expect([l.nameColumns, l.nameRows]).toEqual([4, 4]);
  });

  test.each([
    [square, 1052, 1],
    [square, 950, 1],
    [square, 890, 1],
    [square, 568, 1],
    [square, 760, 1],
    [square, 344, 2],
    [deep, 1052, 7],
    [deep, 568, 13],
  ])("a thousand heads have cells of 15 to 20 px", (data, width, bands) => {
    const l = layoutGrid(data, width);
    expect(l.cell).toBeGreaterThanOrEqual(15);
    expect(l.cell).toBeLessThanOrEqual(20);
    expect(l.bands.length).toBe(bands);
  });

  test("every point of a cell hits its head", () => {
    const l = layoutGrid(data, 1084);
    const cells = placeCells(data, l, null);
    const index = new CellIndex(cells, l, data.rows);
    for (const c of cells) expect(index.hit(c.x + l.cell - 1, c.y + 1)?.head).toBe(c.head);
    expect(index.hit(2, 2)).toBeUndefined();
  });

  test("steps go through bands and over layers without attention", () => {
    const none = { ...layer(1, 0, 0), kind: "none" as const };
    const d = shaped([layer(0, 2, 1), none, layer(2, 2, 1)]);
    const l = layoutGrid(d, 384);
    const index = new CellIndex(placeCells(d, l, null), l, d.rows);
    const start = index.get(0, 0, 1)!;
    expect(index.step(start, 1, 0).head).toMatchObject({ layer: 2, head: 1 });
    expect(index.step(start, 0, -1).head).toMatchObject({ layer: 0, head: 0 });
    expect(index.step(start, -1, 0)).toBe(start);
    const banded = layoutGrid(data, 384);
    const wide = new CellIndex(placeCells(data, banded, null), banded, data.rows);
    expect(wide.step(wide.get(0, 7, 3)!, 1, 0).head).toMatchObject({ layer: 8, head: 3 });
    expect(wide.end(wide.get(0, 3, 3)!, true).head).toMatchObject({ layer: 29, head: 3 });
  });

  test("ranked heads fill the picture in reading order", () => {
    const l = layoutGrid(data, 1084);
    const order = data.ranked("sink");
    const cells = placeCells(data, l, order);
    expect(cells[order[0]!.index]).toMatchObject({ column: 0, row: 0 });
    expect(cells[order[31]!.index]).toMatchObject({ column: 1, row: 1 });
  });
});

describe("matrix", () => {
  test("thin lines survive every reduction", () => {
    const codes = new Uint8Array(64 * 64);
    for (let i = 0; i < 64; i++) codes[i * 64 + i] = 200;
    const small = maxReduce(codes, 64, 64, 16, 16);
    for (let i = 0; i < 16; i++) expect(small[i * 16 + i]).toBe(200);
  });

  test("sizes that do not divide lose nothing, and rows that are not there count for nothing", () => {
    const codes = Uint8Array.from({ length: 31 * 29 }, (_, i) => (i * 37) % 251);
    const small = maxReduce(codes, 31, 29, 15, 15);
    const slow = new Uint8Array(15 * 15);
    codes.forEach((c, i) => {
      const at = Math.floor((Math.floor(i / 29) * 15) / 31) * 15 + Math.floor(((i % 29) * 15) / 29);
      slow[at] = Math.max(slow[at]!, c);
    });
    expect(small).toEqual(slow);
    const part = maxReduce(codes, 31, 29, 15, 15, 10);
    expect(Math.max(...part.subarray(5 * 15))).toBe(0);
    expect(part.subarray(0, 4 * 15)).toEqual(slow.subarray(0, 4 * 15));
  });

  test("cells are whole device pixels and every one can be hit", () => {
    for (const n of [1, 2, 24, 100, 512]) {
      const g = matrixGeometry(n, n, { width: 430, left: 80, top: 60 }, true, 2);
      if (g.cellX >= 1) expect((g.cellX * 2) % 1).toBeCloseTo(0);
      expect(columnX(g, n - 1) + g.cellX).toBeLessThanOrEqual(430);
      const corner = blockAt(g, columnX(g, n - 1) + g.cellX / 2, g.top + g.cellY / 2)!;
      expect([corner.rows[0], corner.keys[1]]).toEqual([0, n]);
    }
    expect(blockAt(matrixGeometry(24, 24, { width: 430, left: 80, top: 60 }, true, 2), 10, 10)).toBeNull();
  });
});

describe("reading", () => {
  const row = (query: number) => matrix.data.subarray(query * matrix.keys, (query + 1) * matrix.keys);

  test("the last token looks at ·lamp₆", () => {
    const r = read(row(23), 23, null, true)!;
    expect(facts.tokens[r.key]).toBe("·lamp");
    expect(r).toMatchObject({ key: 6, rank: 1, visible: 24 });
    expect(r.weight).toBeGreaterThan(0.7);
    expect(r.others[0]![0]).toBe(0);
  });

  test("a row that only sees itself, a masked key and an empty row have answers", () => {
    expect(read(row(0), 0, null, true)).toMatchObject({ key: 0, rank: 1, visible: 1, others: [] });
    expect(read(row(3), 3, 9, true)).toMatchObject({ rank: 0, weight: Number.NaN });
    expect(read(Float32Array.of(Number.NaN, Number.NaN), 0, null, true)).toBeNull();
  });
});

test("a picture carries its provenance, and names from a model stay text", async () => {
  const canvas = document.createElement("canvas");
  canvas.toDataURL = () => "data:image/png;base64,";
  const theme = applyTheme(document.createElement("div"), "light");
  const part = {
    heading: ["<b>", "x"],
    canvas,
    boxes: [],
    under: "·the₂₃ looks at ·lamp₆ 0.761",
    notes: [],
    ramp: null,
  } as const;
  const svg = await toSvg(
    compose("Attention", "30 layers", "measured in llama.cpp · Q4_1", [part], theme),
  ).text();
  expect(svg).toContain("measured in llama.cpp · Q4_1");
  expect(svg).toContain("looks at ·lamp₆");
  expect(svg).not.toContain("<b>");
});

test("text in an SVG cannot become markup", () => {
  expect(escapeXml(`</text><script>&"'\u0000\ud800`)).toBe("&#60;/text&#62;&#60;script&#62;&#38;&#34;&#39;");
});
