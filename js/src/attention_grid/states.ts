// What the widget says while it computes, when it was stopped, when it failed, when no head passes the filter.
// In: facts and filter. Out: a few lines under or over the grid, with at most three actions.
import { type Cleanup, copyText, h, Timer } from "../shared/dom";
import { count, plural, weight } from "../shared/format";
import type { Facts, Filter, GridData } from "./data";
import { rangeText } from "./filters";

/** A run shorter than this shows no progress. */
const QUIET = 200;
/** A kernel that has not answered Stop after this long is busy with the cell itself. */
const STOP_ANSWER = 1000;

/** Progress line with Stop, and the words after a stop. */
export class ProgressView {
  readonly element = h("div", { class: "lt-progress", hidden: true });
  private readonly bar = h("div", { class: "lt-progress-bar" });
  private readonly words = h("span", {});
  private readonly button: HTMLButtonElement;
  private readonly line: HTMLElement;
  private readonly quiet: Timer;
  private readonly answer: Timer;
  private since = 0;
  private asked = false;

  constructor(
    cleanup: Cleanup,
    private readonly send: () => void,
  ) {
    this.quiet = new Timer(cleanup);
    this.answer = new Timer(cleanup);
    this.button = h("button", { type: "button", class: "lt-link lt-stop" }, "Stop ", h("kbd", {}, "Esc"));
    this.line = h(
      "div",
      { class: "lt-progress-line", role: "progressbar", "aria-label": "Layers computed", "aria-valuemin": 0 },
      this.bar,
    );
    this.element.append(this.line, h("div", { class: "lt-progress-text" }, this.words, this.button));
    cleanup.on(this.button, "click", () => this.stop());
  }

  show(facts: Facts): void {
    // A page that was exported meanwhile has nothing to wait for.
    const computing = facts.live && (facts.phase === "computing" || facts.phase === "generating");
    if (!computing) {
      this.since = 0;
      this.asked = false;
      this.quiet.stop();
      this.answer.stop();
    }
    this.element.hidden = !computing && facts.phase !== "cancelled";
    this.line.hidden = this.button.hidden = !computing;
    if (facts.phase === "cancelled") {
      const where = facts.total > 0 ? ` after ${count(facts.done)} of ${plural(facts.total, "layer")}` : "";
      const rest =
        facts.done > 0
          ? "What had arrived stays usable; run the cell again for the rest."
          : "Run the cell again for a new start.";
      this.words.textContent = `Stopped${where}. ${rest}`;
    }
    if (!computing) return;
    this.since ||= performance.now();
    const early = QUIET - (performance.now() - this.since);
    this.element.hidden = early > 0;
    if (early > 0) this.quiet.start(early, () => this.show(facts));
    const [done, total] = progress(facts);
    this.bar.style.width = `${total > 0 ? (done / total) * 100 : 0}%`;
    this.line.setAttribute("aria-label", facts.phase === "generating" ? "Tokens written" : "Layers computed");
    this.line.setAttribute("aria-valuemax", String(total));
    this.line.setAttribute("aria-valuenow", String(done));
    if (this.asked) return;
    if (facts.phase === "generating") {
      this.words.textContent = pace(facts);
      return;
    }
    if (facts.n_tokens === 0) {
      this.words.textContent = facts.message;
      return;
    }
    const arrived =
      facts.done > 0 ? "finished layers are already clickable" : facts.message || "reading the prompt";
    this.words.textContent = `${plural(facts.n_now ?? facts.n_tokens, "token")} \u00b7 ${arrived}`;
  }

  /** Asks the kernel to stop; says so when it cannot hear. */
  stop(): void {
    if (this.asked) return;
    this.asked = true;
    this.words.textContent = "Stopping \u2026";
    this.send();
    this.answer.start(STOP_ANSWER, () => {
      this.words.textContent = "The kernel is busy: use its interrupt button.";
      this.asked = false;
    });
  }

  /** Something came from the kernel, so it can hear. */
  heard(): void {
    if (this.asked && this.answer.running) this.words.textContent = "Stopping \u2026";
  }
}

/** What is done, and of how much: layers, or tokens of a text. */
function progress(facts: Facts): [number, number] {
  if (facts.phase !== "generating") return [facts.done, facts.total];
  return [facts.generation?.length ?? 0, facts.n_tokens - (facts.generated ?? 0)];
}

/** "token 12 of 64 · 9.1 ms per token": the median. */
function pace(facts: Facts): string {
  const [done, total] = progress(facts);
  const times = (facts.generation ?? []).map(([, , ms]) => ms).sort((a, b) => a - b);
  const middle = times[Math.floor(times.length / 2)];
  const words = `token ${count(done)} of ${count(total)}`;
  return middle === undefined ? words : `${words} \u00b7 ${middle.toFixed(1)} ms per token`;
}

/** The panel after a failed run: what happened to the user's work, the cause, what to do. */
export function errorPanel(cleanup: Cleanup, facts: Facts): HTMLElement {
  const button = h("button", { type: "button", class: "lt-button" }, "Copy details");
  const details = [facts.message, ...Object.entries(facts.details).map(([k, v]) => `${k}: ${v}`)].join("\n");
  cleanup.on(button, "click", async () => {
    button.textContent = (await copyText(details)) ? "Copied" : "Copying is not allowed here";
  });
  const [cause = "", ...rest] = facts.message.split("\n");
  return h(
    "div",
    { class: "lt-error", role: "alert" },
    h("b", {}, "The trace stopped. The notebook is fine."),
    h("p", {}, "Your kernel and variables are untouched. ", cause),
    rest.length > 0 ? h("pre", {}, rest.join("\n")) : null,
    h("div", {}, button),
  );
}

/** The panel when the filter keeps no head: the filter, the nearest value that exists, and a way out. */
export function emptyPanel(
  data: GridData,
  filter: Filter,
  widen: (filter: Filter) => void,
  clear: () => void,
): HTMLElement {
  const labels = Object.fromEntries(data.facts.statistics.map((f) => [f.key, f]));
  const asked = Object.entries(filter)
    .map(
      ([key, range]) =>
        `${labels[key]?.label.toLowerCase() ?? key} ${rangeText(range, labels[key]?.lo ?? 0, labels[key]?.hi ?? 1)}`,
    )
    .join(" and ");
  const near = data.nearest(filter);
  const found = near
    ? `; the nearest is ${labels[near.key]?.label.toLowerCase()} ${weight(near.value, 2)} (L${near.head.layer} H${near.head.head})`
    : "";
  const action = h(
    "button",
    { type: "button", class: "lt-link" },
    near ? "Widen the range" : "Clear the filter",
  );
  action.addEventListener("click", () => (near ? widen({ ...filter, [near.key]: near.range }) : clear()));
  return h(
    "div",
    { class: "lt-empty" },
    h("b", {}, "No head matches."),
    ` 0 of ${plural(data.heads.length, "head")} ${data.heads.length === 1 ? "has" : "have"} ${asked || "this"}${found}. `,
    action,
  );
}
