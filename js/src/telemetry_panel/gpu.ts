// One row for each GPU: busy, memory, power, temperature; a counter that is not there is a dash and says why.
// In: PanelData. Out: DOM.
import { h } from "../shared/dom";
import type { Theme } from "../shared/theme";
import { sparkline } from "./chart";
import type { PanelData } from "./data";
import { amountOf } from "./words";

export function gpuRows(data: PanelData, theme: Theme, ratio: number, width: number): HTMLElement[] {
  const devices = [...new Set(data.facts.figures.map((f) => f.device).filter(Boolean))];
  const heading = h("h3", {}, h("b", {}, "GPU"));
  if (devices.length === 0) {
    const words = data.facts.no_gpu;
    return words ? [heading, h("p", { class: "lt-quiet" }, words)] : [];
  }
  const wide = width < 600 ? 60 : 140;
  const rows = devices.map((device) => {
    const of = (name: string) => {
      const at = data.find(name, device);
      return { at, fact: data.facts.figures[at], value: at < 0 ? Number.NaN : data.last(at) };
    };
    const small = (name: string, top: number) => {
      const { at } = of(name);
      const canvas = h("canvas", { "aria-hidden": "true" });
      sparkline(canvas, at < 0 ? [] : data.values[at]!, wide, 18, theme, ratio, top);
      return canvas;
    };
    const words = (name: string, whole: string | null) => {
      const { fact, value } = of(name);
      const other = whole === null ? null : of(whole);
      const text = amountOf(value, fact?.unit ?? "");
      const title = fact?.note || fact?.label || name;
      return h(
        "span",
        { title },
        other ? `${text} / ${amountOf(other.value, other.fact?.unit ?? "")}` : text,
      );
    };
    const { value: most } = of("memory_total");
    return h(
      "div",
      { class: "lt-tp-device" },
      h("span", { title: data.facts.source?.facts[device] ?? device }, device.replace(/^gpu/, "GPU ")),
      small("busy", 100),
      words("busy", null),
      small("memory_used", Number.isFinite(most) ? most : 0),
      words("memory_used", "memory_total"),
      words("power", "power_limit"),
      words("temperature", null),
    );
  });
  return [heading, ...rows];
}
