// TelemetryPanel: figures as text, what is drawn, the widget as a notebook runs it. The values are of no run: they test the view.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { isInside, Scale } from "../src/telemetry_panel/chart";
import {
  type Facts,
  type OperationTimes,
  PanelData,
  quantile,
  type Run,
  topOf,
} from "../src/telemetry_panel/data";
import { barName, layersPlot, operationLine } from "../src/telemetry_panel/layers";
import widget from "../src/telemetry_panel/widget";
import {
  amountOf,
  duration,
  figures,
  operationWords,
  overheadWords,
  percent,
  runCells,
  sourceCells,
} from "../src/telemetry_panel/words";
import { FakeModel } from "./fixture";
import { observers, page, resize } from "./page";

const run: Run = {
  phase: "done",
  message: "",
  name: "tiny F32",
  provenance: "tiny F32 \u00b7 4 + 3 tokens \u00b7 CPU, 2 threads",
  details: { model: "tiny" },
  saved: "26 Nov",
  prompt: 4,
  device: "CPU",
  numbers: {
    decode: 113.4,
    first: 98.7,
    prefill: 243,
    memory: 529e6,
    used: 7,
    size: 512,
    threads: 2,
    overhead: null,
  },
  memory: [
    {
      place: "Engine process",
      total: 100,
      parts: [
        { owner: "weights", label: "weights", bytes: 60 },
        { owner: "rest", label: "Python and the rest", bytes: 40 },
      ],
      note: "",
    },
  ],
};

const facts: Facts = {
  title: "Telemetry",
  live: true,
  provenance: run.provenance,
  runs: [run],
  source: null,
  figures: [],
  no_gpu: "CPU only, no NVIDIA GPU found",
};
const words = ["\u00b7one", "<b>two</b>", "\u00b7three"];
const series = (...rows: number[][]) => new DataView(new Float32Array(rows.flat()).buffer);
const three = series([8, 10, 9], [1.5, 1.8, 2], [0.1, 3, 7]);

const source: Facts = {
  ...facts,
  runs: [],
  source: {
    title: "llama.cpp server",
    facts: {},
    notes: { "": "start it with --metrics", "gpu0.power": "no" },
  },
  figures: [
    { name: "decode_tps", device: "", label: "decode", unit: "tokens/s", note: "two slots" },
    { name: "slots_busy", device: "", label: "slots busy", unit: "", note: "" },
    { name: "slots", device: "", label: "slots", unit: "", note: "" },
    { name: "busy", device: "gpu0", label: "busy", unit: "%", note: "" },
    { name: "power", device: "gpu0", label: "power", unit: "W", note: "this GPU does not tell it" },
  ],
};
const samples = new DataView(
  new Float64Array([100, 101, 50, 60, 1, 2, 4, 4, 30, 40, Number.NaN, Number.NaN]).buffer,
);

const times: OperationTimes = {
  kinds: ["attention", "MLP", "other"],
  layers: [
    { part: "self", stage: "input", layer: null, ms: [0, 0, 1] },
    { part: "self", stage: "layers", layer: 0, ms: [4, 10, 1] },
    { part: "self", stage: "layers", layer: 1, ms: [5, 10, 1] },
    { part: "self", stage: "output", layer: null, ms: [0, 0, 8] },
  ],
  operations: [
    { op: "MUL_MAT", count: 12, ms: [8, 20, 8] },
    { op: "<b>ADD", count: 3, ms: [1, 0, 3] },
  ],
  ms: 40,
  whole_ms: 32,
  tokens: 16,
  repeats: 3,
  provenance: "read from the running graph",
};

beforeEach(() => {
  vi.useFakeTimers();
  page.width = 1084;
});
afterEach(() => {
  vi.useRealTimers();
  document.body.replaceChildren();
});

describe("data and words", () => {
  test("rows of the series are times, threads and surprise of each word", () => {
    const own = new PanelData(facts, [words], [three], undefined).runs[0]!;
    expect([...own.ms]).toEqual([8, 10, 9]);
    expect(own.threads[2]).toBe(2);
    expect(own.bits[1]).toBe(3);
    expect(new PanelData(facts, [words.slice(0, 2)], [three], undefined).count).toBe(2);
  });

  test("axes end at 1, 2 or 5 times a power of ten, and start at 0", () => {
    expect([8.5, 10, 10.2, 0.03, 0, Number.NaN].map(topOf)).toEqual([10, 10, 20, 0.05, 1, 1]);
    const scale = new Scale(0, 10, 1040);
    expect(scale.place(scale.x(7))).toBeCloseTo(7);
    expect(scale.place(-50)).toBe(0);
    expect(quantile([3, 1, Number.NaN, 2], 0.5)).toBe(2);
  });

  test("the newest moment of a source is on its axis", () => {
    const xs = [1.79e9, 1.79e9 + 0.5, 1.79e9 + 1];
    const scale = new Scale(xs[0]!, xs[2]!, 1040);
    expect(xs.map((_, at) => isInside({ xs, bars: false }, scale, at))).toEqual([true, true, true]);
    expect(isInside({ xs: [0, 1], bars: true }, new Scale(0, 1, 1040), 1)).toBe(false);
  });

  test("what was not measured is a dash", () => {
    expect(figures(null)).toBe("\u2013");
    expect(figures(0)).toBe("0");
    expect(duration(1400)).toEqual(["1.4", "s"]);
    expect(duration(8.71)).toEqual(["8.7", "ms"]);
    expect(amountOf(Number.NaN, "W")).toBe("\u2013");
    expect([0.778, 0.0041, 0.0004, 0].map(percent)).toEqual(
      ["78", "0.41", "<0.1", "0"].map((own) => `${own}\u202f%`),
    );
    const cells = runCells(run).map((c) => `${c.value} ${c.unit}`);
    expect(cells).toEqual(["113 tokens/s", "99 ms", "243 tokens/s", "529 MB", "7 / 512"]);
    const running = runCells({ ...run, phase: "decode", numbers: { decode: 90 } });
    expect(running[1]).toMatchObject({ value: "\u2013", title: "first token: known when the run has ended" });
  });

  test("a server's line has its first figures, slots of slots", () => {
    const cells = sourceCells(new PanelData(source, [], [], samples));
    expect(cells.map((c) => [c.value, c.unit])).toEqual([
      ["60", "tokens/s"],
      ["2", "/ 4"],
    ]);
  });

  test("the cost of capture is said with both times", () => {
    const found = { repeats: 3, prefill_ratio: 1.31, prefill_seconds: 0.074, plain_prefill_seconds: 0.056 };
    expect(overheadWords(found)).toContain(
      "prefill \u00d7 1.31 (74\u202fms, without capture 56\u202fms); medians of 3",
    );
  });
});

describe("layers and operations", () => {
  test("bars are sums of their parts, named, and the chosen layer is ringed in every stack", () => {
    const plot = layersPlot(times, 1, (token) => token);
    expect([...(plot.values as number[])]).toEqual([1, 15, 16, 8]);
    expect(plot.stack!.map((part) => part.colour)).toEqual(["--lt-attn", "--lt-mlp", "--lt-line2"]);
    expect(plot.ringed).toEqual([2]);
    expect(plot.ends).toEqual(["embedding", "output"]);
    expect([0, 1, 3].map(plot.names!)).toEqual(["", "L0", ""]);
    expect(barName({ ...times.layers[1]!, part: "decoder" })).toBe("decoder L0");
    const two = { ...times, layers: [...times.layers, { ...times.layers[2]!, part: "decoder" }] };
    expect(layersPlot(two, 1, String).ringed).toEqual([2, 4]);
  });

  test("both times are said, and that stops cost where they did", () => {
    expect(operationWords(times)).toBe(
      "measured op by op, slower than a plain run: 40\u202fms, without stops 32\u202fms \u00b7 prompt of 16 tokens \u00b7 median of 3",
    );
    expect(operationWords({ ...times, whole_ms: 41 })).toContain(
      "measured op by op: 40\u202fms, without stops 41\u202fms \u00b7",
    );
    expect(operationWords({ ...times, whole_ms: 100 })).toContain("100\u202fms, the machine was busy \u00b7");
    expect(operationLine(times)).toBe("MUL_MAT 90\u202f% \u00b7 <b>ADD 10\u202f%");
  });
});

describe("widget", () => {
  function open(state: Record<string, unknown> = {}) {
    const model = new FakeModel({
      facts,
      words: [words],
      series: [three],
      samples: new DataView(new ArrayBuffer(0)),
      operation_times: {},
      expanded: false,
      selected_layer: null,
      selected_tokens: [],
      span: [],
      ...state,
    });
    const el = document.createElement("div");
    document.body.append(el);
    const close = widget.render({ model, el } as never) as () => void;
    vi.advanceTimersByTime(50);
    return { model, el, close, find: (name: string) => el.querySelector<HTMLElement>(name)! };
  }

  test("it is a line that opens to charts", () => {
    const { model, find, close } = open();
    expect(find(".lt-tp-body").hidden).toBe(true);
    const line = find(".lt-tp-line");
    expect(line.getAttribute("aria-label")).toContain("decode 113 tokens/s, first token 99 ms");
    line.click();
    vi.advanceTimersByTime(50);
    expect(model.state.expanded).toBe(true);
    expect(find(".lt-tp-body").hidden).toBe(false);
    expect(find(".lt-tp-charts h3").textContent).toContain(
      "median 9 \u00b7 95\u202f% within 9.9 \u00b7 slowest 10",
    );
    expect(find(".lt-tp-memory").textContent).toContain("weights 60\u202fB");
    expect(find(".lt-tp-gpu").textContent).toBe("GPUCPU only, no NVIDIA GPU found");
    expect(find(".lt-tp-costs").textContent).toContain("what it adds was not measured");
    close();
  });

  test("keys step through the tokens, Enter chooses one, Esc frees", () => {
    const { model, find, el, close } = open({ expanded: true });
    const area = find(".lt-tp-area");
    const press = (key: string) =>
      area.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    press("ArrowRight");
    vi.advanceTimersByTime(200);
    expect(area.getAttribute("aria-valuetext")).toContain("<b>two</b>");
    expect(el.querySelectorAll(".lt-tp-area b")).toHaveLength(0);
    expect([...el.querySelectorAll<HTMLElement>(".lt-tp-column")].map((c) => c.hidden)).toEqual([
      false,
      false,
    ]);
    press("Enter");
    vi.advanceTimersByTime(50);
    expect(model.state.selected_tokens).toEqual([5]);
    expect(find(".lt-tp-sentence").textContent).toContain("<b>two</b> token 2: 10\u202fms");
    press("Escape"); // the tooltip first
    press("Escape");
    expect(model.state.selected_tokens).toEqual([]);
    close();
  });

  test("a span narrows the figures, and everything comes back", () => {
    const { model, find, close } = open({ expanded: true, span: [0, 2] });
    expect(find(".lt-tp-charts h3").textContent).toContain("median 9 \u00b7 95\u202f% within 9.9");
    expect(find(".lt-tp-sentence").textContent).toContain("tokens 1 to 2");
    find(".lt-tp-sentence button").click();
    expect(model.state.span).toEqual([]);
    close();
  });

  test("two runs are told apart", () => {
    const second = { ...run, numbers: { ...run.numbers, decode: 98 }, provenance: "tiny Q8" };
    const { find, close } = open({
      expanded: true,
      facts: { ...facts, runs: [run, second] },
      words: [words, ["\u00b7one"]],
      series: [three, series([7], [1], [0.2])],
    });
    expect(find(".lt-tp-line").textContent).toContain("decode \u00b7 B 98 tokens/s");
    expect(find(".lt-tp-charts h3").textContent).toContain("line B: median 7");
    close();
  });

  test("a source has charts of what it tells, a GPU row with dashes, and what is off", () => {
    const { find, el, close } = open({ expanded: true, facts: source, words: [], series: [], samples });
    const headings = [...el.querySelectorAll(".lt-tp-charts h3 b")].map((b) => b.textContent);
    expect(headings).toEqual(["Decode", "Slots busy"]);
    expect(find(".lt-tp-charts h3").textContent).toBe("Decode60\u202ftokens/s \u00b7 two slots");
    expect(find(".lt-provenance").classList.contains("lt-stale")).toBe(false);
    expect(find(".lt-tp-device").textContent).toContain("GPU 040\u202f%");
    const power = [...el.querySelectorAll<HTMLElement>(".lt-tp-device span")].find((s) =>
      s.title.includes("not tell"),
    )!;
    expect(power.textContent).toContain("\u2013");
    expect(find(".lt-tp-notice").textContent).toBe("start it with --metrics");
    close();
  });

  test("a source that tells nothing now is no live one", () => {
    const silent = new DataView(new Float64Array([100, 101, 50, Number.NaN]).buffer);
    const one = { ...source, figures: source.figures.slice(0, 1) };
    const { find, close } = open({ expanded: true, facts: one, words: [], series: [], samples: silent });
    expect(find(".lt-provenance").classList.contains("lt-stale")).toBe(true);
    expect(find(".lt-tp-line b").textContent).toBe("\u2013");
    close();
  });

  test("a run that has not begun, or has failed, says so", () => {
    const waiting = { ...run, phase: "waiting" as const, numbers: {}, memory: [], provenance: "" };
    const { model, find, close } = open({
      expanded: true,
      facts: { ...facts, runs: [waiting] },
      words: [[]],
      series: [],
    });
    expect(find(".lt-tp-notice").textContent).toContain("No run has begun yet");
    model.set("facts", { ...facts, runs: [{ ...waiting, phase: "failed", message: "out of memory" }] });
    vi.advanceTimersByTime(50);
    return Promise.resolve().then(() => {
      vi.advanceTimersByTime(50);
      expect(find(".lt-tp-notice").textContent).toBe("The run has ended: out of memory.");
      close();
    });
  });

  test("it says while it is seen, and takes everything away with it", () => {
    const { model, el, close } = open({ expanded: true });
    const told = () => model.sent.filter((m) => m.type === "watch").map((m) => m.on);
    expect(told()).toEqual([true]);
    vi.advanceTimersByTime(15_000);
    expect(told()).toEqual([true, true]);
    Object.defineProperty(document, "visibilityState", { configurable: true, value: "hidden" });
    document.dispatchEvent(new Event("visibilitychange"));
    expect(told()).toEqual([true, true, false]);
    vi.advanceTimersByTime(60_000);
    expect(told()).toHaveLength(3);
    Object.defineProperty(document, "visibilityState", { configurable: true, value: "visible" });
    document.dispatchEvent(new Event("visibilitychange"));
    expect(told().at(-1)).toBe(true);
    close();
    expect(told().at(-1)).toBe(false);
    expect(model.listening).toBe(0);
    expect(observers.size).toBe(0);
    expect(el.children).toHaveLength(0);
  });

  test("the cost of capture is asked for, and a failure is said", async () => {
    const { model, find, el, close } = open({ expanded: true });
    const button = [...el.querySelectorAll("button")].find((b) => b.textContent === "Measure")!;
    button.click();
    const asked = model.sent.find((m) => m.type === "overhead")!;
    model.receive({ type: "error", id: asked.id, message: "the model is gone" });
    await vi.advanceTimersByTimeAsync(50);
    expect(find(".lt-tp-costs").textContent).toContain("the model is gone");
    close();
  });

  test("layers and operations are measured on request and then drawn", async () => {
    const { model, find, el, close } = open({ expanded: true });
    expect(find(".lt-tp-layers").hidden).toBe(true);
    const button = [...el.querySelectorAll("button")].find((b) => b.textContent?.includes("layers and"))!;
    button.click();
    const asked = model.sent.find((m) => m.type === "times")!;
    model.set("operation_times", times);
    model.receive({ type: "times", id: asked.id });
    await vi.advanceTimersByTimeAsync(50);
    expect(find(".lt-tp-layers").hidden).toBe(false);
    expect(find(".lt-tp-layers h3").textContent).toContain("measured op by op");
    const lines = [...el.querySelectorAll(".lt-tp-op")].map((line) => line.textContent);
    expect(lines).toEqual([
      "MUL_MAT\u00d7\u202f1290\u202f%36\u202fms",
      "<b>ADD\u00d7\u202f310\u202f%4\u202fms",
    ]);
    expect([...el.querySelectorAll(".lt-tp-kinds span")].map((s) => s.textContent)).toEqual(times.kinds);
    expect(el.contains(button)).toBe(false);
    close();
  });

  test("a layer is chosen by keys, said, and freed by Esc; what is no layer is not chosen", () => {
    const { model, find, close } = open({ expanded: true, operation_times: times });
    const area = find(".lt-tp-layers .lt-tp-area");
    const press = (key: string) =>
      area.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    expect(area.getAttribute("aria-label")).toBe("Layers: arrows move, Enter chooses a layer");
    press("Enter");
    expect(model.state.selected_layer).toBe(null);
    press("ArrowRight");
    expect(area.getAttribute("aria-valuetext")).toContain("L0 time 15\u202fms, 38\u202f% of all");
    press("Enter");
    expect(model.state.selected_layer).toBe(0);
    press("Escape");
    press("Escape");
    expect(model.state.selected_layer).toBe(null);
    close();
  });

  test("a narrow page keeps the figures and drops the curve", () => {
    const { find, el, close } = open();
    expect(find(".lt-tp-spark").hidden).toBe(false);
    resize(420);
    vi.advanceTimersByTime(50);
    expect(find(".lt-tp-spark").hidden).toBe(true);
    expect(el.querySelector(".lt-tp-few")).not.toBeNull();
    close();
  });
});
