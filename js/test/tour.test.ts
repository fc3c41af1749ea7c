// Tour as a notebook runs it: steps, what is hidden before an answer, keys, drawings, clean-up.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Facts, looksAt, places } from "../src/tour/data";
import widget from "../src/tour/widget";
import { FakeModel } from "./fixture";
import { observers, page } from "./page";

const facts = JSON.parse(readFileSync(join(import.meta.dirname, "data", "tour.json"), "utf8")) as Facts;
const at = (key: string) => facts.steps.findIndex((step) => step.key === key);
const later = () => new Promise((done) => setTimeout(done, 20));
let el: HTMLElement;
let stop: (() => void) | undefined;

function show(state: Record<string, unknown> = {}): FakeModel {
  const model = new FakeModel({ facts, step: 0, predictions: {}, ...state });
  stop = widget.render({ model, el } as never) as () => void;
  return model;
}

const one = (selector: string) => el.querySelector<HTMLElement>(selector)!;
const all = (selector: string) => [...el.querySelectorAll<HTMLElement>(selector)];
const press = (key: string) =>
  one(".lt-to-next").dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, composed: true, cancelable: true }),
  );

beforeEach(() => {
  page.width = 1084;
  el = document.createElement("div");
  document.body.append(el);
});

afterEach(() => {
  stop?.();
  stop = undefined;
  el.remove();
});

test("every step can be shown, with every drawing", async () => {
  const kinds = new Set<string>();
  for (const [i, step] of facts.steps.entries()) {
    show({ step: i, predictions: { [step.key]: -1 } });
    expect(one(".lt-to-title").textContent).toBe(step.title);
    const drawn = all(".lt-to-figure");
    expect(drawn.length).toBe(step.figures.length + step.after.length);
    for (const figure of [...step.figures, ...step.after]) kinds.add(figure.kind);
    stop?.();
    stop = undefined;
  }
  expect([...kinds].sort()).toEqual(["bars", "chips", "dials", "groups", "matrix", "strips"]);
});

test("an answer and its drawings come with the prediction, not before", async () => {
  const step = facts.steps[at("softmax")]!;
  const model = show({ step: at("softmax") });
  expect(all(".lt-to-figure").length).toBe(step.figures.length);
  expect(one(".lt-to-verdict").hidden).toBe(true);
  expect(el.textContent).not.toContain(step.question.because);
  expect(all(".lt-to-right")).toEqual([]);
  const wrong = (step.question.answer + 1) % step.question.options.length;
  all(".lt-to-option")[wrong]!.click();
  await later();
  expect(model.get("predictions")).toEqual({ softmax: wrong });
  expect(all(".lt-to-figure").length).toBe(step.figures.length + step.after.length);
  expect(one(".lt-to-verdict").textContent).toBe(
    `Not so: ${step.question.options[step.question.answer]}. ${step.question.because}`,
  );
  all(".lt-to-option")[step.question.answer]!.click();
  expect(model.get("predictions")).toEqual({ softmax: wrong });
});

test("the answer can be asked for", async () => {
  const model = show();
  one(".lt-to-show").click();
  await later();
  expect(model.get("predictions")).toEqual({ tokens: -1 });
  expect(one(".lt-to-verdict").textContent).toMatch(/^Answer: /);
  expect(one(".lt-to-place").classList.contains("lt-to-done")).toBe(true);
});

test("steps are walked by buttons, boxes and keys, and select what they are about", async () => {
  const model = show();
  one(".lt-to-next").click();
  await later();
  expect(model.get("step")).toBe(1);
  press("End");
  await later();
  expect(model.get("step")).toBe(facts.steps.length - 1);
  expect(one(".lt-to-next").getAttribute("aria-disabled")).toBe("true");
  press("ArrowLeft");
  await later();
  expect(model.get("step")).toBe(facts.steps.length - 2);
  const boxes = all(".lt-to-place");
  const place = places(facts.steps).findIndex((p) => p.name === "Softmax" && p.inside);
  boxes[place]!.click();
  await later();
  expect(model.get("step")).toBe(at("softmax"));
  expect(model.get("selected_layer")).toBe(facts.layer);
  expect(model.get("selected_tokens")).toEqual(looksAt(facts, at("softmax")).selected_tokens);
  expect(boxes[place]!.getAttribute("aria-current")).toBe("step");
  expect(boxes.filter((b) => b.tabIndex === 0)).toEqual([boxes[place]]);
  press("1");
  await later();
  expect(model.get("predictions")).toEqual({ softmax: 0 });
});

test("text of a model stays text", () => {
  const steps = facts.steps.map((step) => ({ ...step, says: ["<b>x</b>"], title: "<i>y</i>" }));
  show({ facts: { ...facts, steps } });
  expect(one(".lt-to-title").textContent).toBe("<i>y</i>");
  expect(el.querySelector(".lt-to-words b, .lt-to-title i")).toBeNull();
});

test("a page without a kernel says so and works", async () => {
  const model = show({ facts: { ...facts, live: false } });
  await later();
  expect(one(".lt-provenance").textContent).toContain("not live");
  one(".lt-to-next").click();
  await later();
  expect(model.get("step")).toBe(1);
});

test("nothing stays when it goes", () => {
  show();
  stop?.();
  stop = undefined;
  expect(observers.size).toBe(0);
  expect(el.childNodes.length).toBe(0);
});
