// EmbeddingSpace3D: its data, camera, lasso, labels, colours, and the widget as a notebook runs it (drawn flat here).
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Camera } from "../src/embedding_space/camera";
import { ACCENT, GREY, RAMP, seenLinks, style } from "../src/embedding_space/colours";
import { ends, type Facts, type Parts, SpaceData, typed, UNPLACED } from "../src/embedding_space/data";
import { placeLabels } from "../src/embedding_space/labels";
import { combine, covered, inside, nearest, towards } from "../src/embedding_space/lasso";
import { named } from "../src/embedding_space/overlay";
import { columnsOf } from "../src/embedding_space/vector";
import widget from "../src/embedding_space/widget";
import { FakeModel } from "./fixture";
import { observers, page } from "./page";

const facts: Facts = {
  title: "Embedding space",
  subtitle: "6 tokens × 4",
  provenance: "token_embd Q8_0 · tiny · PCA",
  details: {},
  model: "tiny",
  live: true,
  saved: "25 Nov",
  n_points: 6,
  width: 4,
  texts: false,
  path: null,
  method: "pca",
  low: [0, 0, 0],
  high: [2, 2, 2],
  unplaced: 1,
  trustworthiness: 0.68,
  quality_rows: 5,
  neighbours_kept: 0.31,
  note: "",
  phase: "done",
  doing: "",
  done: 0,
  total: 0,
  error: "",
  clusters: [{ label: 0, name: "lamp, candle", count: 2, at: [1, 1, 1], hue: 0, level: 0 }],
  unclustered: 0.5,
  columns: [
    { name: "cluster", label: "Cluster", unit: "" },
    { name: "norm", label: "Norm", unit: "length of the vector" },
    { name: "kind", label: "Kind", unit: "" },
  ],
  drift: null,
  network: null,
};
const view = (a: ArrayBufferView) => new DataView(a.buffer as ArrayBuffer, a.byteOffset, a.byteLength);
const tokens = ["·lamp", "·lamps", "clamp", "Lamp", "·sea", "<img src=x>"];
const T = UNPLACED - 1;
const positions = new Uint16Array([
  ...[0, 0, 0, T, 0, 0, 0, T, 0, T / 2, T / 2, T / 2, T, T, T],
  ...[UNPLACED, UNPLACED, UNPLACED],
]);

function parts(changes: Partial<Facts> = {}, more: Partial<Parts> = {}): Parts {
  return {
    facts: { ...facts, ...changes },
    positions: view(positions),
    moved: view(new Uint16Array(0)),
    labels: view(new Int16Array([0, 0, -1, -1, -1, -1])),
    ids: view(new Int32Array(0)),
    joined: view(new Int32Array(0)),
    cosines: view(new Float32Array(0)),
    columns: {
      norm: { names: [], counts: [], buffer: 0 },
      kind: { names: ["normal", "control"], counts: [5, 1], buffer: 1 },
    },
    columnData: [
      view(new Float32Array([1, 2, 3, 4, Number.NaN, 6])),
      view(new Uint8Array([0, 0, 0, 0, 0, 1])),
    ],
    embedded: { texts: 0 },
    embeddedData: [view(new TextEncoder().encode(tokens.join("\n")))],
    ...more,
  };
}

const space = (changes: Partial<Facts> = {}, more: Partial<Parts> = {}) =>
  new SpaceData(parts(changes, more));

describe("data", () => {
  test("buffers are read where they lie, and copied where they lie unevenly", () => {
    const bytes = new Uint8Array([9, 1, 0, 2, 0]);
    expect([...typed(Uint16Array, new DataView(bytes.buffer, 1, 4))]).toEqual([1, 2]);
    expect(typed(Float32Array, undefined).length).toBe(0);
  });

  test("rows are ids of a whole vocabulary, and looked up in a choice", () => {
    expect(space().rowOf(4)).toBe(4);
    expect(space().rowOf(6)).toBeNull();
    const chosen = space({}, { ids: view(new Int32Array([50, 40, 30, 20, 10, 0])) });
    expect([chosen.rowOf(30), chosen.rowOf(7), chosen.idOf(1)]).toEqual([2, null, 40]);
  });

  test("a row without a place is known, and points lie in the cube", () => {
    const data = space();
    expect([0, 3, 5].map((row) => data.placed(row))).toEqual([true, true, false]);
    expect(data.point(3).map((v) => Math.round(100 * v))).toEqual([0, 0, 0]);
    expect(data.inCube([2, 0, 1])).toEqual([0.5, -0.5, 0]);
  });

  test("the compared model's points are looked at where they are known", () => {
    expect(space().moved).toBeNull();
    const data = space({}, { moved: view(new Uint16Array(18).fill(T)) });
    data.second = true;
    expect(data.point(0)).toEqual([0.5, 0.5, 0.5]);
    expect(space().positions).toEqual(data.positions);
  });

  test("a token's path goes through the layers", () => {
    expect(space().pathOf(1)).toEqual([]);
    expect(space({ path: { tokens: 2, layers: [0, 5, 9] } }).pathOf(3)).toEqual([1, 3, 5]);
  });

  test("ends of a scale hold 98 %, gaps are left out", () => {
    const values = Float32Array.from({ length: 1001 }, (_, i) => i);
    values[0] = Number.NaN;
    const [low, high] = ends(values);
    expect(low).toBeCloseTo(11, -1);
    expect(high).toBeCloseTo(990, -1);
    expect(ends(new Float32Array([2, 2]))).toEqual([2, 3]);
  });

  test("search: what it is, then what begins with it, then what holds it; a space asks for beginnings of words", () => {
    expect(space().search("lamp", 10)).toEqual({
      rows: [3, 0, 1, 2],
      texts: ["Lamp", "·lamp", "·lamps", "clamp"],
      found: 4,
    });
    expect(space().search(" lamp", 10).rows).toEqual([0, 1]);
    expect(space().search(" ", 10).found).toBe(0);
    expect(space().search("lamp", 1).found).toBe(4);
  });
});

describe("camera", () => {
  const camera = () => {
    const made = new Camera();
    [made.width, made.height] = [400, 300];
    made.frame(positions, UNPLACED);
    return made;
  };

  test("the shader's matrix and the pixels of one point say the same", () => {
    const c = camera();
    c.orbit(70, -40);
    c.pan(13, 5);
    c.zoomAt(1.4, 120, 80);
    const xy = new Float32Array(12);
    const depths = new Float32Array(6);
    c.projectAll(positions, UNPLACED, xy, depths);
    const data = space();
    for (let row = 0; row < 5; row++) {
      const [x, y, depth] = c.project(data.point(row));
      expect(xy[2 * row]).toBeCloseTo(x, 2);
      expect(xy[2 * row + 1]).toBeCloseTo(y, 2);
      expect(depths[row]).toBeCloseTo(depth, 4);
    }
    expect(xy[10]).toBeNaN();
  });

  test("at the start all of few points are on the plate", () => {
    const c = camera();
    const data = space();
    for (let row = 0; row < 5; row++) {
      const [x, y] = c.project(data.point(row));
      expect(x > 0 && x < 400 && y > 0 && y < 300).toBe(true);
    }
  });

  test("zooming keeps what is under the pointer", () => {
    const c = camera();
    c.orbit(40, 20);
    const target = c.target;
    const [x, y] = c.project(target);
    c.zoomAt(3, x, y);
    const [nx, ny] = c.project(target);
    expect([nx, ny]).toEqual([expect.closeTo(x, 3), expect.closeTo(y, 3)]);
    expect(c.zoom).toBeCloseTo(3);
  });
});

describe("lasso and picking", () => {
  const xy = new Float32Array([10, 10, 50, 50, 90, 90, 50, 52, Number.NaN, Number.NaN]);
  const depths = new Float32Array([1, 3, 1, 1, 1]);
  const all = () => true;

  test("an outline covers what is inside by the even-odd rule, hidden points too", () => {
    const square = [
      [40, 40],
      [60, 40],
      [60, 60],
      [40, 60],
    ] as const;
    expect(covered(square, xy, all)).toEqual([1, 3]);
    expect(covered(square, xy, (row) => row !== 3)).toEqual([1]);
    expect(covered(square.slice(0, 2), xy, all)).toEqual([]);
    const notch = [
      [0, 0],
      [100, 0],
      [100, 100],
      [50, 20],
      [0, 100],
    ] as const;
    expect(inside(notch, 50, 60)).toBe(false);
    expect(inside(notch, 10, 60)).toBe(true);
  });

  test("selections merge, shrink, and are replaced", () => {
    expect(combine([3, 1], [2, 3], "add")).toEqual([1, 2, 3]);
    expect(combine([3, 1], [2, 3], "remove")).toEqual([1]);
    expect(combine([3, 1], [2], "replace")).toEqual([2]);
  });

  test("the nearest point within reach, the one in front where two are as near", () => {
    expect(nearest(xy, depths, 50, 51, 12, all)).toBe(3);
    expect(nearest(xy, depths, 70, 30, 12, all)).toBe(-1);
    expect(nearest(xy, depths, 50, 51, 12, (row) => row === 1)).toBe(1);
  });

  test("steps go to the next point in a direction", () => {
    expect(towards(xy, [10, 10], [1, 0], [100, 100], all)).toBe(1);
    expect(towards(xy, [10, 10], [-1, 0], [100, 100], all)).toBe(-1);
  });
});

describe("labels", () => {
  const room = { left: 0, top: 0, right: 200, bottom: 100 };
  const label = (text: string, x: number, y: number) => ({ text, x, y, width: 40, height: 14, gap: 4 });

  test("the first wins, others move aside or are dropped, none overlaps or leaves the plate", () => {
    const many = Array.from({ length: 40 }, (_, i) => label(`l${i}`, 100 + (i % 5), 50 + (i % 3)));
    const placed = placeLabels(many, room);
    expect(placed[0]!.label.text).toBe("l0");
    expect(placed.length).toBeGreaterThan(1);
    expect(placed.length).toBeLessThan(12);
    placed.forEach((a, i) => {
      expect(a.x - 20 >= 0 && a.x + 20 <= 200 && a.y - 7 >= 0 && a.y + 7 <= 100).toBe(true);
      for (const b of placed.slice(i + 1))
        expect(Math.abs(a.x - b.x) >= 40 || Math.abs(a.y - b.y) >= 14).toBe(true);
    });
  });

  test("what is reserved stays free", () => {
    expect(placeLabels([label("a", 100, 50)], room, [room])).toEqual([]);
  });

  test("few groups are named from afar, more when near, one alone when it is isolated", () => {
    const groups = [2, 0, 3, 1, 0].map((level, i) => ({ ...facts.clusters[0]!, label: i, level }));
    const labels = (zoom: number, isolated: number | null = null) =>
      named(groups, zoom, isolated).map((g) => g.label);
    expect(labels(1)).toEqual([1, 4]);
    expect(labels(2)).toEqual([1, 4, 3]);
    expect(labels(5)).toEqual([1, 4, 3, 0, 2]);
    expect(labels(1, 2)).toEqual([2]);
  });
});

describe("colours", () => {
  const codes = (s: { bytes: Uint8Array }, at = 0) => [0, 1, 2, 3, 4, 5].map((row) => s.bytes[4 * row + at]);

  test("groups have hues, the rest is grey; what stands out is drawn last", () => {
    const made = style(space(), null, true, null, new Set());
    expect(codes(made)).toEqual([1, 1, GREY, GREY, GREY, GREY]);
    expect([...made.order].slice(-2)).toEqual([0, 1]);
  });

  test("numbers take the ramp, gaps are grey, points without a place are not shown", () => {
    const data = space();
    const made = style(data, data.column("norm"), false, null, new Set());
    const [first, , , , gap, last] = codes(made);
    expect([first, gap, last]).toEqual([RAMP, GREY, 255]);
    expect(codes(made, 2)).toEqual([255, 255, 255, 255, 255, 0]);
  });

  test("an isolated group is alone, selected points are the accent and the others fade", () => {
    expect(codes(style(space(), null, true, 0, new Set()), 2)).toEqual([255, 255, 0, 0, 0, 0]);
    const chosen = style(space(), null, true, null, new Set([2]));
    expect(codes(chosen)[2]).toBe(ACCENT);
    expect(codes(chosen, 2)[0]).toBeLessThan(255);
  });

  test("lines are as strong as their cosines, and those to hidden points are not drawn", () => {
    const network = { words: "2 links between 3 tokens", low: 0.2, high: 0.8 };
    const more = {
      joined: view(new Int32Array([0, 1, 1, 2])),
      cosines: view(new Float32Array([0.8, 0.2])),
    };
    const data = space({ network }, more);
    expect([...data.links!.strength]).toEqual([217, 38]);
    const many = space(
      { network },
      { joined: view(new Int32Array(4000)), cosines: view(new Float32Array(2000).fill(0.8)) },
    );
    expect(many.links!.strength[0]).toBe(108);
    const all = seenLinks(data.links, style(data, null, true, null, new Set()))!;
    expect([[...all.ends], [...all.strength]]).toEqual([
      [0, 1, 1, 2],
      [217, 38],
    ]);
    expect([...seenLinks(data.links, style(data, null, true, 0, new Set()))!.ends]).toEqual([0, 1]);
    expect(seenLinks(data.links, style(data, null, true, 7, new Set()))).toBeNull();
    expect(space({ network: null }, more).links).toBeNull();
  });

  test("a vector's block has full rows where that is possible", () => {
    expect([576, 640, 4, 1].map(columnsOf)).toEqual([36, 40, 4, 1]);
  });
});

describe("widget", () => {
  let el: HTMLElement;
  let end: (() => void) | undefined;
  let model: FakeModel;

  const traits = (changes: Partial<Facts> = {}) => {
    const p = parts(changes, { embedded: {}, embeddedData: [] });
    return {
      facts: p.facts,
      positions: p.positions,
      moved: p.moved,
      labels: p.labels,
      ids: p.ids,
      joined: p.joined,
      cosines: p.cosines,
      columns: p.columns,
      column_data: p.columnData,
      embedded: {},
      embedded_data: [],
      token: null,
      selected_tokens: [],
      color: "cluster",
      projection: "pca",
      network: null,
      search: "",
      theme: "light",
    };
  };
  const start = async (changes: Partial<Facts> = {}) => {
    model = new FakeModel(traits(changes) as never);
    end = (await widget.render({ model, el } as never)) as () => void;
  };
  const asked = (type: string) =>
    model.sent.filter((m) => (m as { type: string }).type === type) as never as {
      id: string;
      row: number;
      text: string;
    }[];

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
    page.width = 1084;
    el = document.createElement("div");
    document.body.append(el);
  });
  afterEach(() => {
    end?.();
    el.remove();
    expect(observers.size).toBe(0);
    vi.useRealTimers();
  });

  test("a quality read off a sample says so, and too few points have none", async () => {
    const words = () => el.querySelector(".lt-emb-advice")?.textContent;
    await start({ quality_rows: 3 });
    expect(words()).toContain("(estimated from 3 tokens)");
    end?.();
    el.replaceChildren();
    await start({ trustworthiness: null, neighbours_kept: null, quality_rows: 0 });
    expect(words()).toBe("too few points to measure how far to trust the picture");
  });

  test("header, legend and advice say what there is", async () => {
    await start();
    expect(el.querySelector("h2")?.textContent).toBe("Embedding space6 tokens × 4");
    expect(el.querySelector(".lt-emb-legend")?.textContent).toContain("lamp, candle 2");
    const advice = el.querySelector(".lt-emb-advice")?.textContent;
    expect(advice).toContain("trustworthiness 0.68");
    expect(advice).not.toContain("estimated");
    expect(el.querySelector(".lt-emb-note")?.textContent).toBe("1 token not placed");
  });

  test("a locked token is read, and its text is never markup", async () => {
    await start();
    model.set("token", 5);
    await vi.advanceTimersByTimeAsync(10);
    const [question] = asked("token");
    expect(question?.row).toBe(5);
    const about = { text: tokens[5]!, rows: [0], texts: [tokens[0]!], cosines: [0.9] };
    model.receive(
      { type: "token", id: question!.id, row: 5, ...about },
      view(new Float32Array([1, -1, 0, 2])),
    );
    await vi.advanceTimersByTimeAsync(20);
    expect(el.querySelector(".lt-emb-locked")?.textContent).toBe("<img src=x>");
    expect(el.querySelector("img")).toBeNull();
    expect(el.querySelector("[data-region=near] [data-row]")?.textContent).toBe("·lamp0.900");
    expect(el.querySelector(".lt-emb-vector")?.textContent).toContain("‖v‖ = 2.45");
  });

  test("the network of what is selected is asked for by a choice, counted, and needs a kernel", async () => {
    await start({ n_points: 6, network: { words: "2 links between 3 tokens", low: 0.2, high: 0.8 } });
    const choice = el.querySelector<HTMLSelectElement>(".lt-emb-network select")!;
    expect(choice.value).toBe("");
    choice.value = "3";
    choice.dispatchEvent(new Event("change"));
    expect(model.get("network" as never)).toBe(3);
    model.set("network" as never, 0.45 as never);
    await vi.advanceTimersByTimeAsync(100);
    expect(choice.selectedOptions[0]!.textContent).toBe("cosine at least 0.45");
    expect(el.querySelector(".lt-emb-network")!.textContent).toContain("2 links between 3 tokens");
    end?.();
    await start({ live: false });
    await vi.advanceTimersByTimeAsync(100);
    expect(el.querySelector<HTMLSelectElement>(".lt-emb-network select")!.disabled).toBe(true);
  });

  test("progress says what is shown meanwhile, and Stop asks the kernel", async () => {
    await start({ phase: "computing", doing: "UMAP", done: 20, total: 200 });
    const line = el.querySelector<HTMLElement>(".lt-emb-progress")!;
    expect(line.hidden).toBe(false);
    expect(line.textContent).toContain("UMAP, step 20 of 200 · PCA is shown meanwhile");
    line.querySelector("button")!.click();
    expect(asked("stop")).toHaveLength(1);
    model.set("facts", { ...facts, phase: "error", doing: "UMAP", error: "no memory" });
    await vi.advanceTimersByTimeAsync(20);
    expect(line.textContent).toContain("The notebook is fine. no memory");
  });

  test("without a kernel it says so and asks nothing", async () => {
    await start({ live: false });
    model.set("token", 1);
    await vi.advanceTimersByTimeAsync(20);
    expect(el.querySelector(".lt-emb-status")?.textContent).toContain("need a kernel");
    expect(el.querySelector<HTMLInputElement>(".lt-emb-search input")?.disabled).toBe(true);
    expect(model.sent).toEqual([]);
  });

  test("Esc frees selection, then the locked token", async () => {
    await start();
    model.set("token", 1);
    model.set("selected_tokens", [0, 2]);
    await vi.advanceTimersByTimeAsync(10);
    const press = () =>
      el
        .querySelector("[data-region=space]")!
        .dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true, composed: true }));
    press();
    await vi.advanceTimersByTimeAsync(10);
    expect([model.get("token"), model.get("selected_tokens")]).toEqual([1, []]);
    press();
    expect(model.get("token")).toBeNull();
  });
});
