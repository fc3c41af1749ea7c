// The bridge between anywidget's model and the view of an architecture.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel } from "../shared/kernel";
import { together } from "../shared/model";
import type { ThemeChoice } from "../shared/theme";
import { type Facts, TreeData } from "./data";
import { ArchitectureTreeView, type Models, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  nodes: DataView;
  leaves: DataView;
  nodes_b: DataView;
  leaves_b: DataView;
  pairs: DataView;
  overlay_values: DataView;
  selected_layer: number | null;
  selected_head: number | null;
  selected_node: string;
  overlay: string;
  search: string;
  theme: ThemeChoice;
}

type Model = AnyModel<Traits>;

const STATES = ["selected_layer", "selected_head", "selected_node", "overlay", "search", "theme"] as const;
const DATA = ["facts", "nodes", "leaves", "nodes_b", "leaves_b", "pairs", "overlay_values"] as const;

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

const part = (view: DataView) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);

function readModels(model: Model): Models {
  const facts = model.get("facts");
  const a = new TreeData(facts, 0, model.get("nodes"), model.get("leaves"));
  const b =
    facts.sides.length > 1 ? new TreeData(facts, 1, model.get("nodes_b"), model.get("leaves_b")) : null;
  const values = new Float32Array(part(model.get("overlay_values")) as ArrayBuffer);
  const overlays = facts.overlays.map((_, i) => values.subarray(i * a.leaves, (i + 1) * a.leaves));
  return { facts, a, b, pairs: new Int32Array(part(model.get("pairs")) as ArrayBuffer), overlays };
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
  const source: Source = { change: (patch) => writeState(model, patch) };
  const view = new ArchitectureTreeView(root, source, readModels(model), readState(model));
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (live()) kernel.ask({ type: "ping" }).catch(() => undefined);
  else view.setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(cleanup, () => view.setState(readState(model)));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const dataChanged = together(cleanup, () => {
    view.setModels(readModels(model));
    view.setLive(live());
  });
  for (const name of DATA) listen(`change:${name}`, dataChanged);
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
