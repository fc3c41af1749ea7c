// Colours, numbers and tokens: the rules of the house as numbers.
import { afterEach, describe, expect, test } from "vitest";
import { contrast, DIVERGING, luminance, parseColour, pixels, ramp, SEQUENTIAL } from "../src/shared/colour";
import { place } from "../src/shared/dom";
import { count, running, shorten, smallWeight, subscript, weight } from "../src/shared/format";
import { applyTheme } from "../src/shared/theme";

const rgb = (text: string) => parseColour(text)!;

describe("colours", () => {
  test("are read in the forms that browsers give", () => {
    expect(parseColour("#fff")).toEqual([255, 255, 255]);
    expect(parseColour("rgb(1, 2, 3)")).toEqual([1, 2, 3]);
    expect(parseColour("rgba(1, 2, 3, 0)")).toBeNull();
    expect(parseColour("no colour")).toBeNull();
  });

  test("sequential scales change lightness in one direction only", () => {
    for (const name of ["light", "dark"] as const) {
      const lights = ramp(SEQUENTIAL[name].map(rgb)).map(luminance);
      const steps = lights.slice(1).map((l, i) => l - lights[i]!);
      expect(steps.every((s) => (name === "light" ? s <= 1e-9 : s >= -1e-9))).toBe(true);
    }
  });

  test("the diverging scale is palest in the middle on paper", () => {
    const lights = ramp(DIVERGING.light.map(rgb)).map(luminance);
    expect(Math.abs(lights.indexOf(Math.max(...lights)) - 127)).toBeLessThan(4);
  });

  test("alpha 0 is the paper", () => {
    const paper = rgb("#ffffff");
    expect(new Set(pixels(ramp(SEQUENTIAL.light.map(rgb)), paper, 0)).size).toBe(1);
  });
});

describe("theme", () => {
  const root = document.createElement("div");
  afterEach(() => {
    document.documentElement.removeAttribute("style");
    root.removeAttribute("style");
  });

  function themed(variables: Record<string, string>, choice: "auto" | "dark" | "light" = "auto") {
    document.body.append(root);
    for (const [name, value] of Object.entries(variables)) root.style.setProperty(name, value);
    return applyTheme(root, choice);
  }

  test("is dark when the host's paper is dark, whatever the system prefers", () => {
    expect(themed({ "--jp-layout-color0": "#111111" }).dark).toBe(true);
    expect(themed({ "--jp-layout-color0": "#fdf6e3" }).dark).toBe(false);
  });

  test("the trait overrides the host, and then the host's colours are not used", () => {
    const theme = themed({ "--jp-layout-color0": "#111111", "--jp-ui-font-color1": "#ffffff" }, "light");
    expect(theme.dark).toBe(false);
    expect(contrast(theme.ink, theme.paper)).toBeGreaterThan(7);
  });

  test("a host colour that cannot be read is replaced by ours", () => {
    const theme = themed({ "--jp-layout-color0": "#ffffff", "--jp-ui-font-color2": "#cccccc" });
    expect(contrast(theme.ink3, theme.paper)).toBeGreaterThanOrEqual(4.5);
  });

  test("zero is the paper: on tinted paper the scale starts there", () => {
    const theme = themed({ "--jp-layout-color0": "#fdf6e3" });
    expect(contrast(theme.sequential[0]!, theme.paper)).toBeLessThan(1.08);
  });
});

describe("numbers", () => {
  test("no value is a dash, never 0", () => {
    expect(weight(Number.NaN)).toBe("–");
    expect(smallWeight(Number.NaN)).toBe("–");
  });
  test("a small weight is not rounded to zero", () => {
    expect(smallWeight(0.0002)).toBe("<0.0005");
    expect(smallWeight(0)).toBe("0");
    expect(smallWeight(0.7234)).toBe("0.723");
  });
  test("minus is the minus sign, thousands have thin spaces", () => {
    expect(weight(-1.5, 1)).toBe("−1.5");
    expect(count(49152)).toBe("49\u202f152");
  });
});

describe("tokens", () => {
  test("are cut at whole characters", () => {
    expect(shorten("👩🏽‍💻".repeat(9)).endsWith("…")).toBe(true);
    expect(shorten("·lighthouse")).toBe("·lighthouse");
  });
  test("get their space back in running text, and a real dot stays one", () => {
    expect(running("·lamp")).toBe(" lamp");
    expect(running("·")).toBe("·");
  });
  test("carry their index as subscript", () => {
    expect(subscript(23)).toBe("₂₃");
  });
});

test("a floating box covers neither what it explains nor what is locked", () => {
  Object.defineProperty(document.documentElement, "clientHeight", { configurable: true, value: 800 });
  const target = new DOMRect(500, 300, 34, 34);
  const locked = new DOMRect(545, 300, 34, 34);
  const [x, y] = place(target, 300, 150, [locked], 10);
  const box = new DOMRect(x, y, 300, 150);
  for (const other of [target, locked])
    expect(
      box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom,
    ).toBe(false);
});
