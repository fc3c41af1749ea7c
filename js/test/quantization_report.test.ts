// QuantizationReport: its data, the plot's layout, and the widget as a notebook runs it, from a real study.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Facts, frontier, ReportData, type Strip } from "../src/quantization_report/data";
import { layoutPlot } from "../src/quantization_report/plot_layout";
import widget from "../src/quantization_report/widget";
import { figure, percent, rowWords, shortNames, speed } from "../src/quantization_report/words";
import { FakeModel } from "./fixture";
import { observers, resize } from "./page";

interface Stored {
  facts: Facts;
  strips: Record<string, Strip>;
  layer_drift: string;
  head_drift: string;
}

const stored = JSON.parse(
  readFileSync(join(import.meta.dirname, "data", "quantization.json"), "utf8"),
) as Stored;
const { facts, strips } = stored;
const bytes = (text: string) => {
  const b = new Uint8Array(Buffer.from(text, "base64"));
  return new DataView(b.buffer, b.byteOffset, b.byteLength);
};
const floats = (values: number[]) => new DataView(Float32Array.from(values).buffer);
const NAMES = facts.rows.map((r) => r.name);
const [Q8, , Q4KM, Q41] = NAMES as [string, string, string, string];
const NONE = floats([]);

/** Drift that is easy to count with, not measured: 6 candidates, 3 layers, 2 heads; the cache's was not captured. */
const drift = {
  facts: { ...facts, shapes: [3, 3, 2] as const },
  layer_drift: floats(
    NAMES.flatMap((_, i) => [0, 1, 2].map((c) => (i === 5 ? Number.NaN : 0.01 * (i + c + 1)))),
  ),
  head_drift: floats(
    NAMES.flatMap((_, i) => [0, 1, 2, 3, 4, 5].map((c) => (i === 5 ? Number.NaN : 0.001 * (6 * i + c + 1)))),
  ),
};

function reportData(changes: Partial<Facts> = {}): ReportData {
  return ReportData.from(
    { ...facts, ...changes },
    bytes(stored.layer_drift),
    bytes(stored.head_drift),
    strips,
  );
}

describe("data", () => {
  test("the choice changes where a larger file fits, and says the budget that was set", () => {
    const data = reportData();
    expect(data.choice(null)?.name).toBe(facts.choices[0]!.name);
    expect(data.choice(110_000_000)?.name).toBe(Q41);
    expect(data.choice(110_000_000)?.body).toMatch(/^Within 110\u202fMB it is the closest to the base/);
    expect(data.choice(90_000_000)?.name).toBe(NAMES[4]);
    const nothing = data.choice(1000)!;
    expect([nothing.name, nothing.body]).toEqual([
      null,
      expect.stringContaining("within 1.0\u202fkB: the smallest"),
    ]);
    expect(reportData({ choices: [] }).choice(null)).toBeNull();
  });

  test("the frontier has what none is smaller and closer than", () => {
    expect(frontier(reportData().placed).map((r) => r.name)).toEqual([NAMES[4], Q41]);
  });

  test("a mean over heads, and one candidate's heads", () => {
    const data = ReportData.from(drift.facts, drift.layer_drift, drift.head_drift, {});
    expect(data.attention[0]).toBeCloseTo(0.0015, 6);
    expect(data.attention[17]).toBeNaN();
    const own = data.headsOf(Q8)!;
    expect([...own].map((v) => Math.round(1000 * v))).toEqual([1, 3, 5, 2, 4, 6]);
    expect(data.headsOf("kv:q8_0")).toBeNull();
  });

  test("a buffer of another shape is not taken", () => {
    const data = ReportData.from(drift.facts, floats([1]), NONE, {});
    expect([data.layers.length, data.heads.length, data.headsOf(Q8)]).toEqual([0, 0, null]);
  });
});

describe("plot", () => {
  test("smaller stands left, closer stands lower, the interval around", () => {
    const layout = layoutPlot(reportData(), 540, 340, "log")!;
    const at = new Map(layout.points.map((p) => [p.row.name, p]));
    expect(layout.points.length).toBe(5);
    expect(at.get(Q41)!.x).toBeLessThan(at.get(Q8)!.x);
    expect(at.get(Q41)!.y).toBeGreaterThan(at.get(Q4KM)!.y);
    const [top, bottom] = at.get(Q4KM)!.interval!;
    expect(top).toBeLessThan(at.get(Q4KM)!.y);
    expect(bottom).toBeGreaterThan(at.get(Q4KM)!.y);
    expect(layout.bytesAt(layout.x(100e6))).toBeCloseTo(100e6, -1);
    expect(layout.yTicks.map((t) => t[1])).toContain("0.1");
  });

  test("names cover neither points nor each other", () => {
    const layout = layoutPlot(reportData(), 540, 340, "log")!;
    const boxes = layout.points.map(({ name, label }) => {
      const wide = name.length * 6.9;
      const left = label.anchor === "start" ? label.x : label.x - (label.anchor === "end" ? wide : wide / 2);
      return [left, label.y - 11, left + wide, label.y + 3] as const;
    });
    boxes.forEach((a, i) => {
      for (const b of boxes.slice(i + 1))
        expect(a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]).toBe(false);
      for (const p of layout.points) expect(p.x > a[0] && p.x < a[2] && p.y > a[1] && p.y < a[3]).toBe(false);
    });
  });

  test("linear from 0; what is exactly the base stands on the axis of either scale", () => {
    const rows = facts.rows.map((r, i) => (i === 0 ? { ...r, kl: 0, kl_ci: 0 } : r));
    for (const scale of ["linear", "log"] as const) {
      const layout = layoutPlot(reportData({ rows }), 540, 340, scale)!;
      expect(layout.points[0]!.y).toBe(layout.bottom);
    }
    expect(layoutPlot(reportData({ rows: [] }), 540, 340, "log")).toBeNull();
    const one = layoutPlot(reportData({ rows: facts.rows.slice(0, 1), blocks: [] }), 540, 340, "log")!;
    expect(Number.isFinite(one.points[0]!.x) && Number.isFinite(one.points[0]!.y)).toBe(true);
  });
});

test("figures as they are written", () => {
  expect([figure(0.00312), figure(0), figure(2e-6), figure(1.5), figure(null)]).toEqual([
    "0.0031",
    "0",
    "2.0e\u22126",
    "1.500",
    "\u2013",
  ]);
  expect(percent(0.976)).toBe("97.6\u202f%");
  expect(shortNames(["m-1.Q8_0", "m-1.Q4_K_M", "kv:q8_0"])).toEqual(["Q8_0", "Q4_K_M", "kv:q8_0"]);
  expect(shortNames(["m.Q8_0"])).toEqual(["m.Q8_0"]);
  const row = facts.rows[0]!;
  expect(speed({ ...row, decode_tps: 61.4 })).toBe("61 tokens/s");
  expect(speed({ ...row, decode_tps: null, speed_note: "repeats differ by 31 %" })).toBe("not comparable");
  expect(rowWords({ ...row, status: "failed", error: "it crashed" })).toBe(`${row.name}: failed, it crashed`);
});

// ------------------------------------------------------------------------------------ the widget

const open: (() => void)[] = [];
const settle = () => vi.advanceTimersByTimeAsync(120);
const text = (el: HTMLElement, at: string) => el.querySelector(at)?.textContent ?? "";

function makeModel(state: Record<string, unknown> = {}): FakeModel {
  return new FakeModel({
    facts,
    strips,
    layer_drift: bytes(stored.layer_drift),
    head_drift: bytes(stored.head_drift),
    comparison: null,
    max_bytes: null,
    selected_candidate: null,
    selected_layer: null,
    selected_head: null,
    scale: "log",
    theme: "light",
    ...state,
  });
}

function show(model: FakeModel): HTMLElement {
  const el = document.createElement("div");
  document.body.append(el);
  const dispose = widget.render({ model, el } as never) as () => void;
  open.push(() => {
    dispose();
    el.remove();
  });
  return el;
}

function press(target: Element, key: string): void {
  target.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, composed: true, cancelable: true }),
  );
}

describe("widget", () => {
  beforeEach(() => {
    vi.useFakeTimers();
    resize(1084);
  });
  afterEach(() => {
    for (const dispose of open.splice(0)) dispose();
    vi.useRealTimers();
  });

  test("the recommendation comes first, with how sure it is and its limits", async () => {
    const el = show(makeModel({ max_bytes: 110_000_000 }));
    await settle();
    const choice = reportData().choice(110_000_000)!;
    expect(text(el, ".lt-qr-headline")).toBe(choice.headline);
    expect(text(el, ".lt-qr-answer")).toContain(choice.body);
    expect(text(el, ".lt-qr-beside")).toContain(`How sure: ${choice.sure}`);
    expect(text(el, ".lt-qr-limit")).toBe(`Limit: ${choice.limits[0]}`);
    expect(text(el, "pre")).toBe(choice.commands["llama-server"]);
    const all = el.textContent!;
    expect(all.indexOf(choice.headline)).toBeLessThan(all.indexOf("Distance from the base"));
  });

  test("the table has every candidate, the base last, and marks the recommended one", async () => {
    const el = show(makeModel());
    await settle();
    const rows = [...el.querySelectorAll(".lt-qr-table tbody tr")].slice(0, 7);
    expect(rows.map((r) => r.querySelector("bdi")!.textContent)).toEqual([...NAMES, facts.base.name]);
    expect(text(el, ".lt-qr-best")).toContain("recommended");
    expect(rows[0]!.textContent).toContain(figure(facts.rows[0]!.kl));
    expect(rows[6]!.textContent).toContain("the base");
  });

  test("a failed candidate says why; one that is measured in part says so", async () => {
    const rows = facts.rows.map((r, i) =>
      i === 0
        ? { ...r, status: "failed", kl: null, error: "llama.cpp stopped: <b>x</b>" }
        : i === 1
          ? { ...r, status: "running" }
          : r,
    );
    const el = show(makeModel({ facts: { ...facts, rows, running: true, progress: "block 2 of prose" } }));
    await settle();
    expect(text(el, ".lt-qr-failed")).toContain("failed: llama.cpp stopped: <b>x</b>");
    expect(el.querySelector(".lt-qr-failed b + b")).toBeNull();
    expect(text(el, ".lt-qr-table")).toContain("so far");
    expect(text(el, ".lt-qr-run")).toBe("block 2 of prose \u00b7 4 of 6 candidates measuredStop");
  });

  test("the study is stopped and goes on", async () => {
    const model = makeModel({ facts: { ...facts, running: true, progress: "block 1" } });
    const el = show(model);
    await settle();
    const button = el.querySelector<HTMLButtonElement>(".lt-qr-run button")!;
    button.click();
    expect(model.sent.map((m) => m.type)).toEqual(["stop"]);
    model.receive({ type: "stop", id: model.sent[0]!.id });
    const rows = facts.rows.map((r) => ({ ...r, status: "cancelled" }));
    model.set("facts", { ...facts, rows, running: false });
    await settle();
    expect([button.textContent, button.disabled]).toEqual(["Resume", false]);
    button.click();
    model.receive({ type: "error", id: model.sent[1]!.id, message: "this study runs already" });
    await settle();
    expect(text(el, ".lt-qr-run")).toContain("this study runs already");
  });

  test("a study that failed says why", async () => {
    const rows = facts.rows.map((r) => ({ ...r, status: "cancelled" }));
    const el = show(makeModel({ facts: { ...facts, rows, progress: "the base cannot be run" } }));
    await settle();
    expect(text(el, ".lt-qr-run")).toBe("the base cannot be run \u00b7 0 of 6 candidates measuredResume");
  });

  test("a finished study has nothing to stop", async () => {
    const el = show(makeModel());
    await settle();
    expect(el.querySelector<HTMLElement>(".lt-qr-run")!.hidden).toBe(true);
  });

  test("the budget is set by keyboard, the answer changes while it moves, no budget at the end", async () => {
    const model = makeModel();
    const el = show(model);
    await settle();
    const slider = el.querySelector<HTMLInputElement>(".lt-qr-slider")!;
    expect(slider.getAttribute("aria-valuetext")).toBe("no budget");
    slider.value = "20";
    slider.dispatchEvent(new Event("input"));
    await settle();
    expect(model.get("max_bytes")).toBeNull();
    expect(text(el, ".lt-qr-headline")).toContain(NAMES[4]);
    slider.dispatchEvent(new Event("change"));
    await settle();
    expect(model.get("max_bytes")).toBeGreaterThan(80_000_000);
    slider.value = "200";
    slider.dispatchEvent(new Event("change"));
    await settle();
    expect(model.get("max_bytes")).toBeNull();
  });

  test("a point is chosen with a key; Escape frees it", async () => {
    const model = makeModel();
    const el = show(model);
    await settle();
    const points = [...el.querySelectorAll<HTMLElement>(".lt-qr-point")];
    expect(points.filter((p) => p.getAttribute("tabindex") === "0").length).toBe(1);
    points[0]!.focus();
    press(points[0]!, "ArrowRight");
    press(document.activeElement!, "Enter");
    await settle();
    expect(model.get("selected_candidate")).toBe(points[1]!.getAttribute("data-name"));
    press(document.activeElement!, "Escape");
    await settle();
    press(document.activeElement!, "Escape");
    await settle();
    expect(model.get("selected_candidate")).toBeNull();
  });

  test("maps choose candidate, layer and head; a comparison is asked for", async () => {
    const model = makeModel(drift);
    const el = show(model);
    await settle();
    const [residual, , heads] = el.querySelectorAll<HTMLElement>("[data-region=map]");
    residual!.focus();
    for (const key of ["ArrowDown", "ArrowRight", "Enter"]) press(residual!, key);
    await settle();
    expect([model.get("selected_candidate"), model.get("selected_layer")]).toEqual([NAMES[1], 1]);
    expect(residual!.querySelector("[aria-selected=true]")?.textContent).toBe("Q5_K_M, layer 1: 0.0300");
    heads!.focus();
    for (const key of ["ArrowDown", "End", "Enter"]) press(heads!, key);
    await settle();
    expect([model.get("selected_head"), model.get("selected_layer")]).toEqual([1, 2]);
    const compare = [...el.querySelectorAll("button")].find((b) => b.textContent!.startsWith("Compare"))!;
    compare.click();
    expect(model.sent).toMatchObject([{ type: "compare", candidate: NAMES[1] }]);
    model.receive({ type: "error", id: model.sent[0]!.id, message: "it has no file of its own" });
    await settle();
    expect(el.textContent).toContain("it has no file of its own");
  });

  test("an opened comparison is shown, and closed", async () => {
    const inner = document.createElement("div");
    const removed = vi.fn();
    const model = makeModel();
    model.widget_manager = {
      get_model: async (id: string) => id,
      create_view: async (id: string) => {
        inner.textContent = `view of ${id}`;
        return { el: inner, remove: removed };
      },
    };
    const el = show(model);
    const host = () => el.querySelector<HTMLElement>(".lt-qr-comparison")!;
    await settle();
    expect(host().hidden).toBe(true);
    model.set("comparison", "IPY_MODEL_abc");
    await settle();
    expect([host().hidden, host().textContent]).toEqual([false, "view of abcClose the comparison"]);
    host().querySelector("button")!.click();
    await settle();
    expect([model.get("comparison"), host().hidden]).toEqual([null, true]);
    expect(removed).toHaveBeenCalledOnce();
  });

  test("without drift there are no maps", async () => {
    const el = show(
      makeModel({ facts: { ...facts, shapes: [0, 0, 0] }, layer_drift: NONE, head_drift: NONE }),
    );
    await settle();
    expect([...el.querySelectorAll<HTMLElement>(".lt-qr-right > section")].map((s) => s.hidden)).toEqual([
      true,
      true,
      true,
    ]);
  });

  test("the text is coloured, stepped through, and only ever text", async () => {
    const strip = strips[Q4KM]!;
    const tokens = strip.tokens.map((t) => [t[0], "<img src=x onerror=alert(1)>", ...t.slice(2)]);
    const changed = { ...strips, [Q4KM]: { ...strip, tokens } };
    const el = show(makeModel({ selected_candidate: Q4KM, strips: changed }));
    await settle();
    expect(el.querySelector("img")).toBeNull();
    const line = el.querySelector<HTMLElement>(".lt-qr-line")!;
    expect(line.querySelectorAll("[data-at]").length).toBe(strip.tokens.length);
    line.focus();
    press(line, "Home");
    press(line, "ArrowRight");
    expect(line.querySelector("[aria-selected=true]")?.getAttribute("data-at")).toBe("1");
    expect(text(el, ".lt-qr-said")).toContain(`KL ${figure(strip.tokens[1]![4])}`);
    expect(el.querySelectorAll(".lt-qr-change").length).toBe(strip.worst.length);
  });

  test("files come from the kernel; without one they are not offered", async () => {
    const model = makeModel();
    const el = show(model);
    await settle();
    const json = [...el.querySelectorAll<HTMLButtonElement>(".lt-action")].find(
      (b) => b.textContent === "JSON",
    )!;
    json.click();
    expect(model.sent).toMatchObject([{ type: "export", kind: "JSON" }]);
    const made = vi.spyOn(URL, "createObjectURL").mockReturnValue("blob:x");
    model.receive({ type: "export", id: model.sent[0]!.id, name: "a.json" }, floats([1]));
    await settle();
    expect(made).toHaveBeenCalledOnce();
    made.mockRestore();
    const page = show(makeModel({ facts: { ...facts, live: false } }));
    await settle();
    expect([...page.querySelectorAll<HTMLButtonElement>(".lt-action")].every((b) => b.disabled)).toBe(true);
    expect(text(page, ".lt-provenance")).toContain("not live");
  });

  test("nothing measured yet", async () => {
    const rows = facts.rows.map((r) => ({ ...r, status: "waiting", kl: null }));
    const el = show(makeModel({ facts: { ...facts, rows, choices: [], blocks: [], texts: [] }, strips: {} }));
    await settle();
    expect(text(el, ".lt-qr-headline")).toBe("Nothing has been measured yet.");
    expect(text(el, ".lt-qr-run")).toBe("Not running \u00b7 0 of 6 candidates measuredStart");
    expect(el.querySelector<HTMLElement>(".lt-qr-left")!.hidden).toBe(true);
  });

  test("narrow, and cleaned up", async () => {
    const watching = observers.size;
    const model = makeModel(drift);
    const el = show(model);
    resize(420);
    await settle();
    expect(el.querySelector(".lt-root")!.classList.contains("lt-narrow")).toBe(true);
    expect(text(el, ".lt-qr-table thead")).not.toContain("bits/weight");
    for (const dispose of open.splice(0)) dispose();
    expect(observers.size).toBe(watching);
    expect([model.listening, el.childNodes.length]).toEqual([0, 0]);
  });
});
