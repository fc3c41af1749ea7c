// The bridge between anywidget's model and the view of a comparison.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { type Embedded, Heads } from "../attention_grid/heads";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel } from "../shared/kernel";
import { together } from "../shared/model";
import type { ThemeChoice } from "../shared/theme";
import { ComparisonData, type Facts, type HeadId, type Measure, sameHead } from "./data";
import { HeadComparisonView, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  distances: DataView;
  similarity: DataView;
  statistics: DataView;
  embedded: Embedded;
  embedded_data: DataView[];
  selected_layer: number | null;
  selected_head: number | null;
  other_layer: number | null;
  other_head: number | null;
  selected_tokens: number[];
  distance: Measure;
  scale: "log" | "linear";
  sink_aside: boolean;
  theme: ThemeChoice;
}

type Model = AnyModel<Traits>;

const STATES = [
  "selected_layer",
  "selected_head",
  "other_layer",
  "other_head",
  "selected_tokens",
  "distance",
  "scale",
  "sink_aside",
  "theme",
] as const;

/** The state; a linked widget that has freed its head, or has another's, leaves this one's as it was. */
function readState(model: Model, data: ComparisonData, before: HeadId | null): State {
  const id = (layer: number | null | undefined, head: number | null | undefined) =>
    typeof layer === "number" && typeof head === "number" ? { layer, head } : null;
  const selected = id(model.get("selected_layer"), model.get("selected_head"));
  const left = selected && data.has(0, selected) ? selected : (before ?? data.owners[0]![0]!);
  const other = id(model.get("other_layer"), model.get("other_head"));
  return {
    left,
    right: other && data.has(1, other) ? other : data.has(1, left) ? left : data.owners.at(-1)![0]!,
    tokens: model.get("selected_tokens") ?? [],
    measure: model.get("distance") ?? "jensen-shannon",
    scale: model.get("scale") ?? "log",
    sinkAside: model.get("sink_aside") ?? true,
    theme: model.get("theme") ?? "auto",
  };
}

/** Writes what the user changed into the traits. */
function writeState(model: Model, patch: Partial<State>): void {
  const { left, right } = patch;
  if (left && right) {
    const same = sameHead(left, right);
    model.set("selected_layer", left.layer);
    model.set("selected_head", left.head);
    model.set("other_layer", same ? null : right.layer);
    model.set("other_head", same ? null : right.head);
  }
  if (patch.tokens) model.set("selected_tokens", [...patch.tokens]);
  if (patch.measure) model.set("distance", patch.measure);
  if (patch.scale) model.set("scale", patch.scale);
  if (patch.sinkAside !== undefined) model.set("sink_aside", patch.sinkAside);
  model.save_changes();
}

/** The heads of each side. */
function makeHeads(model: Model, kernel: Kernel, side: 0 | 1): Heads {
  const prefix = `${side}:`;
  const state = {
    live: () => model.get("facts").live,
    all: () => [], // nothing here is summed over all heads
    embedded: () =>
      Object.fromEntries(
        Object.entries(model.get("embedded") ?? {})
          .filter(([key]) => key.startsWith(prefix))
          .map(([key, facts]) => [key.slice(prefix.length), facts]),
      ),
    data: () => model.get("embedded_data") ?? [],
  };
  return new Heads(state, { ask: (message, heard) => kernel.ask({ ...message, side }, heard) });
}

const render: Render<Traits> = ({ model, el }) => {
  const cleanup = new Cleanup();
  const root = document.createElement("div");
  el.append(root);
  const makeData = () =>
    new ComparisonData(
      model.get("facts"),
      model.get("distances"),
      model.get("similarity"),
      model.get("statistics"),
    );
  let data = makeData();
  let before: HeadId | null = null;
  const state = () => {
    const now = readState(model, data, before);
    before = now.left;
    return now;
  };
  const setLive = (live: boolean) => {
    for (const own of heads) own.gone = !live;
    view.setLive(live);
  };
  const kernel = new Kernel(
    model as unknown as AnyModel,
    () => false,
    () => setLive(false),
  );
  const one = data.facts.sides.length === 1;
  const first = makeHeads(model, kernel, 0);
  const heads = one ? ([first, first] as const) : ([first, makeHeads(model, kernel, 1)] as const);
  const source: Source = {
    head: (side, { layer, head }) => heads[side].get(layer, head),
    change: (patch) => writeState(model, patch),
  };
  const view = new HeadComparisonView(root, source, data, state());
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (data.facts.live) kernel.ask({ type: "ping" }).catch(() => undefined);
  else setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(cleanup, () => view.setState(state()));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const dataChanged = together(cleanup, () => {
    data = makeData();
    view.setData(data);
  });
  for (const name of ["facts", "distances", "similarity", "statistics"])
    listen(`change:${name}`, dataChanged);
  const hear = (message: Heard, buffers: DataView[]) => {
    if (data.facts.live) setLive(true);
    kernel.hear(message, buffers);
  };
  listen("msg:custom", hear as (...args: never[]) => void);

  return () => {
    cleanup.run();
    kernel.destroy();
    view.destroy();
    root.remove();
  };
};

export default { render };
