// The sampler chain in the browser against llama.cpp's own, and how long a slider takes.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Chain, Distribution, FILTERS, type Settings } from "../src/token_explorer/chain";

interface Case {
  settings: Settings;
  kept: number;
  ids: number[] | null;
  first: [number, number][];
  squares: number;
}

interface Row {
  name: string;
  logits?: string;
  rule?: [number, number];
  before: number[];
  cases: Case[];
}

const rows = JSON.parse(readFileSync(join(import.meta.dirname, "data", "chain.json"), "utf8")) as Row[];

function rule(n: number, steps: number): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => {
    const spread = Number(((BigInt(i) * 2654435761n + 12345n) % 4294967296n) % BigInt(steps));
    return (spread / steps) * 24 - 12;
  });
}

function logitsOf(row: Row): Float32Array {
  if (row.rule) return rule(...row.rule);
  const data = Buffer.from(row.logits!, "base64");
  return new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
}

describe.each(rows)("$name", (row) => {
  const logits = logitsOf(row);
  const chain = new Chain(new Distribution(logits), row.before);
  test.each(row.cases)("llama.cpp's probabilities under $settings", (c) => {
    const result = chain.run(c.settings);
    const own = Array.from({ length: result.kept }, (_, i) =>
      result.probability(result.order[result.left[0] + i]!),
    );
    expect(result.kept).toBe(c.kept);
    c.first.forEach(([, p], i) => {
      expect(Math.abs(own[i]! - p)).toBeLessThan(1e-6);
    });
    expect(Math.abs(own.reduce((sum, p) => sum + p * p, 0) - c.squares)).toBeLessThan(1e-6);
    // Which of equal tokens stay is nobody's choice; all others are the same.
    const tied = new Set(c.first.filter(([, p]) => c.first.filter(([, q]) => q === p).length > 1));
    if (row.name === "model" && c.ids && tied.size === 0) {
      const left = [...result.order.subarray(...result.left)].sort((a, b) => a - b);
      expect(left).toEqual(c.ids);
    }
    const total = own.reduce((sum, p) => sum + p, 0);
    expect(total).toBeCloseTo(1, 9);
  });
});

describe("what each filter says", () => {
  const logits = Float32Array.from([5, 4, 3, 2, 1, 0]);
  const settings = { temperature: 1, top_k: 4, typical_p: 1, top_p: 0.9, min_p: 0.3, repeat_penalty: 1 };

  test("steps follow each other and their masses add up to what was cut", () => {
    const d = new Distribution(logits);
    const result = new Chain(d, []).run(settings);
    expect(FILTERS.map((name) => [result.steps[name].before, result.steps[name].after])).toEqual([
      [6, 4],
      [4, 4],
      [4, 3],
      [3, 2],
    ]);
    const cut = FILTERS.reduce((sum, name) => sum + result.steps[name].mass, 0);
    expect(cut).toBeCloseTo(1 - d.probabilities[0]! - d.probabilities[1]!, 12);
    expect([0, 1, 2, 3, 4, 5].map((id) => result.cutBy(id))).toEqual([
      null,
      null,
      "min_p",
      "top_p",
      "top_k",
      "top_k",
    ]);
    expect([0, 1, 2].map((id) => result.rank(id))).toEqual([1, 2, 0]);
  });

  test("the penalty takes from what was said and gives it back when it is off", () => {
    const chain = new Chain(new Distribution(logits), [0, 0, 99]);
    const after = chain.run({ ...settings, repeat_penalty: 2 });
    expect(after.order[0]).toBe(1);
    expect(after.moved).toBeGreaterThan(0.4);
    expect(chain.run(settings).order[0]).toBe(0);
    expect(chain.run(settings).moved).toBe(0);
  });

  test("masked logits and a vocabulary of one", () => {
    const d = new Distribution(Float32Array.from([Number.NEGATIVE_INFINITY, 1, Number.NEGATIVE_INFINITY]));
    expect(d.entropy).toBe(0);
    expect(new Chain(d, []).run({ ...settings, typical_p: 0.5 }).kept).toBe(1);
    expect(new Chain(new Distribution(Float32Array.from([3])), []).run(settings).probability(0)).toBe(1);
  });
});

test("a slider moves through the largest vocabularies", () => {
  for (const n of [49152, 262144]) {
    const chain = new Chain(new Distribution(rule(n, n)), [1, 2, 3]);
    const off = { temperature: 1, top_k: 0, typical_p: 1, top_p: 1, min_p: 0, repeat_penalty: 1 };
    const moves: ((t: number) => Settings)[] = [
      (t) => ({ ...off, temperature: 0.5 + t }),
      (t) => ({ ...off, top_k: 40 + Math.round(t * 1000) }),
      (t) => ({ ...off, typical_p: 0.2 + t / 2 }),
      (t) => ({ ...off, top_p: 0.2 + t / 2 }),
      (t) => ({ ...off, repeat_penalty: 1.1 + t }),
    ];
    for (const at of moves) {
      const kept = Array.from({ length: 9 }, (_, i) => chain.run(at(i / 9)).kept);
      expect(Math.min(...kept)).toBeGreaterThan(0);
      expect(Math.max(...kept)).toBeLessThanOrEqual(n);
    }
  }
});
