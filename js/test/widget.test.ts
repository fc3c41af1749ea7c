// The widget as a notebook runs it: traits and messages in, DOM and messages out.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import widget from "../src/attention_grid/widget";
import { FakeModel, facts, head, statistics, thumbnails } from "./fixture";
import { observers, page, resize } from "./page";

const open: (() => void)[] = [];

function show(model: FakeModel): HTMLElement {
  const el = document.createElement("div");
  document.body.append(el);
  const dispose = widget.render({ model, el } as never) as () => void;
  open.push(dispose);
  return el;
}

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
const settle = () => vi.advanceTimersByTimeAsync(30);

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  for (const dispose of open.splice(0)) dispose();
  document.body.replaceChildren();
  page.width = 1084;
  vi.useRealTimers();
});

describe("AttentionGrid", () => {
  test("says what it shows and where it comes from", async () => {
    const el = show(new FakeModel());
    expect(text(el, "h2")).toContain("30 layers × 9 heads · 24 tokens");
    expect(text(el, ".lt-provenance")).toBe(facts.provenance);
    expect(text(el, ".lt-kept")).toBe("270 of 270 heads");
    expect(el.querySelectorAll(".lt-stat").length).toBe(5);
    expect(el.querySelectorAll(".lt-grid > canvas").length).toBe(1);
  });

  test("a lock from Python asks for the head and says what it found", async () => {
    const model = new FakeModel();
    const el = show(model);
    model.set("selected_layer", 17);
    model.set("selected_head", 5);
    await settle();
    expect(model.sent).toMatchObject([{ type: "head", layer: 17, head: 5 }]);
    model.answerHead();
    await settle();
    expect(text(el, ".lt-sentence")).toContain("·the₂₃looks at·lamp₆0.7");
    expect(text(el, ".lt-sentence")).toContain("rank 1 of 24");
    expect(el.querySelectorAll(".lt-word").length).toBe(24);
    expect(el.querySelector(".lt-grid canvas")?.getAttribute("aria-label")).toMatch(
      /^Layer 17 head 5, .*highest of 270/,
    );
  });

  test("a lock by keyboard changes both traits at once and reaches no notebook", async () => {
    const model = new FakeModel();
    const el = show(model);
    const grid = el.querySelector<HTMLElement>("[data-region=grid]")!;
    const notebook = vi.fn();
    document.addEventListener("keydown", notebook, true);
    grid.focus();
    for (const key of ["ArrowRight", "ArrowDown", "PageDown", "Enter"])
      expect(press(grid, key).defaultPrevented).toBe(true);
    press(grid, "b");
    document.removeEventListener("keydown", notebook, true);
    expect([model.get("selected_layer"), model.get("selected_head")]).toEqual([6, 1]);
    expect(notebook).toHaveBeenCalledTimes(1);
    expect(notebook.mock.calls[0]![0].key).toBe("b");
  });

  test("Esc frees the innermost thing first", async () => {
    const model = new FakeModel({ selected_layer: 17, selected_head: 5 });
    const el = show(model);
    await settle();
    const grid = el.querySelector<HTMLElement>("[data-region=grid]")!;
    grid.focus();
    press(grid, "ArrowLeft");
    press(grid, "Enter", { shiftKey: true });
    await settle();
    expect(text(el, ".lt-total")).toContain("clear");
    press(grid, "Escape");
    press(grid, "Escape");
    await settle();
    expect(model.get("selected_layer")).toBe(16);
    press(grid, "Escape");
    expect(model.get("selected_layer")).toBeNull();
    await settle();
    expect(press(grid, "Escape").defaultPrevented).toBe(false);
  });

  test("Esc frees a filter before the lock", async () => {
    const model = new FakeModel({ selected_layer: 17, selected_head: 5, filter: { induction: [0.1, null] } });
    const grid = show(model).querySelector<HTMLElement>("[data-region=grid]")!;
    await settle();
    press(grid, "Escape");
    await settle();
    expect(model.get("filter")).toEqual({});
    expect(model.get("selected_layer")).toBe(17);
    press(grid, "Escape");
    expect(model.get("selected_layer")).toBeNull();
  });

  test("a slider filters, and an open end is null", async () => {
    const model = new FakeModel();
    const el = show(model);
    const slider = el.querySelector<HTMLInputElement>(".lt-slider")!;
    slider.value = "0.1";
    slider.dispatchEvent(new Event("input"));
    slider.dispatchEvent(new Event("change"));
    await settle();
    const [lo, hi] = (model.get("filter") as Record<string, [number, number | null]>).induction!;
    expect(lo).toBeCloseTo(0.1, 1);
    expect(hi).toBeNull();
    expect(text(el, ".lt-stat-range")).toContain("≥");
    expect(slider.getAttribute("aria-valuetext")).toContain("0.1");
    el.querySelector<HTMLButtonElement>(".lt-total button")!.click();
    expect(model.get("filter")).toEqual({});
  });

  test("dragging sends at most ten changes a second, and always the last", async () => {
    const model = new FakeModel();
    const el = show(model);
    const slider = el.querySelector<HTMLInputElement>(".lt-slider")!;
    for (let i = 0; i < 50; i++) {
      slider.value = String(i / 200);
      slider.dispatchEvent(new Event("input"));
      await vi.advanceTimersByTimeAsync(10);
    }
    slider.dispatchEvent(new Event("change"));
    expect(model.saves).toBeLessThanOrEqual(6);
    expect((model.get("filter") as Record<string, [number, number]>).induction![0]).toBeGreaterThan(0.2);
  });

  test("a filter that keeps no head says the nearest value and widens to it", async () => {
    const model = new FakeModel({ filter: { induction: [facts.statistics[0]!.hi - 0.001, 2] } });
    const el = show(model);
    await settle();
    expect(text(el, ".lt-panel-over")).toContain("No head matches.");
    expect(text(el, ".lt-panel-over")).toContain("L17 H5");
    el.querySelector<HTMLButtonElement>(".lt-panel-over button")!.click();
    await settle();
    expect(text(el, ".lt-kept")).toBe("1 of 270 heads");
  });

  test("text of a model is only ever text", async () => {
    const evil = `</ScRiPt><img src=x onerror="document.title='owned'">`;
    const tokens = facts.tokens.map((t, i) => (i === 6 ? evil : t));
    const model = new FakeModel({
      facts: {
        ...facts,
        title: evil,
        model: evil,
        provenance: evil,
        tokens,
        names: { "17,5": evil },
        details: { [evil]: evil },
      },
      selected_layer: 17,
      selected_head: 5,
    });
    const el = show(model);
    model.answerHead();
    await settle();
    expect(el.querySelector("img")).toBeNull();
    expect(el.querySelector(".lt-chip-on")!.textContent).toBe(`${evil}₆`);
    expect(text(el, ".lt-text")).toContain(evil);
  });

  test("control and byte tokens are shown as such", async () => {
    const kinds = facts.kinds.map((k, i) => (i === 0 ? "control" : k));
    const model = new FakeModel({ facts: { ...facts, kinds }, selected_layer: 17, selected_head: 5 });
    const el = show(model);
    model.answerHead();
    await settle();
    expect(el.querySelector(".lt-word")!.classList.contains("lt-odd")).toBe(true);
  });
});

describe("while the trace runs", () => {
  const computing = { ...facts, phase: "computing" as const, done: 0, total: 30 };
  const running = () =>
    new FakeModel({
      facts: computing,
      thumbnails: new DataView(new ArrayBuffer(0)),
      statistics: new DataView(new ArrayBuffer(0)),
    });
  const size = facts.side_rows * facts.side_keys * 9;
  const send = (model: FakeModel, layer: number) =>
    model.receive(
      { type: "layer", layer, done: layer + 1, total: 30 },
      new DataView(thumbnails.buffer, thumbnails.byteOffset + layer * size, size),
      new DataView(
        statistics.buffer,
        statistics.byteOffset + layer * 9 * facts.statistics.length * 4,
        9 * facts.statistics.length * 4,
      ),
    );

  test("nothing is said under 200 ms, then how far it is", async () => {
    const model = running();
    const el = show(model);
    const progress = el.querySelector<HTMLElement>(".lt-progress")!;
    expect(progress.hidden).toBe(true);
    await vi.advanceTimersByTimeAsync(250);
    send(model, 0);
    await settle();
    expect(progress.hidden).toBe(false);
    expect(text(el, "h2")).toContain("layer 1 of 30");
    expect(el.querySelector("[role=progressbar]")!.getAttribute("aria-valuenow")).toBe("1");
  });

  test("arrived layers can be locked, others not yet", async () => {
    const model = running();
    const el = show(model);
    const grid = el.querySelector<HTMLElement>("[data-region=grid]")!;
    send(model, 0);
    await settle();
    grid.focus();
    press(grid, "ArrowRight");
    press(grid, "Enter");
    expect(model.get("selected_layer")).toBeNull();
    press(grid, "ArrowLeft");
    press(grid, "Enter");
    expect(model.get("selected_layer")).toBe(0);
  });

  test("the last layer ends it", async () => {
    const model = running();
    const el = show(model);
    for (let l = 0; l < 30; l++) send(model, l);
    model.receive({ type: "state", phase: "done", done: 30, total: 30, message: "" });
    await vi.advanceTimersByTimeAsync(300);
    expect(el.querySelector<HTMLElement>(".lt-progress")!.hidden).toBe(true);
    expect(text(el, ".lt-stat-name")).toContain("Induction");
  });

  test("W3: Stop that a busy kernel does not answer names the interrupt button", async () => {
    const model = running();
    const el = show(model);
    await vi.advanceTimersByTimeAsync(250);
    el.querySelector<HTMLButtonElement>(".lt-stop")!.click();
    expect(model.sent).toEqual([{ type: "stop" }]);
    expect(text(el, ".lt-progress-text")).toContain("Stopping");
    await vi.advanceTimersByTimeAsync(1100);
    expect(text(el, ".lt-progress-text")).toContain("interrupt");
  });

  test("a stopped run keeps what had arrived", async () => {
    const model = running();
    const el = show(model);
    send(model, 0);
    model.receive({ type: "state", phase: "cancelled", done: 1, total: 30, message: "" });
    await settle();
    expect(text(el, ".lt-progress-text")).toContain("Stopped after 1 of 30 layers");
  });

  test("a failed run says that the notebook is fine, then the cause", async () => {
    const model = running();
    const el = show(model);
    model.receive({
      type: "state",
      phase: "error",
      done: 0,
      total: 30,
      message: "blk.31.attn_q.weight is missing\nllama.cpp: failed",
    });
    await settle();
    const panel = el.querySelector(".lt-error")!;
    expect(panel.textContent).toMatch(/^The trace stopped\. The notebook is fine\./);
    expect(panel.querySelector("pre")!.textContent).toBe("llama.cpp: failed");
  });
});

describe("the kernel", () => {
  const locked = { selected_layer: 17, selected_head: 5 };

  test("W9: without one embedded heads open and the picture says that it is saved", async () => {
    const saved = { ...facts, live: false, saved: "25 Nov" };
    const model = new FakeModel({
      facts: saved,
      embedded: { "17,5": { ...head.facts, buffers: [1, 0, 2, 3, 4] } },
      embedded_data: [1, 0, 2, 3, 4].map((i) => head.buffers[i]),
      ...locked,
    });
    const el = show(model);
    await settle();
    expect(text(el, ".lt-provenance")).toContain("saved 25 Nov, not live");
    expect(el.querySelector(".lt-provenance")!.classList.contains("lt-stale")).toBe(true);
    expect(text(el, ".lt-big")).toMatch(/^0\.7/);
    model.set("selected_layer", 3);
    await settle();
    expect(model.sent).toEqual([]);
    expect(text(el, ".lt-notice")).toContain("need a kernel: run the cell again");
  });

  test("silence for 3 s means that it is gone; an answer brings it back", async () => {
    const model = new FakeModel(locked);
    const el = show(model);
    await vi.advanceTimersByTimeAsync(3200);
    expect(text(el, ".lt-notice")).toContain("kernel");
    expect(text(el, ".lt-provenance")).toContain("not live");
    model.receive({ type: "state", phase: "done", done: 30, total: 30, message: "" });
    await settle();
    expect(text(el, ".lt-provenance")).not.toContain("not live");
    expect(model.pings).toBe(1);
    expect(model.sent.filter((m) => m.type === "head").length).toBe(2);
  });

  test("a busy one is waited for", async () => {
    const model = new FakeModel(locked);
    model.widget_manager = { kernel: { status: "busy" } };
    const el = show(model);
    await vi.advanceTimersByTimeAsync(9000);
    expect(text(el, ".lt-notice")).toContain("busy");
    expect(text(el, ".lt-provenance")).not.toContain("not live");
    model.answerHead();
    await settle();
    expect(text(el, ".lt-big")).toMatch(/^0\.7/);
  });

  test("an error comes back to the request that caused it", async () => {
    const model = new FakeModel(locked);
    const el = show(model);
    await settle();
    model.receive({ type: "error", id: "another", message: "not mine" });
    await settle();
    expect(el.textContent).not.toContain("not mine");
    model.receive({ type: "error", id: model.sent[0]!.id as string, message: "the trace was closed" });
    await settle();
    expect(text(el, ".lt-notice")).toContain("the trace was closed");
    el.querySelector<HTMLButtonElement>(".lt-notice button")!.click();
    expect(model.sent.length).toBe(2);
  });

  test("an answer of the wrong size is an error, not a picture", async () => {
    const model = new FakeModel(locked);
    const el = show(model);
    model.receive({ ...model.sent[0], ...head.facts, rows: 30 }, ...head.buffers);
    await settle();
    expect(text(el, ".lt-notice")).toContain("3072 bytes came, 3840 were announced");
  });
});

describe("cross attention", () => {
  test("names queries and keys by their own texts", async () => {
    const query_tokens = facts.tokens.map((_, i) => `q${i}`);
    const cross = { ...facts, query_tokens, part: "cross", title: "Cross-attention" };
    const model = new FakeModel({ facts: cross, selected_layer: 17, selected_head: 5 });
    const el = show(model);
    expect(text(el, "h2")).toBe(
      "Cross-attention30 layers × 9 heads · 24 decoder tokens look at 24 encoder tokens",
    );
    model.answerHead();
    await settle();
    expect(text(el, ".lt-sentence")).toContain("q23₂₃looks at·lamp₆");
    el.querySelectorAll<HTMLElement>(".lt-word")[3]!.click();
    expect(model.get("selected_tokens")).toEqual([23, 3]);
  });
});

test("a run that has not begun shows what is happening, and nothing else", async () => {
  const nothing = {
    layers: [],
    statistics: [],
    tokens: [],
    kinds: [],
    n_tokens: 0,
    side_rows: 0,
    side_keys: 0,
    done: 0,
    total: 0,
  };
  const empty = new DataView(new ArrayBuffer(0));
  const starting = {
    ...facts,
    ...nothing,
    phase: "computing",
    message: "starting the model",
    provenance: "",
  };
  const model = new FakeModel({ facts: starting, thumbnails: empty, statistics: empty });
  const el = show(model);
  await vi.advanceTimersByTimeAsync(300);
  expect(text(el, ".lt-progress-text")).toContain("starting the model");
  model.state.facts = facts;
  model.state.thumbnails = thumbnails;
  model.state.statistics = statistics;
  for (const name of ["facts", "thumbnails", "statistics"]) model.emit(`change:${name}`);
  await settle();
  expect(text(el, ".lt-kept")).toBe("270 of 270 heads");
});

test("E14: a model without attention says what it has instead", () => {
  const layers = [0, 1, 2].map((layer) => ({
    ...facts.layers[0]!,
    layer,
    kind: "none",
    reason: "recurrent layer: no attention",
    heads: 0,
  }));
  const model = new FakeModel({ facts: { ...facts, layers } });
  expect(text(show(model), ".lt-panel")).toBe(
    "No layer of this model has attention. It has 3 recurrent layers.",
  );
});

describe("views", () => {
  test("several of one model follow each other", async () => {
    const model = new FakeModel();
    const [a, b] = [show(model), show(model)];
    model.set("filter", { sink: [0.5, 1] });
    await settle();
    expect(text(a, ".lt-kept")).toBe(text(b, ".lt-kept"));
    expect(text(a, ".lt-kept")).not.toBe("270 of 270 heads");
  });

  test("W6: one that is hidden at first is drawn when it is shown", async () => {
    page.width = 0;
    const el = show(new FakeModel());
    expect(text(el, "h2")).toBe("");
    resize(1100);
    expect(text(el, "h2")).toContain("30 layers");
    expect(el.querySelector<HTMLElement>(".lt-grid canvas")!.style.width).not.toBe("");
  });

  test("change their layout with their own width", () => {
    const el = show(new FakeModel());
    const root = el.firstElementChild!;
    expect(root.classList.contains("lt-wide")).toBe(true);
    resize(400);
    expect(root.classList.contains("lt-narrow")).toBe(true);
  });

  test("leave nothing behind", async () => {
    const counts = { added: 0, removed: 0 };
    const targets = [window, document];
    const spies = targets.flatMap((t) => [
      vi.spyOn(t, "addEventListener").mockImplementation(() => void counts.added++),
      vi.spyOn(t, "removeEventListener").mockImplementation(() => void counts.removed++),
    ]);
    const model = new FakeModel({
      selected_layer: 17,
      selected_head: 5,
      facts: { ...facts, phase: "computing", total: 30 },
    });
    const before = observers.size;
    const el = document.createElement("div");
    document.body.append(el);
    const dispose = widget.render({ model, el } as never) as () => void;
    await vi.advanceTimersByTimeAsync(50);
    dispose();
    for (const s of spies) s.mockRestore();
    expect(counts.added).toBeGreaterThan(3);
    expect(counts.removed).toBe(counts.added);
    expect(model.listening).toBe(0);
    expect(observers.size).toBe(before);
    expect(el.childNodes.length).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
    model.answerHead();
    model.set("sort", "sink");
    await vi.advanceTimersByTimeAsync(5000);
    expect(el.childNodes.length).toBe(0);
  });
});
