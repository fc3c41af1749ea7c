// The bridge between anywidget's model and the view: traits and messages on one side, PanelData and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel, Unavailable } from "../shared/kernel";
import { together } from "../shared/model";
import { type Facts, type OperationTimes, PanelData } from "./data";
import { type Source, type State, TelemetryPanelView } from "./view";

interface Traits extends State {
  facts: Facts;
  words: string[][];
  series: DataView[];
  samples: DataView;
  operation_times: Partial<OperationTimes>;
}

type Model = AnyModel<Traits>;

const STATES = ["expanded", "selected_layer", "selected_tokens", "span", "theme"] as const;
const DATA = ["facts", "words", "series", "samples", "operation_times"] as const;

const readState = (model: Model) =>
  Object.fromEntries(STATES.map((name) => [name, model.get(name)])) as unknown as State;

const readData = (model: Model) =>
  new PanelData(
    model.get("facts"),
    model.get("words") ?? [],
    model.get("series") ?? [],
    model.get("samples"),
    model.get("operation_times"),
  );

const render: Render<Traits> = ({ model, el }) => {
  const cleanup = new Cleanup();
  const root = document.createElement("div");
  el.append(root);
  let working = false;
  const live = () => model.get("facts").live;
  const kernel = new Kernel(
    model as unknown as AnyModel,
    () => working,
    () => view?.setLive(false),
  );
  const source: Source = {
    change(patch) {
      for (const [name, value] of Object.entries(patch)) model.set(name as keyof State, value as never);
      model.save_changes();
    },
    // Any answer says that somebody is there; a page reopened from disk has nobody.
    watch: (on) => {
      if (live()) kernel.ask({ type: "watch", on }).catch(() => undefined);
    },
    async measure(what) {
      if (!live()) throw new Unavailable("no-kernel", "saved without a kernel");
      working = true;
      try {
        await kernel.ask({ type: what });
      } finally {
        working = false;
      }
    },
  };
  let view: TelemetryPanelView | null = null;
  const made = new TelemetryPanelView(root, source, readData(model), readState(model));
  view = made;
  if (!live()) made.setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(cleanup, () => made.setState(readState(model)));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const dataChanged = together(cleanup, () => made.setData(readData(model)));
  for (const name of DATA) listen(`change:${name}`, dataChanged);
  const hear = (message: Heard, buffers: DataView[]) => {
    if (live()) made.setLive(true);
    kernel.hear(message, buffers);
  };
  listen("msg:custom", hear as (...args: never[]) => void);

  return () => {
    cleanup.run();
    made.destroy();
    kernel.destroy();
    root.remove();
  };
};

export default { render };
