// The bridge between anywidget's model and the view of an architecture.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel, Unavailable } from "../shared/kernel";
import { together } from "../shared/model";
import type { ThemeChoice } from "../shared/theme";
import { type Facts, TreeData } from "./data";
import { GraphData, type GraphFacts } from "./graph_data";
import type { Plan } from "./memory";
import type { Statistics } from "./values";
import { ArchitectureTreeView, type Models, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  nodes: DataView;
  leaves: DataView;
  nodes_b: DataView;
  leaves_b: DataView;
  pairs: DataView;
  overlay_values: DataView;
  graph: GraphFacts | Record<string, never>;
  graph_nodes: DataView;
  graph_seconds: DataView;
  graph_edges: DataView;
  graph_weights: DataView;
  errors: DataView;
  plan: Plan | Record<string, never>;
  selected_layer: number | null;
  selected_head: number | null;
  selected_node: string;
  overlay: string;
  search: string;
  theme: ThemeChoice;
}

type Model = AnyModel<Traits>;

const STATES = ["selected_layer", "selected_head", "selected_node", "overlay", "search", "theme"] as const;
const MODELS = ["nodes", "leaves", "nodes_b", "leaves_b", "pairs"] as const;
const MEASURED = [
  "facts",
  "overlay_values",
  "graph",
  "graph_nodes",
  "graph_seconds",
  "graph_edges",
  "graph_weights",
  "errors",
  "plan",
] as const;

function readState(model: Model): State {
  return {
    node: model.get("selected_node") ?? "",
    layer: model.get("selected_layer") ?? null,
    head: model.get("selected_head") ?? null,
    overlay: model.get("overlay") ?? "type",
    search: model.get("search") ?? "",
    theme: model.get("theme") ?? "auto",
  };
}

function writeState(model: Model, patch: Partial<State>): void {
  if (patch.node !== undefined) model.set("selected_node", patch.node);
  if (patch.layer !== undefined) model.set("selected_layer", patch.layer);
  if (patch.head !== undefined) model.set("selected_head", patch.head);
  if (patch.overlay !== undefined) model.set("overlay", patch.overlay);
  if (patch.search !== undefined) model.set("search", patch.search);
  model.save_changes();
}

const part = (view: DataView) =>
  view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) as ArrayBuffer;

/** Rows of numbers, each with one per leaf. */
function perLeaf(view: DataView, leaves: number): Float32Array[] {
  const all = new Float32Array(part(view));
  const count = leaves > 0 ? Math.floor(all.length / leaves) : 0;
  return Array.from({ length: count }, (_, i) => all.subarray(i * leaves, (i + 1) * leaves));
}

function readModels(model: Model): Models {
  const facts = model.get("facts");
  const a = new TreeData(facts, 0, model.get("nodes"), model.get("leaves"));
  const two = facts.sides.length > 1;
  const b = two ? new TreeData(facts, 1, model.get("nodes_b"), model.get("leaves_b")) : null;
  return { a, b, pairs: new Int32Array(part(model.get("pairs"))), ...readMeasured(model, a.leaves) };
}

function readMeasured(model: Model, leaves: number): Omit<Models, "a" | "b" | "pairs"> {
  const facts = model.get("facts");
  const own = model.get("graph");
  const planned = model.get("plan");
  const table = (name: "graph_nodes" | "graph_seconds" | "graph_edges" | "graph_weights") => model.get(name);
  const graph = own?.strings
    ? new GraphData(
        own as GraphFacts,
        table("graph_nodes"),
        table("graph_seconds"),
        table("graph_edges"),
        table("graph_weights"),
      )
    : null;
  return {
    facts,
    graph,
    overlays: perLeaf(model.get("overlay_values"), leaves),
    errors: perLeaf(model.get("errors"), leaves),
    plan: planned?.owners ? (planned as Plan) : null,
  };
}

function statistics(numbers: unknown, buffers: readonly unknown[]): Statistics {
  const [histogram, edges] = buffers.map((b) => new Float64Array(part(b as DataView)));
  return { numbers: numbers as Statistics["numbers"], histogram: histogram ?? null, edges: edges ?? null };
}

const render: Render<Traits> = ({ model, el }) => {
  const cleanup = new Cleanup();
  const root = document.createElement("div");
  el.append(root);
  const live = () => model.get("facts").live;
  const kernel = new Kernel(
    model as unknown as AnyModel,
    () => false,
    () => view.setLive(false),
  );
  const ask = (message: Record<string, unknown>) =>
    live() ? kernel.ask(message) : Promise.reject(new Unavailable("no-kernel", "needs a kernel"));
  const source: Source = {
    change: (patch) => writeState(model, patch),
    graph: () => ask({ type: "graph" }).then(() => undefined),
    plan: (wish) => ask({ type: "fit", ...wish }).then(() => undefined),
    upload: () => ask({ type: "graphistry" }).then(({ message }) => String(message.url)),
    errors: () => ask({ type: "errors" }).then(() => undefined),
    values: async (side, name) => {
      const { message, buffers } = await ask({ type: "tensor", side, name });
      return statistics(message.statistics, buffers);
    },
  };
  let models = readModels(model);
  const view = new ArchitectureTreeView(root, source, models, readState(model));
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (live()) kernel.ask({ type: "ping" }).catch(() => undefined);
  else view.setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(cleanup, () => view.setState(readState(model)));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const modelsChanged = together(cleanup, () => {
    models = readModels(model);
    view.setModels(models);
    view.setLive(live());
  });
  for (const name of MODELS) listen(`change:${name}`, modelsChanged);
  const measured = together(cleanup, () => {
    models = { ...models, ...readMeasured(model, models.a.leaves) };
    view.setMeasured(models);
    view.setLive(live());
  });
  for (const name of MEASURED) listen(`change:${name}`, measured);
  const hear = (message: Heard, buffers: DataView[]) => {
    if (live()) view.setLive(true);
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
