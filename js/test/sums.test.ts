// Sums over tokens and heads as a notebook runs them: what is asked for, what is shown, what is said without a kernel.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import widget from "../src/attention_grid/widget";
import { FakeModel, facts, head } from "./fixture";
import { page } from "./page";

const open: (() => void)[] = [];
const settle = (ms = 200) => vi.advanceTimersByTimeAsync(ms);

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  for (const dispose of open.splice(0)) dispose();
  document.body.replaceChildren();
  page.width = 1084;
  vi.useRealTimers();
});

async function show(state: Record<string, unknown> = {}): Promise<{ model: FakeModel; sums: HTMLElement }> {
  const model = new FakeModel({ selected_layer: 17, selected_head: 5, selected_tokens: [23, 6], ...state });
  const el = document.createElement("div");
  document.body.append(el);
  open.push(widget.render({ model, el } as never) as () => void);
  model.answerHead();
  await settle();
  return { model, sums: el.querySelector<HTMLElement>(".lt-sums")! };
}

const choose = (sums: HTMLElement, name: string) =>
  [...sums.querySelectorAll<HTMLElement>("[role=radio]")].find((b) => b.textContent === name)!.click();
const lists = (sums: HTMLElement) => [...sums.querySelectorAll(".lt-profile-list")].map((e) => e.textContent);
const asked = (model: FakeModel) => model.sent.filter((m) => m.type === "sums");
const note = (sums: HTMLElement) => sums.querySelector("h4 span")!.textContent;

describe("sums", () => {
  test("of one head are computed here", async () => {
    const { model, sums } = await show();
    const row = head.stage("softmax").subarray(23 * 24, 24 * 24);
    expect(lists(sums)[0]).toMatch(`·lamp₆ ${row[6]!.toFixed(3)}`);
    expect(lists(sums)[1]).toMatch(/^·the₂₃ /);
    expect(note(sums)).toBe("layer 17 head 5");
    expect(asked(model)).toEqual([]);
  });

  test("over several tokens add up", async () => {
    const { sums } = await show({ selected_tokens: [23, 6, 13] });
    const softmax = head.stage("softmax");
    const lamp = softmax[23 * 24 + 6]! + softmax[13 * 24 + 6]!;
    expect(lists(sums)[0]).toMatch(`·lamp₆ ${lamp.toFixed(3)}`);
    expect([...sums.querySelectorAll(".lt-chip")].map((e) => e.textContent)).toEqual(["·the₂₃", "·was₁₃ ×"]);
  });

  test("of a layer, the kept heads and all heads are the kernel's", async () => {
    const { model, sums } = await show({ filter: { induction: [0.4, null] } });
    choose(sums, "Layer");
    await settle();
    const layer = Array.from({ length: 9 }, (_, h) => [17, h]);
    expect(asked(model)).toMatchObject([
      { tokens: [23], direction: "looks", heads: layer, how: "mean" },
      { tokens: [23], direction: "seen", heads: layer, how: "mean" },
    ]);
    expect(note(sums)).toBe("mean of 9 heads of layer 17");
    choose(sums, "Max");
    choose(sums, "Kept");
    await settle();
    const kept = asked(model).at(-1)! as unknown as { heads: [number, number][]; how: string };
    expect(kept.how).toBe("max");
    expect(kept.heads.length).toBeLessThan(40);
    expect(kept.heads).toContainEqual([17, 5]);
    expect(note(sums)).toBe(`highest of ${kept.heads.length} kept head${kept.heads.length > 1 ? "s" : ""}`);
    choose(sums, "All heads");
    await settle();
    const all = asked(model).at(-1)! as unknown as { heads: [number, number][]; how: string };
    expect([all.heads.length, all.heads[269], all.how]).toEqual([270, [29, 8], "max"]);
    expect(note(sums)).toBe("highest of all 270 heads");
  });

  test("show how far they are, and the answer to the last question only", async () => {
    const { model, sums } = await show();
    choose(sums, "Layer");
    await settle();
    const [early] = asked(model);
    choose(sums, "All heads");
    await settle();
    const [, , late] = asked(model);
    model.receive({ type: "progress", id: late!.id, done: 3, total: 10 });
    await settle();
    expect(lists(sums)[0]).toBe("30 % computed");
    const values = new Float32Array(24).fill(Number.NaN);
    values[8] = 0.5;
    const other = new Float32Array(24).fill(0.25);
    model.receive({ type: "sums", id: late!.id }, new DataView(values.buffer));
    model.receive({ type: "sums", id: early!.id }, new DataView(other.buffer));
    await settle();
    expect(lists(sums)[0]).toBe("·dusk₈ 0.500");
  });

  test("follow the filter while it moves, once it rests", async () => {
    const { model, sums } = await show({ filter: { induction: [0.3, null] } });
    choose(sums, "Kept");
    await settle();
    const before = asked(model).length;
    for (const low of [0.31, 0.35, 0.4]) {
      model.set("filter", { induction: [low, null] });
      await settle(30);
    }
    expect(asked(model).length).toBe(before);
    await settle();
    expect(asked(model).length).toBe(before + 2);
    model.set("filter", { induction: [0.99, null], sink: [0.99, null] });
    await settle();
    expect(lists(sums)[0]).toBe("no head passes the filters");
  });

  test("of several heads need a kernel, and say so", async () => {
    const buffers = head.buffers;
    const embedded = { "17,5": { ...head.facts, buffers: buffers.map((_, i) => i) } };
    const { model, sums } = await show({
      facts: { ...facts, live: false },
      embedded,
      embedded_data: buffers,
    });
    expect(lists(sums)[0]).toContain("·lamp₆");
    choose(sums, "All heads");
    await settle();
    expect(lists(sums)).toEqual(Array(2).fill("Not all of these heads are here: they need a kernel."));
    expect(asked(model)).toEqual([]);
    choose(sums, "This head");
    await settle();
    expect(lists(sums)[0]).toContain("·lamp₆");
  });

  test("take a token in by Shift-click, and let it go", async () => {
    const { model, sums } = await show({ selected_tokens: [] });
    const words = [...document.querySelectorAll(".lt-word")];
    words[12]!.dispatchEvent(new MouseEvent("click", { bubbles: true, shiftKey: true }));
    expect(model.get("selected_tokens")).toEqual([23, 6, 12]);
    await settle();
    words[14]!.dispatchEvent(new MouseEvent("click", { bubbles: true, shiftKey: true }));
    await settle();
    sums.querySelector<HTMLElement>("button.lt-chip")!.click();
    expect(model.get("selected_tokens")).toEqual([23, 6, 14]);
    await settle();
    words[5]!.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    expect(model.get("selected_tokens")).toEqual([5]);
  });

  test("lead to their cells", async () => {
    const { model, sums } = await show();
    sums.querySelectorAll<HTMLElement>(".lt-profile-list")[0]!.querySelectorAll("button")[1]!.click();
    expect(model.get("selected_tokens")).toEqual([23, 0]);
    await settle();
    sums.querySelectorAll<HTMLElement>(".lt-profile-list")[1]!.querySelector("button")!.click();
    expect(model.get("selected_tokens")).toEqual([23, 23]);
  });
});
