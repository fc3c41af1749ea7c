// A text while it is written. Real rows, told as if the last four tokens of the prompt had just been written.
import { beforeEach, describe, expect, test } from "vitest";
import { type Facts, GridData, type Written } from "../src/attention_grid/data";
import { type GrowMessage, grow } from "../src/attention_grid/growth";
import widget from "../src/attention_grid/widget";
import { FakeModel, facts, gridData, statistics, thumbnails } from "./fixture";
import { page } from "./page";

const PROMPT = 20;
const SIDE = 24;
const written = (i: number): Written => [
  0.5 + i / 10,
  i + 1,
  8 + i,
  [[facts.tokens[PROMPT + i]!, 0.5 + i / 10]],
];
const WRITTEN = [0, 1, 2, 3].map(written);

/** Facts of a text with `n` of at most 24 tokens. */
function growing(n: number): Facts {
  const tokens = facts.tokens.slice(0, n);
  return {
    ...facts,
    tokens,
    query_tokens: tokens,
    kinds: facts.kinds.slice(0, n),
    n_now: n,
    generated: PROMPT,
    generation: WRITTEN.slice(0, n - PROMPT),
    phase: "generating",
  };
}

/** Codes of rows a .. b - 1 of all heads. */
function rows(a: number, b: number): DataView {
  const all = new Uint8Array(thumbnails.buffer, thumbnails.byteOffset, thumbnails.byteLength);
  const out = new Uint8Array(270 * (b - a) * SIDE);
  for (let i = 0; i < 270; i++)
    out.set(all.subarray((i * SIDE + a) * SIDE, (i * SIDE + b) * SIDE), i * (b - a) * SIDE);
  return new DataView(out.buffer);
}

function message(from: number, to: number): GrowMessage {
  return {
    type: "grow",
    from,
    n_now: to,
    tokens: facts.tokens.slice(from, to),
    kinds: facts.kinds.slice(from, to),
    stats: WRITTEN.slice(from - PROMPT, to - PROMPT),
    row0: from,
    row1: to,
  };
}

/** The thumbnails with rows up to n only. */
function first(n: number): DataView {
  const out = new Uint8Array(thumbnails.byteLength);
  const all = new Uint8Array(thumbnails.buffer, thumbnails.byteOffset, thumbnails.byteLength);
  for (let i = 0; i < 270; i++)
    out.set(all.subarray(i * SIDE * SIDE, (i * SIDE + n) * SIDE), i * SIDE * SIDE);
  return new DataView(out.buffer);
}

describe("rows that arrive", () => {
  test("make the thumbnails of the whole, and the facts tell of them", () => {
    let data = GridData.from(growing(20), first(20), statistics);
    for (const [a, b] of [
      [20, 22],
      [22, 23],
      [23, 24],
    ] as const)
      data = data.with({ ...data.facts, ...grow(data, message(a, b), rows(a, b)) });
    const whole = gridData();
    for (const head of whole.heads) expect(data.thumbnail(head)).toEqual(whole.thumbnail(head));
    expect(data.facts.tokens).toEqual(facts.tokens);
    expect(data.facts.generation).toEqual(WRITTEN);
    expect(data.until).toBe(24);
  });

  test("twice change nothing, and a gap is noticed", () => {
    const data = GridData.from(growing(22), first(22), statistics);
    const again = data.with({ ...data.facts, ...grow(data, message(20, 22), rows(20, 22)) });
    expect(again.facts.tokens).toEqual(facts.tokens.slice(0, 22));
    expect(again.facts.generation).toEqual(WRITTEN.slice(0, 2));
    expect(grow(data, message(23, 24), rows(23, 24))).toBeNull();
  });

  test("what has not come is no weight of 0, and a head's own length is told with it", () => {
    const data = GridData.from(growing(22), first(22), statistics);
    const matrix = data.approximate(data.head(17, 5)!);
    expect(matrix.data[21 * SIDE]).toBeGreaterThan(0);
    expect([...matrix.data.subarray(22 * SIDE)].every(Number.isNaN)).toBe(true);
    expect([...data.approximate(data.head(17, 5)!, 10).data.subarray(10 * SIDE)].every(Number.isNaN)).toBe(
      true,
    );
    expect(data.same).toBe(true);
    expect(data.cut(21).facts).toMatchObject({ n_tokens: 21, tokens: facts.tokens.slice(0, 21) });
    expect(gridData().cut(21).facts.n_tokens).toBe(24);
  });
});

describe("the view", () => {
  const settle = () => new Promise((done) => setTimeout(done, 30));
  let el: HTMLElement;
  let clean: (() => void) | undefined;
  let model: FakeModel;

  beforeEach(() => {
    clean?.();
    document.body.replaceChildren();
    page.width = 1084;
  });

  async function show(state: Facts, thumbs = thumbnails): Promise<void> {
    el = document.createElement("div");
    document.body.append(el);
    model = new FakeModel({ facts: state, thumbnails: thumbs });
    clean = widget.render({ model, el } as never) as () => void;
    await settle();
  }
  const text = (selector: string) => el.querySelector(selector)?.textContent ?? "";
  const slider = () => el.querySelector<HTMLInputElement>(".lt-step-slider")!;
  const press = (key: string) => {
    const target = el.querySelector<HTMLElement>("[data-region=grid]")!;
    target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, composed: true }));
  };

  test("says how far the text is, and Stop asks for an end", async () => {
    await show(growing(21), first(21));
    expect(text("h2")).toContain("21 of at most 24 tokens");
    model.receive({ ...message(21, 23) }, rows(21, 23));
    await settle();
    expect(text("h2")).toContain("23 of at most 24 tokens");
    await new Promise((done) => setTimeout(done, 220));
    expect(text(".lt-progress-text")).toContain("token 3 of 4 \u00b7 9.0 ms per token");
    el.querySelector<HTMLElement>(".lt-stop")!.click();
    expect(model.sent.at(-1)).toEqual({ type: "stop" });
  });

  test("a message that was missed makes it ask for the whole state", async () => {
    await show(growing(21), first(21));
    model.receive({ ...message(23, 24) }, rows(23, 24));
    await settle();
    expect(model.sent.at(-1)).toEqual({ type: "resync" });
    expect(text("h2")).toContain("21 of at most 24 tokens");
  });

  test("steps through the text by slider, buttons and keys", async () => {
    await show({ ...facts, generated: PROMPT, generation: WRITTEN });
    expect(text(".lt-step-place")).toBe("token 4 of 4");
    expect(text(".lt-step-token")).toContain("\u00b7the");
    expect(text(".lt-step-facts")).toBe("80\u202f% \u00b7 rank 4 \u00b7 11.0 ms");
    expect(slider().getAttribute("aria-valuetext")).toBe(
      "token 4 of 4: \u00b7the, 80\u202f% \u00b7 rank 4 \u00b7 11.0 ms",
    );
    const [back, forth] = el.querySelectorAll<HTMLButtonElement>(".lt-step-row button");
    expect(forth!.disabled).toBe(true);
    back!.click();
    await settle();
    expect(model.get("selected_tokens")).toEqual([22]);
    press(",");
    await settle();
    expect(model.get("selected_tokens")).toEqual([21]);
    slider().value = "20";
    slider().dispatchEvent(new Event("input"));
    await settle();
    expect(model.get("selected_tokens")).toEqual([20]);
    expect(text(".lt-step-place")).toBe("token 1 of 4");
    expect(back!.disabled).toBe(true);
    press(".");
    await settle();
    expect(model.get("selected_tokens")).toEqual([21]);
    slider().value = "23";
    slider().dispatchEvent(new Event("input"));
    await settle();
    expect(model.get("selected_tokens")).toEqual([]);
  });

  test("a step stays where it is while tokens come", async () => {
    await show(growing(22), first(22));
    press(",");
    await settle();
    expect(text(".lt-step-place")).toBe("token 1 of 4");
    model.receive({ ...message(22, 24) }, rows(22, 24));
    await settle();
    expect(text(".lt-step-place")).toBe("token 1 of 4");
    expect(model.get("selected_tokens")).toEqual([20]);
  });

  test("the locked head is asked for again, at most twice a second, and stays on the screen meanwhile", async () => {
    await show({ ...growing(21) }, first(21));
    model.set("selected_layer", 17);
    model.set("selected_head", 5);
    await settle();
    const asked = () => model.sent.filter((m) => m.type === "head").length;
    expect(asked()).toBe(1);
    model.answerHead();
    await settle();
    expect(text(".lt-sentence")).toContain("looks at");
    for (let i = 0; i < 3; i++) {
      model.receive({ ...message(21 + i, 22 + i) }, rows(21 + i, 22 + i));
      await settle();
    }
    expect(asked()).toBe(1);
    await new Promise((done) => setTimeout(done, 550));
    expect(asked()).toBe(2);
    expect(text(".lt-sentence")).toContain("looks at");
  });

  test("a text that nobody wrote has no steps", async () => {
    await show(facts);
    expect(el.querySelector<HTMLElement>(".lt-stepper")!.hidden).toBe(true);
    press(",");
    expect(model.get("selected_tokens")).toEqual([]);
  });
});
