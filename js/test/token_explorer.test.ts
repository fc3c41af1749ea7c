// TokenExplorer as a notebook runs it: rows, sliders, branches, what needs a kernel, clean-up.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Facts, Node } from "../src/token_explorer/data";
import { position, valueAt } from "../src/token_explorer/sliders";
import widget from "../src/token_explorer/widget";
import { value } from "../src/token_explorer/words";
import { FakeModel } from "./fixture";
import { observers, page } from "./page";

const LOGITS = Float32Array.from([5, 4, 3, 2, 1, 0, -1, -2]);
const WORDS = Object.fromEntries([..."abcdefg"].map((c, i) => [String(i), [`\u00b7${c}`, "normal"]]));
const facts: Facts = {
  title: "Next token",
  model: "m",
  provenance: "llama.cpp logits \u00b7 m",
  details: {},
  live: true,
  saved: "25 Nov",
  n_words: 8,
  tokens: ["The", "\u00b7<b>"],
  kinds: ["normal", "normal"],
  ids: [6, 7],
  added: "",
  speed: {},
};
const node = (parent: number, token: number, more: Partial<Node> = {}): Node => ({
  parent,
  token,
  text: WORDS[String(token)]![0]!,
  kind: "normal",
  joins: null,
  probability: 0.25,
  rank: 2,
  ms: 9.5,
  how: "sampled",
  top: [
    [0, "\u00b7a", 0.6],
    [1, "\u00b7b", 0.25],
  ],
  ...more,
});
const root = { parent: null, token: null } as unknown as Node;

const later = () => new Promise((done) => setTimeout(done, 20));
let el: HTMLElement;
let stop: (() => void) | undefined;

function show(state: Record<string, unknown> = {}): FakeModel {
  const model = new FakeModel({
    facts,
    nodes: [root],
    words: { ...WORDS, "7": ["<0xE2>", "byte"] },
    here: [0],
    logits: [new DataView(LOGITS.slice().buffer)],
    temperature: 1,
    top_k: 4,
    typical_p: 1,
    top_p: 1,
    min_p: 0,
    repeat_penalty: 1,
    seed: 3,
    node: 0,
    leaf: 0,
    ...state,
  });
  stop = widget.render({ model, el } as never) as () => void;
  return model;
}

const rows = () => [...el.querySelectorAll<HTMLElement>(".lt-te-list button:not([hidden])")];
const slider = (name: string) => el.querySelector<HTMLInputElement>(`input[aria-label="${name}"]`)!;

beforeEach(() => {
  page.width = 1084;
  el = document.createElement("div");
  document.body.append(el);
});

afterEach(() => {
  stop?.();
  el.remove();
  vi.restoreAllMocks();
});

test("rows say what is left and which filter cut the others", () => {
  show();
  expect(rows().length).toBe(8);
  expect(rows()[0]!.textContent).toContain("\u00b7a");
  expect(rows()[4]!.getAttribute("aria-label")).toContain("cut by top-k");
  expect(rows()[7]!.getAttribute("aria-label")).toContain("<0xE2>, byte token");
  expect(el.querySelector(".lt-te-prompt")!.textContent).toBe("The <b>?");
  expect(el.querySelector(".lt-te-prompt b")).toBeNull();
});

test("a slider changes the trait and what is left, without the kernel", async () => {
  const model = show();
  const input = slider("top-k");
  input.value = "0";
  input.dispatchEvent(new Event("input"));
  expect(model.state.top_k).toBe(1);
  await later();
  expect(rows().filter((r) => r.className.includes("lt-te-cut")).length).toBe(7);
  expect(input.getAttribute("aria-valuetext")).toMatch(/^1, 8 \u2192 1, cuts 7 tokens holding/);
  expect(model.sent).toEqual([]);
});

test("a press takes a token; one that is kept is only gone to", async () => {
  const model = show({ nodes: [root, node(0, 1), node(1, 0)], leaf: 2 });
  rows()[1]!.click();
  expect([model.state.node, model.sent.length]).toEqual([1, 0]);
  model.set("node", 0);
  await later();
  rows()[2]!.click();
  await later();
  expect(model.sent[0]).toMatchObject({ type: "step", node: 0, token: 2 });
});

test("two continuations are two branches, and a place that is not here is asked for", async () => {
  const model = show({ nodes: [root, node(0, 1), node(1, 0), node(1, 2)], leaf: 2 });
  const branches = [...el.querySelectorAll<HTMLElement>(".lt-te-branch")];
  expect(branches.map((b) => b.getAttribute("aria-pressed"))).toEqual(["true", "false"]);
  branches[1]!.click();
  await later();
  expect([model.state.leaf, model.state.node]).toEqual([3, 3]);
  expect(model.sent[0]).toMatchObject({ type: "show", node: 3 });
});

test("a saved page says what needs a kernel, and its sliders work", async () => {
  const saved = { ...facts, live: false };
  const model = show({ facts: saved, nodes: [root, node(0, 1, { ms: null, joins: "\u00e9" })], leaf: 1 });
  await later();
  expect(el.querySelector<HTMLButtonElement>(".lt-te-first")!.disabled).toBe(true);
  expect(el.querySelector(".lt-provenance")!.textContent).toContain("saved 25 Nov, not live");
  expect(el.querySelector(".lt-te-sentence")!.textContent).toContain(
    "time not measured, completes \u201c\u00e9\u201d",
  );
  model.set("node", 1);
  await later();
  expect(el.querySelector(".lt-empty")!.textContent).toContain("it needs a kernel");
});

test("nothing stays behind", () => {
  const before = observers.size;
  show();
  stop!();
  stop = undefined;
  expect(observers.size).toBe(before);
  expect(el.childNodes.length).toBe(0);
});

test("places of sliders and values go back and forth", () => {
  for (const [name, v] of [
    ["top_k", 40],
    ["top_k", 0],
    ["min_p", 0.25],
    ["top_p", 0.95],
    ["temperature", 0.8],
    ["repeat_penalty", 1.1],
  ] as const)
    expect(valueAt(name, position(name, v, 49152), 49152)).toBe(v);
  expect([value("top_k", 0), value("min_p", 0.02), value("top_p", 1), value("temperature", 0)]).toEqual([
    "all",
    "0.02",
    "off",
    "0.00",
  ]);
});
