// The bridge between anywidget's model and the view: traits and messages on one side, ReportData and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel, Unavailable } from "../shared/kernel";
import { together } from "../shared/model";
import type { ThemeChoice } from "../shared/theme";
import { type Facts, ReportData, type Strip } from "./data";
import type { Scale } from "./plot_layout";
import { QuantizationReportView, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  layer_drift: DataView;
  head_drift: DataView;
  strips: Record<string, Strip>;
  comparison: string | null;
  max_bytes: number | null;
  selected_candidate: string | null;
  selected_layer: number | null;
  selected_head: number | null;
  scale: Scale;
  theme: ThemeChoice;
}

type Model = AnyModel<Traits>;

const STATES = [
  "max_bytes",
  "selected_candidate",
  "selected_layer",
  "selected_head",
  "scale",
  "theme",
] as const;
const DATA = ["facts", "layer_drift", "head_drift", "strips"] as const;

function readState(model: Model): State {
  return {
    max_bytes: model.get("max_bytes") ?? null,
    selected_candidate: model.get("selected_candidate") ?? null,
    selected_layer: model.get("selected_layer") ?? null,
    selected_head: model.get("selected_head") ?? null,
    scale: model.get("scale") ?? "log",
    theme: model.get("theme") ?? "auto",
  };
}

function readData(model: Model): ReportData {
  return ReportData.from(
    model.get("facts"),
    model.get("layer_drift"),
    model.get("head_drift"),
    model.get("strips") ?? {},
  );
}

/** What a host that shows widgets can do: ipywidgets' manager, as far as it is used. */
interface Manager {
  get_model(id: string): Promise<unknown>;
  create_view(model: unknown): Promise<{ el: HTMLElement; remove(): void }>;
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
  const ask = (message: Record<string, unknown>) => {
    if (!live()) return Promise.reject(new Unavailable("no-kernel", "saved without a kernel"));
    return kernel.ask(message);
  };
  const source: Source = {
    change(patch) {
      for (const [name, value] of Object.entries(patch)) model.set(name as keyof State, value as never);
      model.save_changes();
    },
    start: async () => void (await ask({ type: "start" })),
    stop: async () => void (await ask({ type: "stop" })),
    compare: async (candidate) => void (await ask({ type: "compare", candidate })),
    closeComparison() {
      model.set("comparison", null);
      model.save_changes();
    },
    async file(kind) {
      const { message, buffers } = await ask({ type: "export", kind });
      return { name: String(message.name), data: buffers[0] as DataView };
    },
  };
  const view = new QuantizationReportView(root, source, readData(model), readState(model));
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (live()) kernel.ask({ type: "ping" }).catch(() => undefined);
  else view.setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(cleanup, () => view.setState(readState(model)));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const dataChanged = together(cleanup, () => view.setData(readData(model)));
  for (const name of DATA) listen(`change:${name}`, dataChanged);
  const hear = (message: Heard, buffers: DataView[]) => {
    if (live()) view.setLive(true);
    kernel.hear(message, buffers);
  };
  listen("msg:custom", hear as (...args: never[]) => void);

  let child: { remove(): void } | null = null;
  let ended = false;
  const showComparison = async (now: boolean) => {
    const id = model.get("comparison")?.replace("IPY_MODEL_", "") ?? "";
    const manager = model.widget_manager as unknown as Manager | undefined;
    child?.remove();
    child = null;
    view.showComparison(false, now);
    if (id === "" || typeof manager?.create_view !== "function") return;
    const made = await manager.create_view(await manager.get_model(id));
    if (ended) {
      made.remove();
      return;
    }
    child = made;
    view.comparison.replaceChildren(made.el);
    view.showComparison(true, now);
  };
  const compared = (now: boolean) => void showComparison(now).catch(() => undefined);
  listen("change:comparison", () => compared(true));
  compared(false);

  return () => {
    ended = true;
    child?.remove();
    cleanup.run();
    kernel.destroy();
    view.destroy();
    root.remove();
  };
};

export default { render };
