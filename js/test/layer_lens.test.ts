// LayerLens: its data, its layout, and the widget as a notebook runs it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Facts, LensData, type Push } from "../src/layer_lens/data";
import { layoutStrips, layoutTable, seen, shownRows, stepOf, stripHit } from "../src/layer_lens/layout";
import { klShare, share } from "../src/layer_lens/paint_table";
import widget from "../src/layer_lens/widget";
import { figures, milliseconds, mixers, signed, strongest, sumParts } from "../src/layer_lens/words";
import { FakeModel } from "./fixture";
import { observers, page, resize } from "./page";

interface Stored {
  facts: Facts;
  embedded: number[];
  words: Record<string, string>;
  push: Push;
  streams: string;
  push_heads: string;
  embedded_lens: string[];
  cells: [number, number, number[], number[], number, number][];
  head: number;
  norm: number;
}

const stored = JSON.parse(readFileSync(join(import.meta.dirname, "data", "lens.json"), "utf8")) as Stored;
const view = (text: string) => {
  const b = new Uint8Array(Buffer.from(text, "base64"));
  return new DataView(b.buffer, b.byteOffset, b.byteLength);
};
const { facts } = stored;
const buffers = stored.embedded_lens.map(view);

function lensData(changes: Partial<Facts> = {}): LensData {
  const data = LensData.from({ ...facts, ...changes }, view(stored.streams));
  data.put(stored.embedded, facts.rows, stored.words, buffers);
  data.putPush(stored.push, view(stored.push_heads));
  return data;
}

/** Many layers and tokens; nothing is read. */
function large(layers: number, tokens: number, heads = 0): LensData {
  const data = LensData.from(
    {
      ...facts,
      tokens: Array.from({ length: tokens }, (_, i) => `t${i}`),
      rows: Array.from({ length: layers + 1 }, (_, i) => i - 1),
      layers: Array.from({ length: layers }, (_, layer) => ({ layer, heads, outliers: [] })),
    },
    new DataView(new ArrayBuffer(0)),
  );
  if (heads > 0) data.putPush({ ...stored.push, heads }, new DataView(new ArrayBuffer(4 * layers * heads)));
  return data;
}

describe("data", () => {
  test("cells are those that Python says", () => {
    const data = lensData();
    for (const [row, token, ids, probabilities, rank, probability] of stored.cells) {
      const cell = data.cell(row, token)!;
      expect([...cell.ids]).toEqual(ids);
      probabilities.forEach((p, i) => {
        expect(cell.probabilities[i]).toBeCloseTo(p, 6);
      });
      expect(cell.answerRank).toBe(rank);
      expect(cell.answerProbability).toBeCloseTo(probability, 6);
    }
  });

  test("the output row is the model's answer, everywhere", () => {
    const data = lensData();
    expect(data.output).toBe(29);
    for (let token = 0; token < data.tokens; token++) {
      const cell = data.cell(29, token)!;
      expect(cell.isAnswer && cell.answerRank === 1).toBe(true);
    }
    expect(data.word(data.answer(23)!)).toBe("·lamp");
  });

  test("what was not read is not there, and half a buffer is not taken", () => {
    const data = large(30, 24);
    expect([data.cell(3, 3), data.has(3), data.answer(3)]).toEqual([null, false, null]);
    data.put([3], facts.rows, {}, [...buffers.slice(0, 5), new DataView(new ArrayBuffer(2))]);
    expect(data.has(3)).toBe(false);
    expect(data.stream("residual").length).toBe(0);
  });

  test("streams and heads are by layer", () => {
    const data = lensData();
    expect(data.stream("residual")[12]).toBeCloseTo(stored.norm, 2);
    expect(data.head(23, 1)).toBeCloseTo(stored.head, 5);
    expect(data.head(23, 9)).toBeNaN();
  });

  test("the parts add up to the logit, but for the rounding", () => {
    const none = { ...stored.push, mlp: stored.push.mlp.map(() => null) };
    expect(sumParts(none, "recurrence").map(([name]) => name)).not.toContain("MLP");
    expect(mixers([{ layer: 0, heads: 0, mixer: "recurrence", outliers: [] }])).toBe("recurrence");
    expect(mixers([{ layer: 0, heads: 2, outliers: [] }])).toBe("attention");
    const total = sumParts(stored.push).reduce((sum, [, value]) => sum + value, 0);
    expect(total + stored.push.rounding!).toBeCloseTo(stored.push.logit, 4);
    expect(Math.abs(total - stored.push.logit)).toBeLessThan(0.1);
    const heads = Array.from({ length: 9 }, (_, head) => lensData().head(23, head));
    expect(heads.reduce((a, b) => a + b, 0)).toBeCloseTo(stored.push.attention[23]!, 4);
  });

  test("numbers in words", () => {
    expect([signed(4.94), signed(-0.31), signed(null), signed(-0.001)]).toEqual([
      "+4.9",
      "−0.3",
      "–",
      "+0.0",
    ]);
    expect([figures(816.4), figures(0.9452), figures(Number.NaN)]).toEqual(["816", "0.945", "–"]);
    expect([milliseconds(8.72), milliseconds(99.4)]).toEqual(["8.7\u202fms", "99\u202fms"]);
    expect(strongest([null, -3, 2])).toBe(1);
    expect(strongest([null])).toBe(-1);
  });

  test("kl: nothing at the output, and less and less towards it", () => {
    const data = lensData();
    expect(data.cell(29, 23)!.kl).toBeLessThan(1e-4);
    expect(data.cell(28, 23)!.kl).toBeGreaterThan(0);
    expect(data.cell(5, 23)!.kl).toBeGreaterThan(data.cell(28, 23)!.kl);
    const [none, some] = [share(data.cell(29, 23)!, "kl", 49152), share(data.cell(28, 23)!, "kl", 49152)];
    expect(none).toBeLessThan(1e-4);
    expect(some).toBeGreaterThan(none);
    expect(klShare(10)).toBeCloseTo(0.52, 2);
  });

  test("colour: probability as it is, rank 1 strongest, entropy as a share", () => {
    const cell = lensData().cell(29, 23)!;
    expect(share(cell, "probability", 49152)).toBe(cell.probabilities[0]);
    expect(share(cell, "rank", 49152)).toBe(1);
    expect(share(cell, "entropy", 49152)).toBeCloseTo(cell.entropy / Math.log(49152), 6);
  });
});

describe("layout", () => {
  test("the output is on top, the embedding at the bottom, the locked layer always there", () => {
    expect(shownRows([-1, 0, 1, 2, 3], 2, null)).toEqual([3, 1, -1]);
    expect(shownRows([-1, 0, 1, 2, 3], 2, 2)).toEqual([3, 2, 1, -1]);
    expect(shownRows(facts.rows, null, null).length).toBe(16);
    expect([12, 30, 80].map((n) => stepOf(large(n, 4), null))).toEqual([1, 2, 4]);
  });

  test("never is wider than its room, and draws only columns that are seen", () => {
    for (const width of [300, 360, 600, 760, 1400]) {
      const layout = layoutTable(large(30, 512), width, [29, -1]);
      expect(layout.width).toBeLessThanOrEqual(width);
      const [from, to] = seen(layout, 10_000, 512);
      expect(to - from).toBeLessThanOrEqual(layout.fit + 1);
      expect(from).toBe(Math.floor(10_000 / layout.cell));
    }
    expect(seen(layoutTable(large(30, 3), 760, [29]), 0, 3)).toEqual([0, 3]);
  });

  test("every layer and head is hit where it is drawn", () => {
    for (const [layers, heads] of [
      [30, 9],
      [32, 32],
      [126, 128],
    ] as const) {
      const layout = layoutStrips(large(layers, 4, heads), 1084, false);
      const map = layout.strips.find((s) => s.kind === "heads")!;
      for (const place of [0, layers - 1])
        for (const head of [0, heads - 1]) {
          const x = layout.left + (place + 0.5) * layout.step;
          const hit = stripHit(layout, layers, x, map.top + (head + 0.5) * layout.head);
          expect(hit).toEqual({ place, kind: "heads", head });
        }
      expect(stripHit(layout, layers, layout.left - 2, 40)).toBeNull();
    }
  });

  test("no times, no strip of times", () => {
    const kinds = (data: LensData) => layoutStrips(data, 1084, false).strips.map((s) => s.kind);
    expect(kinds(lensData())).not.toContain("time");
    expect(kinds(lensData({ times: { ms: facts.layers.map(() => 1), repeats: 3 } }))).toContain("time");
  });
});

const open: (() => void)[] = [];

function makeModel(state: Record<string, unknown> = {}): FakeModel {
  return new FakeModel({
    facts,
    streams: view(stored.streams),
    embedded: stored.embedded,
    embedded_lens: buffers,
    words: stored.words,
    push: stored.push,
    push_heads: view(stored.push_heads),
    at_embedding: false,
    word: null,
    against: null,
    measure: "probability",
    every: null,
    ...state,
  });
}

const nothing = {
  embedded: [],
  embedded_lens: [],
  words: {},
  push: {},
  push_heads: new DataView(new ArrayBuffer(0)),
};

function show(model: FakeModel): HTMLElement {
  const el = document.createElement("div");
  document.body.append(el);
  open.push(widget.render({ model, el } as never) as () => void);
  return el;
}

const text = (el: Element, selector: string) => el.querySelector(selector)?.textContent ?? "";
const settle = () => vi.advanceTimersByTimeAsync(120);
const press = (target: Element, key: string) => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, composed: true, cancelable: true });
  target.dispatchEvent(event);
  return event;
};

describe("LayerLens", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    for (const dispose of open.splice(0)) dispose();
    document.body.replaceChildren();
    page.width = 1084;
    vi.useRealTimers();
  });

  test("answers first: the last token, what comes out, where it comes from", () => {
    const el = show(makeModel());
    expect(text(el, "h2")).toBe("Layer lens30 layers × 24 tokens");
    expect(text(el, ".lt-provenance")).toBe(facts.provenance);
    expect(text(el, ".lt-ll-panel h3")).toBe("After layer 29, at ·the₂₃");
    expect(text(el, ".lt-ll-list")).toMatch(/^·lamp\d\d\u202f%/);
    expect(text(el, ".lt-ll-sentence")).toMatch(
      /^Attention in layer 23 pushes ·lamp by \+\d\.\d logits; the MLP of layer 29 adds \+1\d\.\d\.$/,
    );
    expect(text(el, ".lt-ll-sum")).toMatch(
      /^Adds up: embedding .* = \+19\.\d\d; the model’s logit \+19\.\d\d; left/,
    );
  });

  test("a lock from Python is read, in every row", async () => {
    const model = makeModel();
    const el = show(model);
    model.set("selected_layer", 23);
    model.set("selected_tokens", [22, 4]);
    await settle();
    expect(text(el, ".lt-ll-panel h3")).toBe("After layer 23, at ·lit₂₂");
    const rank = lensData().cell(23, 22)!.answerRank;
    expect(text(el, ".lt-ll-mark")).toBe(`#${rank}`);
    model.set("at_embedding", true);
    await settle();
    expect(text(el, ".lt-ll-panel h3")).toBe("Before layer 0, at ·lit₂₂");
    expect(model.sent).toEqual([]);
  });

  test("keys step, lock and free, and reach no notebook", async () => {
    const model = makeModel();
    const el = show(model);
    const notebook = vi.fn();
    document.addEventListener("keydown", notebook, true);
    const table = el.querySelector<HTMLElement>("[data-region=table]")!;
    table.focus();
    for (const key of ["ArrowDown", "ArrowDown", "ArrowLeft", "Enter"])
      expect(press(table, key).defaultPrevented).toBe(true);
    expect([model.get("selected_layer"), model.get("selected_tokens")]).toEqual([25, [22]]);
    await settle();
    expect(table.querySelector("[aria-selected=true]")?.textContent).toContain("After layer 25, ·lit₂₂: ");
    press(table, "End");
    for (let i = 0; i < 20; i++) press(table, "ArrowDown");
    press(table, "Enter");
    await settle();
    expect([model.get("at_embedding"), model.get("selected_layer")]).toEqual([true, null]);
    for (let i = 0; i < 3; i++) press(table, "Escape");
    await settle();
    expect([model.get("at_embedding"), model.get("selected_tokens")]).toEqual([false, []]);
    expect(press(table, "a").defaultPrevented).toBe(false);
    document.removeEventListener("keydown", notebook, true);
    expect(notebook).toHaveBeenCalledTimes(1);
  });

  test("a layer and a head are chosen below", async () => {
    const model = makeModel();
    const el = show(model);
    const strips = el.querySelector<HTMLElement>("[data-region=strips]")!;
    strips.focus();
    for (const key of ["End", "ArrowLeft", "ArrowDown", "Enter"]) press(strips, key);
    await settle();
    expect([model.get("selected_layer"), model.get("selected_head")]).toEqual([28, 1]);
    expect(strips.querySelector("[aria-selected=true]")?.textContent).toMatch(/^Layer 28: H1 on ·lamp [+−]/);
  });

  test("only the window that is seen is asked for, then the push", async () => {
    const model = makeModel(nothing);
    const el = show(model);
    await settle();
    expect(model.sent.length).toBe(1);
    const request = model.sent[0] as { type: string; positions: [number, number] };
    expect(request.type).toBe("window");
    expect(request.positions[1]).toBe(24);
    expect(24 - request.positions[0]).toBeLessThanOrEqual(14);
    expect(text(el, ".lt-ll-list")).toBe("not read yet");
    await vi.advanceTimersByTimeAsync(250);
    expect(text(el, ".lt-ll-status")).toMatch(/^Reading \d+ tokens in every layer … Stop$/);
    const stop = el.querySelector<HTMLElement>(".lt-ll-status button")!;
    model.receive({ type: "progress", id: model.sent[0]!.id, done: 3, total: 12 } as never);
    expect(text(el, ".lt-ll-status")).toMatch(/… 25\u202f% Stop$/);
    expect(el.querySelector(".lt-ll-status button")).toBe(stop);
    stop.click();
    expect(model.sent.pop()).toEqual({ type: "stop" });
    const answer = { positions: stored.embedded, rows: facts.rows, words: stored.words };
    model.receive({ ...request, ...answer }, ...buffers);
    await settle();
    expect(text(el, ".lt-ll-list")).toMatch(/^·lamp/);
    expect(model.sent[1]).toMatchObject({ type: "push", position: 23, word: null, against: null });
    model.receive({ ...model.sent[1], push: stored.push, type: "push" } as never, view(stored.push_heads));
    await settle();
    expect(text(el, ".lt-ll-sum")).toContain("left over");
    expect(model.sent.length).toBe(2);
  });

  test("another word is asked for, and a push that cannot be is said", async () => {
    const model = makeModel();
    const el = show(model);
    await settle();
    const [word, against] = el.querySelectorAll<HTMLSelectElement>(".lt-ll-select");
    expect(word!.options[0]!.textContent).toBe("·lamp (the answer)");
    against!.value = against!.options[1]!.value;
    against!.dispatchEvent(new Event("change"));
    await settle();
    const id = Number(against!.options[1]!.value);
    expect(model.sent).toMatchObject([{ type: "push", position: 23, word: null, against: id }]);
    model.receive({ type: "error", id: model.sent[0]!.id, message: "the model of this trace is gone" });
    await settle();
    expect(text(el, ".lt-ll-sum")).toBe("No push on this choice: the model of this trace is gone");
    expect(model.sent.length).toBe(1);
  });

  test("an error keeps what is there and offers another try; a dead kernel is said", async () => {
    const model = makeModel(nothing);
    const el = show(model);
    await settle();
    model.receive({ type: "error", id: model.sent[0]!.id, message: "the worker ended" });
    await settle();
    expect(text(el, ".lt-error")).toContain("The lens was not read.the worker ended");
    el.querySelector<HTMLElement>(".lt-error button")!.click();
    await settle();
    expect(model.sent.length).toBe(2);
    await vi.advanceTimersByTimeAsync(4000);
    expect(text(el, ".lt-provenance")).toContain("not live");
    expect(text(el, ".lt-ll-status")).toContain("they need a kernel");
    expect(model.sent.length).toBe(2);
  });

  test("a page without a kernel asks for nothing", async () => {
    const model = makeModel({ facts: { ...facts, live: false } });
    const el = show(model);
    await settle();
    expect([model.sent.length, model.pings]).toEqual([0, 0]);
    expect(text(el, ".lt-provenance")).toContain("not live");
    expect(el.querySelector<HTMLElement>(".lt-ll-status")!.hidden).toBe(true);
  });

  test("text of a model is only text", async () => {
    const words = Object.fromEntries(
      Object.keys(stored.words).map((id) => [id, "<img src=x onerror=alert(1)>"]),
    );
    const el = show(makeModel({ words, facts: { ...facts, tokens: facts.tokens.map(() => "<b>x</b>") } }));
    await settle();
    expect(el.querySelector("img")).toBeNull();
    expect(text(el, ".lt-ll-list")).toContain("<img src=x");
  });

  test("a model that cannot be read says why, and nothing else", () => {
    const el = show(makeModel({ ...nothing, facts: { ...facts, message: "This model gives no logits" } }));
    expect(text(el, ".lt-empty")).toBe("This model gives no logits");
    expect(el.querySelector<HTMLElement>(".lt-controls")!.hidden).toBe(true);
  });

  test("narrow, and cleaned up", async () => {
    const watching = observers.size;
    const model = makeModel();
    const el = show(model);
    resize(420);
    await settle();
    expect(el.querySelector(".lt-root")!.classList.contains("lt-narrow")).toBe(true);
    for (const dispose of open.splice(0)) dispose();
    expect(observers.size).toBe(watching);
    expect([model.listening, el.childNodes.length]).toEqual([0, 0]);
  });
});
