// Long prompts: parts of a head and where their cells are, tiles and what stands in for them, the text in lines.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { breakLines, lineOf } from "../src/attention_grid/lines";
import {
  blockAt,
  columnX,
  type MatrixGeometry,
  matrixGeometry,
  rightOf,
  rowY,
  viewGeometry,
} from "../src/attention_grid/paint_matrix";
import { Plate, type PlateState } from "../src/attention_grid/plate";
import { read } from "../src/attention_grid/reading";
import { LONG } from "../src/attention_grid/replay";
import { TextStrip } from "../src/attention_grid/strip";
import { Pictures } from "../src/attention_grid/tiles";
import { TOKEN_COLOURS } from "../src/attention_grid/token_colours";
import { holding, moved, placed, size, type Viewport, wholeOf, zoomed } from "../src/attention_grid/viewport";
import { Cleanup } from "../src/shared/dom";
import { probability } from "../src/shared/format";
import { applyTheme } from "../src/shared/theme";
import { gridData, head as lamp } from "./fixture";
import { longData, longHead } from "./long";

const N = 1500;
const replay = longHead(N);
const whole = wholeOf(N, N);
/** The same head, as if each cell were more work than can be done at once. */
const heavy = {
  rows: N,
  keys: N,
  size: 4096,
  column: (key: number) => replay.column(key),
  tile: (...asked: Parameters<typeof replay.tile>) => replay.tile(...asked),
};

describe("viewport", () => {
  test("zooming keeps the cell under the pointer where it is, and stays inside", () => {
    let view: Viewport = whole;
    for (let i = 0; i < 20; i++) {
      const before = (900 - view.rows[0]) / size(view.rows);
      view = zoomed(view, whole, 1.3, 900, 400);
      expect(Math.abs((900 - view.rows[0]) / size(view.rows) - before)).toBeLessThan(1.5 / size(view.rows));
      expect(view.keys[0]).toBeGreaterThanOrEqual(0);
      expect(view.rows[1]).toBeLessThanOrEqual(N);
    }
    expect(size(view.rows)).toBe(8);
    for (let i = 0; i < 30; i++) view = zoomed(view, whole, 0.7, 900, 400);
    expect(view).toEqual(whole);
  });

  test("panning stops at the edges; a cell is brought into sight by the shortest way", () => {
    const view = { rows: [100, 200], keys: [0, 100] } as const;
    expect(moved(view, whole, -500, 30)).toEqual({ rows: [0, 100], keys: [30, 130] });
    expect(holding(view, whole, 200, 50)).toEqual({ rows: [101, 201], keys: [0, 100] });
    expect(holding(view, whole, 150, 50)).toEqual(view);
    expect(placed({ rows: [5, 6], keys: [1499, 1600] }, whole)).toEqual({
      rows: [2, 10],
      keys: [1399, 1500],
    });
  });
});

describe("where the cells of a part are", () => {
  const flat = matrixGeometry(4096, 4096, { width: 434, left: 44, top: 30 }, true, 2);

  test("the first token of thousands is wide enough to be seen, and all fit", () => {
    expect(flat.first).toBe(3);
    expect(rightOf(flat)).toBeLessThanOrEqual(434);
    expect(blockAt(flat, flat.left + 1, flat.top + 5)!.keys).toEqual([0, 1]);
  });

  const views: Viewport[] = [
    wholeOf(4096, 4096),
    { rows: [812, 3020], keys: [300, 2000] },
    { rows: [812, 1020], keys: [0, 204] },
    { rows: [812, 840], keys: [700, 731] },
  ];

  test.each(views)("every token has its place, and every place its tokens: $rows $keys", (view) => {
    const g = viewGeometry(flat, { left: 90, top: 80 }, view, 2);
    expect(g.row0).toBeLessThanOrEqual(view.rows[0]);
    expect(g.rows).toBeGreaterThanOrEqual(size(view.rows));
    expect(rightOf(g)).toBeLessThanOrEqual(rightOf(flat) + 1e-6);
    expect(g.top + g.rows * g.cellY).toBeLessThanOrEqual(flat.top + 4096 * flat.cellY + 1e-6);
    const seen = (at: (p: number) => readonly [number, number] | undefined, from: number, to: number) => {
      const found = new Set<number>();
      for (let p = from + 0.01; p < to; p += 0.5) {
        const span = at(p);
        for (let t = span?.[0] ?? 0; t < (span?.[1] ?? 0); t++) found.add(t);
      }
      return found.size;
    };
    expect(seen((x) => blockAt(g, x, g.top + 1)?.keys, g.left, rightOf(g))).toBe(g.keys);
    expect(seen((y) => blockAt(g, g.left + 1, y)?.rows, g.top, g.top + g.rows * g.cellY)).toBe(g.rows);
    for (const key of [g.key0, g.key0 + g.keys - 1]) {
      const [from, to] = blockAt(g, columnX(g, key) + 0.01, rowY(g, g.row0) + 0.01)!.keys;
      expect(from <= key && key < to).toBe(true);
    }
  });
});

describe("tiles", () => {
  const data = longData(N);
  const head = data.head(17, 5)!;
  const wanted = (view: Viewport, more = {}) => ({
    data,
    head,
    replay,
    view,
    whole,
    pixels: [300, 300] as const,
    ...more,
  });
  const setUp = () => {
    const tile = vi.fn(async (..._: unknown[]) => replay.tile("softmax", 0, N, 1, N, 300, 300));
    const arrived = vi.fn();
    const cleanup = new Cleanup();
    return { tile, arrived, cleanup, pictures: new Pictures(cleanup, tile as never, arrived) };
  };

  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test("a whole long head: its thumbnail, then the kernel's tile with the first token's own column", async () => {
    const matrix = vi.spyOn(replay, "matrix");
    const big = longHead(LONG + 1, 64);
    const at = { ...wanted(wholeOf(LONG + 1, LONG + 1)), whole: wholeOf(LONG + 1, LONG + 1), replay: big };
    const { tile, arrived, pictures } = setUp();
    tile.mockImplementation(async () => big.tile("softmax", 0, LONG + 1, 1, LONG + 1, 300, 300));
    expect(pictures.get(at)).toMatchObject({ exact: false, matrix: { rows: data.facts.side_rows } });
    expect(tile.mock.calls).toEqual([[17, 5, "softmax", [0, LONG + 1], [1, LONG + 1], [300, 300]]]);
    await vi.advanceTimersByTimeAsync(1);
    expect(arrived).toHaveBeenCalledTimes(1);
    const { matrix: cells, exact } = pictures.get(at);
    expect([exact, cells.rows, cells.keys]).toEqual([true, 300, 301]);
    const column = big.column(0);
    const edge = (r: number) => Math.floor((r * (LONG + 1)) / 300);
    for (const r of [0, 7, 299])
      expect(cells.data[r * 301]).toBe(Math.max(...column.slice(edge(r), edge(r + 1))));
    expect(tile).toHaveBeenCalledTimes(1);
    expect(matrix).not.toHaveBeenCalled();
  });

  test("few cells are computed at once, and they are the head's own", () => {
    const { tile, pictures } = setUp();
    const view = { rows: [700, 760], keys: [640, 700] } as const;
    const { matrix, exact, covers } = pictures.get(wanted(view));
    expect([exact, matrix.rows, matrix.keys, covers.sink]).toEqual([true, 60, 60, false]);
    for (const [r, c] of [
      [0, 0],
      [59, 3],
      [5, 59],
    ] as const)
      expect(matrix.data[r * 60 + c]).toBeCloseTo(replay.value("softmax", 700 + r, 640 + c), 6);
    expect(tile).not.toHaveBeenCalled();
  });

  test("while the viewport moves nobody is asked; meanwhile the nearest picture that covers it stands in", async () => {
    const { tile, pictures } = setUp();
    pictures.get(wanted(whole, { replay: heavy }));
    await vi.advanceTimersByTimeAsync(1);
    for (let i = 0; i < 5; i++) {
      const got = pictures.get(wanted({ rows: [i, i + 900], keys: [0, 900] }, { replay: heavy }));
      expect([got.exact, got.covers.rows]).toEqual([false, [0, N]]);
      await vi.advanceTimersByTimeAsync(20);
    }
    expect(tile).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(100);
    expect(tile).toHaveBeenCalledTimes(2);
    expect(tile.mock.calls[1]!.slice(3, 5)).toEqual([
      [4, 904],
      [1, 900],
    ]);
  });

  test("without a kernel the browser computes the overview itself", async () => {
    const { tile, arrived, pictures } = setUp();
    tile.mockRejectedValue(new Error("nobody there"));
    pictures.get(wanted(whole, { replay: heavy }));
    vi.useRealTimers();
    await vi.waitFor(() => expect(arrived).toHaveBeenCalled(), 20_000);
    expect(pictures.get(wanted(whole, { replay: heavy })).exact).toBe(true);
  });

  test("a kernel that is busy with a cell is not waited for", async () => {
    const { tile, arrived, pictures } = setUp();
    tile.mockImplementation(() => new Promise(() => undefined));
    pictures.get(wanted(whole, { replay: heavy }));
    await vi.advanceTimersByTimeAsync(2000);
    expect(arrived).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(2000);
    expect(arrived).toHaveBeenCalledTimes(1);
    expect(pictures.get(wanted(whole, { replay: heavy })).exact).toBe(true);
  });

  test("another text forgets the tiles of the one before", async () => {
    const { tile, pictures } = setUp();
    pictures.get(wanted(whole, { replay: heavy }));
    await vi.advanceTimersByTimeAsync(1);
    pictures.get(wanted(whole, { replay: heavy, data: longData(N) }));
    expect(tile).toHaveBeenCalledTimes(2);
  });
});

describe("the large view", () => {
  const theme = applyTheme(document.createElement("div"), "light");
  const state = (data = longData(N)): PlateState => ({
    head: data.head(17, 5)!,
    scale: "log",
    sinkAside: true,
    theme,
    ratio: 1,
    width: 1084,
    mode: "wide",
    beside: false,
  });
  const setUp = (data = longData(N), shown = replay) => {
    const events = { choose: vi.fn(), add: vi.fn(), hover: vi.fn(), drawn: vi.fn() };
    const cleanup = new Cleanup();
    const plate = new Plate(cleanup, events, async () => shown.tile("softmax", 0, N, 1, N, 300, 300));
    document.body.append(plate.element);
    const query = shown.rows - 100;
    plate.show(data, state(data), shown, read(shown.row(query), query, null, true));
    const text = (selector: string) => plate.element.querySelector(selector)!.textContent!;
    const canvas = plate.canvas;
    const g = () => (plate as unknown as { geometry: MatrixGeometry }).geometry;
    canvas.getBoundingClientRect = () => new DOMRect(0, 0, g().width, g().height);
    const press = (key: string) => plate.key(new KeyboardEvent("keydown", { key }));
    const pointer = (type: string, x: number, y: number, more: PointerEventInit = {}) =>
      canvas.dispatchEvent(new PointerEvent(type, { clientX: x, clientY: y, button: 0, ...more }));
    const zoom = () => plate.element.querySelector<HTMLElement>(".lt-zoom-words")!;
    return { plate, events, cleanup, press, pointer, text, zoom, g, canvas };
  };

  beforeEach(() => {
    vi.useFakeTimers();
    // happy-dom draws nothing; the plate only needs something to measure with.
    vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockImplementation(
      () =>
        new Proxy(
          {},
          {
            get: (_, name) =>
              name === "measureText"
                ? (t: string) => ({ width: 6 * t.length })
                : name === "createImageData"
                  ? (w: number, h: number) => ({ data: new Uint8ClampedArray(4 * w * h) })
                  : () => ({ addColorStop: () => undefined }),
            set: () => true,
          },
        ) as never,
    );
  });
  afterEach(() => {
    document.body.replaceChildren();
    vi.restoreAllMocks();
    vi.useRealTimers();
  });

  test("plus, minus and zero zoom around the chosen cell; Esc goes back", () => {
    const { press, zoom, text, plate } = setUp();
    const shown = () => !zoom().parentElement!.hidden;
    expect(shown()).toBe(false);
    expect(press("+")).toBe(true);
    expect(text(".lt-zoom-words")).toMatch(/^rows 700\u20131449 \u00b7 keys /);
    expect(shown()).toBe(true);
    const once = text(".lt-zoom-words");
    press("+");
    press("-");
    expect(text(".lt-zoom-words").length).toBe(once.length);
    expect(plate.free()).toBe(true);
    expect(shown()).toBe(false);
    expect(plate.free()).toBe(false);
    press("+");
    press("0");
    expect(shown()).toBe(false);
    press("+");
    const buttons = plate.element.querySelectorAll<HTMLElement>(".lt-zoom-bar button");
    buttons[2]!.focus();
    buttons[2]!.click();
    expect(shown()).toBe(false);
    expect(document.activeElement!.classList.contains("lt-twin")).toBe(true);
  });

  test("the wheel scrolls the page, and zooms with Ctrl or Cmd", () => {
    const { canvas, zoom } = setUp();
    const wheel = (more: WheelEventInit) => {
      const e = new WheelEvent("wheel", {
        deltaY: -100,
        clientX: 200,
        clientY: 200,
        cancelable: true,
        ...more,
      });
      // happy-dom leaves the place and the keys of a wheel event out.
      for (const [name, value] of Object.entries({ clientX: 200, clientY: 200, deltaMode: 0, ...more }))
        Object.defineProperty(e, name, { value });
      canvas.dispatchEvent(e);
      return e.defaultPrevented;
    };
    expect(wheel({})).toBe(false);
    expect(zoom().parentElement!.hidden).toBe(true);
    expect(wheel({ ctrlKey: true })).toBe(true);
    expect(zoom().parentElement!.hidden).toBe(false);
    expect(wheel({ metaKey: true })).toBe(true);
  });

  test("Shift and a drag brush a range of rows and one of keys; a drag pans; neither chooses a cell", () => {
    const { pointer, text, events, plate, g } = setUp();
    const at = (row: number, key: number) => [columnX(g(), key) + 0.1, rowY(g(), row) + 0.1] as const;
    pointer("pointerdown", ...at(600, 200), { shiftKey: true });
    pointer("pointermove", ...at(800, 500), { shiftKey: true });
    expect(plate.element.querySelector<HTMLElement>(".lt-rubber")!.hidden).toBe(false);
    pointer("pointerup", ...at(800, 500), { shiftKey: true });
    pointer("click", ...at(800, 500));
    const [r0, r1, k0, k1] = text(".lt-zoom-words").match(/\d+/g)!.map(Number) as [
      number,
      number,
      number,
      number,
    ];
    expect(Math.abs(r0 - 600) + Math.abs(k0 - 200)).toBeLessThan(16);
    expect(Math.abs(r1 - 800) + Math.abs(k1 - 500)).toBeLessThan(120);
    vi.advanceTimersByTime(100);
    const from = at(r0 + 100, k0 + 100);
    const to = at(r0 + 90, k0 + 80);
    pointer("pointerdown", ...from);
    pointer("pointermove", ...to);
    pointer("pointerup", ...to);
    expect(text(".lt-zoom-words").match(/\d+/g)!.map(Number).slice(0, 3)).toEqual([
      r0 + 10,
      r1 + 10,
      k0 + 20,
    ]);
    expect(events.choose).not.toHaveBeenCalled();
    expect(plate.free()).toBe(true);
  });

  test("the pointer reads the exact maximum of the tokens under it, and says which they are", async () => {
    const { pointer, events, plate, g } = setUp();
    const [x, y] = [g().left + 100, g().top + 300];
    const block = blockAt(g(), x, y)!;
    let best = [0, 0, -1];
    for (let i = block.rows[0]; i < block.rows[1]; i++)
      for (let j = block.keys[0]; j < block.keys[1]; j++) {
        const w = replay.value("softmax", i, j);
        if (w > best[2]!) best = [i, j, w];
      }
    expect(size(block.rows)).toBeGreaterThan(2);
    pointer("pointermove", x, y);
    await vi.advanceTimersByTimeAsync(100);
    const tip = plate.element.querySelector(".lt-tip")!.textContent!;
    expect(tip).toContain(`rows ${block.rows[0]}\u2013${block.rows[1] - 1}`);
    expect(tip).toContain(`keys ${block.keys[0]}\u2013${block.keys[1] - 1}`);
    expect(events.hover).toHaveBeenLastCalledWith([best[0], best[1]]);
    pointer("click", x, y);
    expect(events.choose).toHaveBeenCalledWith([best[0], best[1]]);
  });

  test("says when the head stands there exactly, also a short one", async () => {
    const long = setUp();
    await vi.advanceTimersByTimeAsync(200);
    expect(long.events.drawn).toHaveBeenCalled();
    const short = setUp(gridData(), lamp.replay);
    expect(short.events.drawn).toHaveBeenCalled();
  });
});

describe("text in lines", () => {
  test("words stay whole, punctuation stays with them, what is longer than a line is broken", () => {
    const names = ["The", " light", "house", ",", " a", " b", " Donaudampfschiff", "fahrt"];
    const lines = breakLines(
      names,
      names.map((n) => n.length),
      15,
    );
    expect(lines).toEqual([0, 4, 6, 7]);
    expect(names.map((_, i) => lineOf(lines, i))).toEqual([0, 0, 0, 0, 1, 1, 2, 3]);
    expect(breakLines([], [], 10)).toEqual([]);
  });

  test("scripts without spaces break anywhere, a line end breaks", () => {
    const names = ["\u6771", "\u4eac", "\u90fd", "a", "b"];
    expect(breakLines(names, [2, 2, 2, 1, 1], 5)).toEqual([0, 2]);
  });
});

describe("the text strip", () => {
  const theme = applyTheme(document.createElement("div"), "light");
  const n = 4096;
  const long = longHead(n, 2);
  const kinds = ["probability", "loss", "entropy", "rank"];
  const setUp = (data = longData(n), tokens: number[] = [2000], shown = long) => {
    const events = { choose: vi.fn(), add: vi.fn(), tokenStats: vi.fn(async () => undefined) };
    const strip = new TextStrip(new Cleanup(), events);
    document.body.append(strip.element);
    const query = Math.min(tokens[0]!, shown.rows - 1);
    const show = (d = data) =>
      strip.show(d, shown, read(shown.row(query), query, null, true), { theme, tokens });
    show();
    const words = () => [...strip.element.querySelectorAll<HTMLElement>(".lt-word")];
    return {
      strip,
      events,
      show,
      words,
      word: (t: number) => words().find((w) => w.dataset.token === String(t)),
    };
  };

  afterEach(() => {
    document.body.replaceChildren();
  });

  test("holds only the lines around the chosen token", () => {
    const { strip, words, word } = setUp();
    expect(strip.element.querySelectorAll(".lt-line").length).toBeLessThanOrEqual(24);
    expect(words().length).toBeLessThan(800);
    expect(word(2000)!.classList.contains("lt-query")).toBe(true);
    expect(word(2000)!.getAttribute("aria-setsize")).toBe("4096");
    expect(word(0)).toBeUndefined();
    expect(word(2001)!.classList.contains("lt-unseen")).toBe(true);
  });

  test("a click chooses, a click with Shift adds to the sum, and what was added is marked", () => {
    const { events, word } = setUp(longData(n), [2000, 1990, 1995]);
    word(1993)!.click();
    expect(events.choose).toHaveBeenCalledWith(1993);
    word(1993)!.dispatchEvent(new MouseEvent("click", { bubbles: true, shiftKey: true }));
    expect(events.add).toHaveBeenCalledWith(1993);
    expect(word(1995)!.classList.contains("lt-picked")).toBe(true);
    expect(word(1990)!.classList.contains("lt-picked")).toBe(false);
  });

  test("arrows go through the text, up and down by lines", () => {
    const { strip, events } = setUp();
    const press = (key: string) => strip.key(new KeyboardEvent("keydown", { key }));
    press("ArrowRight");
    press("ArrowDown");
    press("End");
    const [[right], [down], [end]] = events.choose.mock.calls as unknown as [[number], [number], [number]];
    expect([right, end]).toEqual([2001, n - 1]);
    expect(down).toBeGreaterThan(2005);
    expect(press("x")).toBe(false);
  });

  test("colours by what the model thought of each token, which it asks for once", async () => {
    const { strip, events, show, word } = setUp(longData(n, { token_stats: kinds }));
    const radio = [...strip.element.querySelectorAll<HTMLElement>("[role=radio]")];
    const offered = radio.filter((r) => !(r as HTMLElement).hidden).map((r) => r.textContent);
    expect(offered).toEqual(["Attention", "Probability", "Loss", "Entropy", "Rank"]);
    radio[1]!.click();
    expect(events.tokenStats).toHaveBeenCalledTimes(1);
    expect(strip.element.textContent).toContain("Computing");
    const stats = new Float32Array(4 * n).fill(Number.NaN);
    stats.set([0.5, 0.001], 1999);
    stats.set([1, 600], 3 * n + 1999);
    const facts = longData(n, { token_stats: kinds }).facts;
    const { GridData } = await import("../src/attention_grid/data");
    show(GridData.from(facts, new Uint8Array(0), new Float32Array(0), stats));
    expect(word(1999)!.title).toBe("\u00b7word59\u2081\u2089\u2089\u2089 probability 50\u202f%");
    expect(word(2000)!.style.background).not.toBe(word(1999)!.style.background);
    expect(word(1998)!.title).toContain("nothing came before");
    expect(strip.element.querySelector(".lt-strip-legend")!.textContent).toContain("25\u202f%");
    radio[4]!.click();
    expect(word(2000)!.title).toContain("rank 600");
    expect(events.tokenStats).toHaveBeenCalledTimes(1);
  });

  test("says when these values need a kernel", async () => {
    const { strip, events } = setUp(longData(n, { token_stats: kinds }));
    events.tokenStats.mockRejectedValue(new Error("saved without a kernel"));
    strip.element.querySelectorAll<HTMLElement>("[role=radio]")[2]!.click();
    await vi.waitFor(() => expect(strip.element.textContent).toContain("need a kernel"));
  });

  test("nothing to colour by, no choice of colours", () => {
    const { strip } = setUp(longData(n, { token_stats: [] }));
    expect(strip.element.classList.contains("lt-no-stats")).toBe(true);
  });
});

test("values of tokens on the ramp and in words", () => {
  expect(probability(0.78)).toBe("78\u202f%");
  expect(probability(0.0932)).toBe("9.3\u202f%");
  expect(probability(0.0078)).toBe("0.78\u202f%");
  expect(probability(1e-8)).toBe("<1e\u22126");
  expect(probability(Number.NaN)).toBe("\u2013");
  expect(TOKEN_COLOURS.probability.position(1)).toBe(0);
  expect(TOKEN_COLOURS.probability.position(0.25)).toBeCloseTo(1 / 3);
  expect(TOKEN_COLOURS.rank.position(10)).toBeCloseTo(1 / 3);
  expect(TOKEN_COLOURS.loss.say(2.314)).toBe("loss 2.31 nats");
});
