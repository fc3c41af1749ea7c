// What was written after the prompt: colour = surprise, bar = milliseconds; and the other branches of the tree.
// In: data, the shown node and leaf. Out: DOM; a press goes to the place where a token was taken.
import { contrast, css, type Rgb } from "../shared/colour";
import { type Cleanup, h, setProps } from "../shared/dom";
import { plural, probability, running, shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { ExplorerData, Node } from "./data";
import { bits, kindWords, nodeWords } from "./words";

/** Bits at which the colour ends. */
const MOST = 6;
/** Of the scale: as far as text on it stays readable. */
const READABLE = 0.6;

export function shade(theme: Theme, surprise: number): Rgb {
  return theme.sequential[Math.round(Math.min(1, surprise / MOST) * READABLE * 255)]!;
}

/** The median of what was measured: the bars end at twice that, so that one slow token does not flatten all. */
function middle(times: readonly (number | null)[]): number {
  const known = times.filter((t): t is number => t !== null).sort((a, b) => a - b);
  return known[Math.floor(known.length / 2)] ?? 1;
}

export interface Doings {
  /** Show the distribution that a node was taken from. */
  goBefore(node: number): void;
  /** Show what comes after a node, as the end of its branch. */
  goTo(leaf: number): void;
  take(place: number, token: number): void;
}

export class Written {
  readonly element = h("div", { class: "lt-te-written" });
  private readonly heading = h("span", {});
  private readonly line = h("div", { class: "lt-te-line", role: "group", "aria-label": "Written tokens" });
  private readonly ramp = h("div", { class: "lt-ramp" });
  private readonly legend: HTMLElement;
  private readonly sentence = h("div", { class: "lt-te-sentence" });
  private readonly branches = h("div", { class: "lt-te-branches", role: "group", "aria-label": "Branches" });
  private drawn = "";

  constructor(
    cleanup: Cleanup,
    private readonly doings: Doings,
  ) {
    const ticks = ["100\u202f%", "25\u202f%", "6\u202f%", "\u2264 1.6\u202f%"].map((label, i) => {
      const mark = h("span", { class: i === 0 ? "lt-begin" : i === 3 ? "lt-end" : "" }, label);
      mark.style.left = `${(i / 3) * 100}%`;
      return mark;
    });
    this.legend = h("div", { class: "lt-scale" }, this.ramp, h("div", { class: "lt-ticks" }, ...ticks));
    this.element.append(
      h("h3", {}, h("b", {}, "Generated"), this.heading),
      this.line,
      h("div", { class: "lt-te-under" }, this.legend, this.sentence),
      this.branches,
    );
    cleanup.on<KeyboardEvent>(this.line, "keydown", (e) => this.key(e));
  }

  show(data: ExplorerData, node: number, leaf: number, theme: Theme, live: boolean): void {
    const path = data.path(leaf);
    this.element.hidden = path.length === 0;
    if (path.length === 0) {
      this.drawn = "";
      return;
    }
    const key = JSON.stringify([data.nodes.length, node, leaf, css(theme.paper), live]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.heading.textContent = `${plural(path.length, "token")} \u00b7 stronger colour = less expected by the model \u00b7 bar below = ms`;
    const stops = Array.from({ length: 9 }, (_, i) => css(shade(theme, (MOST * i) / 8)));
    this.ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    const tallest = 2 * middle(path.map((at) => data.nodes[at]!.ms));
    const shown = node === 0 ? -1 : path.indexOf(node);
    const next = path[shown + 1] ?? null;
    const chosen = next ?? path[path.length - 1]!;
    const focused = this.line.contains(document.activeElement);
    this.line.replaceChildren(
      ...path.map((at) => this.token(data.nodes[at]!, at, at === next, at === chosen, theme, tallest)),
    );
    if (focused) this.line.querySelector<HTMLElement>("[tabindex='0']")?.focus();
    this.showSentence(data.nodes[chosen]!, chosen, data, live, chosen !== next);
    this.showBranches(data, leaf);
  }

  private token(node: Node, at: number, ringed: boolean, stop: boolean, theme: Theme, tallest: number) {
    const colour = shade(theme, bits(node.probability));
    const ink = contrast(theme.ink, colour) >= contrast(theme.paper, colour) ? theme.ink : theme.paper;
    const kind = kindWords(node.kind, node.text);
    const word = h("bdi", { class: `lt-mono${kind ? " lt-te-special" : ""}` }, running(node.text));
    const bar = h("i", {});
    const time = h("span", { class: `lt-te-ms${node.ms === null ? " lt-te-none" : ""}` }, bar);
    if (node.ms !== null) bar.style.height = `${Math.min(100, Math.max(12, (100 * node.ms) / tallest))}%`;
    word.style.background = css(colour);
    word.style.color = css(ink);
    const title = `${node.text} ${probability(node.probability)}, ${nodeWords(node)}${kind ? `, ${kind}` : ""}`;
    const own = h(
      "button",
      {
        type: "button",
        class: `lt-te-said${ringed ? " lt-te-ringed" : ""}`,
        title,
        "aria-label": title,
        "aria-pressed": ringed ? "true" : "false",
        tabindex: stop ? 0 : -1,
      },
      word,
      time,
    );
    own.addEventListener("click", () => this.doings.goBefore(at));
    return own;
  }

  private showSentence(node: Node, at: number, data: ExplorerData, live: boolean, away: boolean): void {
    const place = node.parent ?? 0;
    const others = node.top.filter(([id]) => id !== node.token).slice(0, 4);
    const choices = others.map(([id, text, p]) => {
      const b = h(
        "button",
        { type: "button", class: "lt-te-other", title: `Take ${text} here: another branch` },
        h("bdi", { class: "lt-mono" }, shorten(text)),
        h("span", { class: "lt-quiet" }, ` ${probability(p)}`),
      );
      b.disabled = !live && data.child(place, id) === null;
      b.addEventListener("click", () => this.doings.take(place, id));
      return b;
    });
    const here = h("button", { type: "button", class: "lt-link" }, "branch here");
    here.addEventListener("click", () => this.doings.goBefore(at));
    this.sentence.replaceChildren(
      h("bdi", { class: "lt-mono lt-te-chosen" }, node.text),
      h("b", {}, ` ${probability(node.probability)}`),
      `, ${nodeWords(node)}`,
      ...(others.length > 0 ? [h("span", { class: "lt-quiet" }, " \u00b7 instead: "), ...choices] : []),
      ...(away ? [here] : []),
    );
  }

  /** One line per continuation; what it shares with the one above is only an indent. */
  private showBranches(data: ExplorerData, leaf: number): void {
    const leaves = data.leaves();
    this.branches.hidden = leaves.length < 2;
    this.branches.replaceChildren();
    if (leaves.length < 2) return;
    this.branches.append(h("h3", {}, h("b", {}, "Branches"), `${leaves.length} continuations kept`));
    const ended = data.path(leaf);
    let above: number[] = [];
    for (const own of leaves) {
      const path = data.path(own);
      let shared = 0;
      while (shared < path.length && path[shared] === above[shared]) shared++;
      const text = (nodes: readonly number[]) => nodes.map((at) => running(data.nodes[at]!.text)).join("");
      const all = path.reduce((sum, at) => sum + bits(data.nodes[at]!.probability), 0);
      const mine = ended.every((at, i) => path[i] === at);
      const b = h(
        "button",
        { type: "button", class: "lt-te-branch", "aria-pressed": mine ? "true" : "false", title: text(path) },
        h("bdi", { class: "lt-mono lt-te-shared" }, text(path.slice(0, shared))),
        h("bdi", { class: "lt-mono" }, text(path.slice(shared))),
        h("span", { class: "lt-quiet" }, `${plural(path.length, "token")}, ${all.toFixed(1)} bits`),
      );
      b.addEventListener("click", () => this.doings.goTo(own));
      this.branches.append(b);
      above = path;
    }
  }

  private key(event: KeyboardEvent): void {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -1e6, End: 1e6 }[event.key];
    if (step === undefined) return;
    const all = [...this.line.querySelectorAll<HTMLElement>("button")];
    const at = all.indexOf(document.activeElement as HTMLElement);
    const to = all[Math.max(0, Math.min(all.length - 1, at + step))];
    if (!to) return;
    for (const e of all) setProps(e, { tabindex: e === to ? 0 : -1 });
    to.focus();
    event.preventDefault();
  }
}
