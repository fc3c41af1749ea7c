// Every stage that the browser computes against what Python computes of the same head, and the wire around it.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Matrix } from "../src/attention_grid/data";
import { type Embedded, Heads } from "../src/attention_grid/heads";
import { fromHalf, Replay, slowTile, toHalf } from "../src/attention_grid/replay";
import { Kernel, Unavailable } from "../src/shared/kernel";
import { FakeModel, type FixtureHead, head, heads } from "./fixture";

/** Greatest difference, relative to the greatest of all cells or to 1; Infinity where only one of both is masked. */
function difference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let most = 0;
  let scale = 1;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (Number.isNaN(x) && Number.isNaN(y)) continue;
    const d = Math.abs(x - y);
    most = Math.max(most, Number.isNaN(d) ? Number.POSITIVE_INFINITY : d);
    scale = Math.max(scale, Math.abs(y));
  }
  return most / scale;
}

describe.each([...heads.entries()])("a head with %s", (_, own: FixtureHead) => {
  const { replay } = own;
  const { rows, keys, stages } = replay;

  test.each(stages)("%s is what Python replays, cell by cell, row, column and whole", (stage) => {
    const want = own.stage(stage);
    expect(difference(replay.matrix(stage).data, want)).toBeLessThan(1e-5);
    expect(replay.matrix(stage)).toBe(replay.matrix(stage));
    const top = want.reduce((m, x) => Math.max(m, Math.abs(x) || 0), 0);
    for (const i of [0, 3, rows - 1]) {
      expect(difference(replay.row(i, stage), want.subarray(i * keys, (i + 1) * keys))).toBeLessThan(1e-5);
      for (const j of [0, 2, keys - 1])
        expect(difference([replay.value(stage, i, j), top], [want[i * keys + j]!, top])).toBeLessThan(1e-5);
    }
    for (const j of [0, 2, keys - 1]) {
      const column = Array.from({ length: rows }, (_, i) => want[i * keys + j]!);
      expect(difference(replay.column(j, stage), column)).toBeLessThan(1e-5);
    }
  });

  test.each(stages)("a tile of %s is Python's", async (stage) => {
    const got = replay.tile(stage, 1, rows, 2, keys - 1, 4, 5);
    expect([got.rows, got.keys]).toEqual([4, 5]);
    expect(difference(got.data, own.tile(stage))).toBeLessThan(1e-5);
    expect(await slowTile(replay, stage, [1, rows], [2, keys - 1], [4, 5])).toEqual(got);
  });

  test("cells are not visible where the weights are masked", () => {
    own.stage("softmax").forEach((w, c) => {
      expect(replay.visible(Math.floor(c / keys), c % keys)).toBe(!Number.isNaN(w));
    });
  });

  test("tiles as fine as the head are the head", () => {
    const whole = replay.tile("softmax", 0, rows, 0, keys, 640, 640);
    expect(difference(whole.data, replay.matrix().data)).toBeLessThan(1e-6);
  });

  test("sums over tokens are Python's", async () => {
    const state = {
      live: () => false,
      all: () => [[17, 5]] as const,
      embedded: () => embedded(own),
      data: () => own.buffers,
    };
    const here = new Heads(state, new Kernel(new FakeModel() as never, () => false, vi.fn()));
    const looks = await here.sums([2, rows - 1], "looks", [[17, 5]], "mean");
    expect(difference(looks, own.sums("looks"))).toBeLessThan(1e-5);
    const seen = await here.sums([0, 3], "seen", "all", "max");
    expect(difference(seen, own.sums("seen"))).toBeLessThan(1e-5);
  });
});

function embedded(own: FixtureHead): Embedded {
  return { "17,5": { ...own.facts, buffers: own.buffers.map((_, i) => i) } };
}

test("q and k are at hand, one vector each", () => {
  const { replay } = head;
  const scores = head.stage("scores");
  const sum = replay.query(23).reduce((s, x, d) => s + x * replay.key(6)[d]!, 0);
  expect(sum).toBeCloseTo(scores[23 * 24 + 6]!, 4);
});

test("half precision is read and rounded as IEEE says", () => {
  const halves = Uint16Array.from([0x3c00, 0xc000, 0x3555, 0x0001, 0x83ff, 0x7bff, 0x7c00, 0xfc00, 0x0000]);
  const got = fromHalf(new Uint8Array(halves.buffer));
  const want = [1, -2, 0.333251953125, 2 ** -24, -1023 * 2 ** -24, 65504, Infinity, -Infinity, 0];
  expect([...got]).toEqual(want);
  expect(fromHalf(new Uint8Array(Uint16Array.from([0x7e00]).buffer))[0]).toBeNaN();
  expect([3, 2048, 2049, 2051, 4098, 4102, 65519, 65520].map(toHalf)).toEqual([
    3,
    2048,
    2048,
    2052,
    4096,
    4104,
    65504,
    Infinity,
  ]);
});

test("buffers of the wrong size are refused", () => {
  expect(() => new Replay({ ...head.facts, keys: 25 }, head.buffers)).toThrow(
    "3072 bytes came, 3200 were announced",
  );
  expect(() => head.replay.row(0, "biased")).toThrow("there are scores, scaled, masked, softmax");
});

describe("heads", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function make(live = true, own: FixtureHead | null = null) {
    const model = new FakeModel();
    const gone = vi.fn();
    const kernel = new Kernel(model as never, () => false, gone);
    const state = {
      live: () => live,
      all: () =>
        [
          [3, 0],
          [17, 5],
        ] as const,
      embedded: () => (own ? embedded(own) : {}),
      data: () => own?.buffers ?? [],
    };
    return { model, gone, kernel, heads: new Heads(state, kernel) };
  }

  test("are asked for once", async () => {
    const { model, kernel, heads: here } = make();
    const asked = here.get(17, 5) as Promise<Replay>;
    expect(model.sent).toMatchObject([{ type: "head", layer: 17, head: 5 }]);
    expect(kernel.hear({ ...model.sent[0], ...head.facts, type: "head" }, head.buffers)).toBe(true);
    const replay = await asked;
    expect(replay.value("softmax", 23, 6)).toBeCloseTo(0.76, 2);
    expect(here.get(17, 5)).toBe(replay);
    expect(model.sent.length).toBe(1);
  });

  test("without a kernel those that are embedded are there", async () => {
    const { heads: here } = make(false, head);
    expect(here.get(17, 5)).toBeInstanceOf(Replay);
    await expect(here.get(3, 0)).rejects.toMatchObject({ why: "no-kernel" });
    const tile = here.tile(17, 5, "softmax", [0, 24], [0, 24], [4, 4]);
    await vi.advanceTimersByTimeAsync(100);
    expect((await tile).rows).toBe(4);
    await expect(here.sums([1], "looks", "all", "mean")).rejects.toBeInstanceOf(Unavailable);
  });

  test("tiles come from the kernel, and are computed here when it is gone", async () => {
    const n = 1025;
    const facts = { ...head.facts, rows: n, keys: n, size: 1 };
    const ones = new Float32Array(n).fill(1);
    const first = new Int32Array(n);
    const stop = Int32Array.from({ length: n }, (_, i) => i + 1);
    const lse = Float64Array.from(stop, (k) => 1 / 8 + Math.log(k));
    const big = { facts: { ...facts, dtype: "f4" as const }, buffers: [ones, ones, lse, first, stop] };
    const { model, gone, kernel, heads: here } = make(true, big as unknown as FixtureHead);
    const ask = () => here.tile(17, 5, "softmax", [0, n], [0, n], [2, 2]);
    const asked = ask();
    expect(model.sent).toMatchObject([
      { type: "tile", layer: 17, head: 5, stage: "softmax", rows: [0, n], keys: [0, n], size: [2, 2] },
    ]);
    const cells = Float32Array.from([1, Number.NaN, 0.5, 0.25]);
    kernel.hear({ ...model.sent[0], type: "tile", rows: 2, keys: 2 } as never, [cells]);
    expect((await asked) as Matrix).toEqual({ rows: 2, keys: 2, data: cells });
    const silent = ask();
    await vi.advanceTimersByTimeAsync(4000);
    expect(gone).toHaveBeenCalled();
    const data = (await silent).data;
    expect(data[0]).toBeCloseTo(1, 6);
    expect(data[1]).toBeNaN();
    expect(data[2]).toBeCloseTo(1 / 513, 6);
  });

  test("a long answer that says how far it is is waited for", async () => {
    const { model, gone, kernel, heads: here } = make();
    const heard = vi.fn();
    const asked = here.sums([4], "seen", "all", "max", heard);
    expect(model.sent).toMatchObject([
      { type: "sums", tokens: [4], direction: "seen", heads: "all", how: "max" },
    ]);
    for (let i = 1; i < 5; i++) {
      await vi.advanceTimersByTimeAsync(2000);
      kernel.hear({ type: "progress", id: model.sent[0]!.id, done: i, total: 10 } as never, []);
    }
    expect(heard).toHaveBeenLastCalledWith(0.4);
    kernel.hear({ type: "sums", id: model.sent[0]!.id }, [Float32Array.from([1, 2])]);
    expect([...(await asked)]).toEqual([1, 2]);
    expect(gone).not.toHaveBeenCalled();
  });

  test("those least recently looked at are let go", async () => {
    const { kernel, model, heads: here } = make();
    const facts = { ...head.facts, size: 3500, rows: 1000, keys: 1000 };
    const buffers = [7e6, 7e6, 8000, 4000, 4000].map((n) => new Uint8Array(n));
    const load = (layer: number) => {
      const asked = here.get(layer, 0);
      kernel.hear({ ...model.sent.at(-1)!, ...facts, type: "head" }, buffers);
      return asked;
    };
    const first = await load(0);
    await load(1);
    expect(here.get(0, 0) === first).toBe(true);
    await load(2);
    expect(here.get(0, 0) === first).toBe(true);
    expect(here.get(1, 0)).toBeInstanceOf(Promise);
  });
});
