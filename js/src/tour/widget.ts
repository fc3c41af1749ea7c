// The bridge between anywidget's model and the view: traits on one side, Facts and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel } from "../shared/kernel";
import { together } from "../shared/model";
import type { Facts, State } from "./data";
import { TourView } from "./view";

interface Traits extends State {
  facts: Facts;
}

type Model = AnyModel<Traits>;

const STATES = [
  "step",
  "predictions",
  "selected_layer",
  "selected_head",
  "selected_tokens",
  "theme",
] as const;

const readState = (model: Model) =>
  Object.fromEntries(STATES.map((name) => [name, model.get(name)])) as unknown as State;

const render: Render<Traits> = ({ model, el }) => {
  const cleanup = new Cleanup();
  const root = document.createElement("div");
  el.append(root);
  const view = new TourView(root, model.get("facts"), readState(model), (patch) => {
    for (const [name, value] of Object.entries(patch)) model.set(name as keyof State, value as never);
    model.save_changes();
  });
  const kernel = new Kernel(
    model as unknown as AnyModel,
    () => false,
    () => view.setLive(false),
  );
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (model.get("facts").live) kernel.ask({ type: "ping" }).catch(() => undefined);
  else view.setLive(false);
  const hear = ((message: Heard, buffers: DataView[]) => kernel.hear(message, buffers)) as never;
  model.on("msg:custom", hear);
  cleanup.add(() => model.off("msg:custom", hear));
  const changed = together(cleanup, () => view.setState(readState(model)));
  for (const name of STATES) {
    model.on(`change:${name}`, changed);
    cleanup.add(() => model.off(`change:${name}`, changed));
  }
  return () => {
    cleanup.run();
    kernel.destroy();
    view.destroy();
    root.remove();
  };
};

export default { render };
