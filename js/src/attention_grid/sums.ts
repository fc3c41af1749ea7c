// Where the chosen tokens look and who looks at them, summed over tokens, over one head, a layer, the kept heads or all.
// In: tokens, the head, the kept heads, a source of sums. Out: two profiles with their highest tokens named.
import { css } from "../shared/colour";
import { type Cleanup, h, Timer } from "../shared/dom";
import { plural } from "../shared/format";
import { Unavailable } from "../shared/kernel";
import { Segmented } from "./controls";
import type { GridData, Head } from "./data";
import type { Direction, SumHow } from "./heads";
import { queryName, tokenName } from "./names";
import { Profile, type ProfileLook } from "./profile";
import type { Source } from "./view";

type Scope = "head" | "layer" | "kept" | "all";

/** What needs the kernel is asked for when the user has stopped moving. */
const PAUSE = 150;

export interface SumsLook extends ProfileLook {
  readonly head: Head;
}

/** The tokens a sum goes over: queries that look, keys that are looked at. */
export interface SumTokens {
  readonly looks: readonly number[];
  readonly seen: readonly number[];
}

export interface SumsEvents {
  choose(tokens: number[]): void;
  /** A token is taken out of the sum. */
  remove(token: number): void;
  sums: Source["sums"];
}

type Pairs = readonly (readonly [layer: number, head: number])[];

const DIRECTIONS: readonly Direction[] = ["looks", "seen"];

export class SumsView {
  readonly element = h("section", { class: "lt-sums", hidden: true });
  private readonly note = h("span", {});
  private readonly chips = h("div", { class: "lt-sums-tokens" });
  private readonly scope: Segmented<Scope>;
  private readonly how: Segmented<SumHow>;
  private readonly labels = { looks: h("span", {}), seen: h("span", {}) };
  private readonly profiles: Record<Direction, Profile>;
  private readonly pause: Timer;
  private chosen: { scope: Scope; how: SumHow } = { scope: "head", how: "mean" };
  private kept: Uint8Array | null = null;
  private data: GridData | null = null;
  private tokens: SumTokens = { looks: [], seen: [] };
  private look: SumsLook | null = null;
  private asked = "";
  private painted = "";
  private results: Partial<Record<Direction, Float32Array | string>> = {};

  constructor(
    cleanup: Cleanup,
    private readonly events: SumsEvents,
  ) {
    this.pause = new Timer(cleanup);
    this.scope = new Segmented<Scope>(
      "Sum over",
      [
        ["head", "This head", "The locked head alone"],
        ["layer", "Layer", "All heads of its layer"],
        ["kept", "Kept", "The heads that pass the filters"],
        ["all", "All heads", "Every head of every layer"],
      ],
      cleanup,
      (scope) => this.set({ scope }),
    );
    this.how = new Segmented<SumHow>(
      "Over heads",
      [
        ["mean", "Mean", "The heads' mean"],
        ["max", "Max", "The highest of the heads"],
      ],
      cleanup,
      (how) => this.set({ how }),
    );
    this.profiles = {
      looks: new Profile(cleanup, (token) => this.follow("looks", token)),
      seen: new Profile(cleanup, (token) => this.follow("seen", token)),
    };
    const rows = DIRECTIONS.flatMap((d) => {
      const { plot, end, list } = this.profiles[d];
      return [this.labels[d], plot, end, list];
    });
    this.element.append(
      h("h4", { class: "lt-one-line" }, h("b", {}, "Sums over tokens and heads"), this.note),
      h("div", { class: "lt-controls" }, this.scope.element, this.how.element, this.chips),
      h("div", { class: "lt-sums-rows" }, ...rows),
    );
    const observer = new ResizeObserver(() => {
      if (!this.element.hidden) for (const d of DIRECTIONS) this.profiles[d].paint();
    });
    observer.observe(this.element);
    cleanup.add(() => observer.disconnect());
  }

  hide(): void {
    this.element.hidden = true;
    this.pause.stop();
    this.asked = "";
  }

  show(data: GridData, tokens: SumTokens, look: SumsLook): void {
    const { theme } = look;
    const painted = [look.ratio, look.sinkAside, css(theme.paper), css(theme.ink)].join();
    const repaint = painted !== this.painted;
    this.painted = painted;
    this.data = data;
    this.tokens = tokens;
    this.look = look;
    this.element.hidden = false;
    this.scope.show(this.chosen.scope);
    this.how.show(this.chosen.how);
    this.how.element.hidden = this.chosen.scope === "head";
    this.showTokens();
    if (!this.ask() && repaint) this.draw();
  }

  /** Other heads pass the filters, or all do. */
  keep(kept: Uint8Array | null): void {
    if (kept === this.kept) return;
    this.kept = kept;
    if (this.chosen.scope === "kept" && !this.element.hidden) this.ask();
  }

  private set(change: Partial<typeof this.chosen>): void {
    this.chosen = { ...this.chosen, ...change };
    if (this.data && this.look) this.show(this.data, this.tokens, this.look);
  }

  /** From a sum to one of its cells. */
  private follow(direction: Direction, token: number): void {
    const { looks, seen } = this.tokens;
    this.events.choose(direction === "looks" ? [looks[0]!, token] : [token, seen[0]!]);
  }

  /** The heads of the present scope, one by one: a page that holds them all can sum over them without a kernel. */
  private get heads(): { heads: Pairs; words: string } {
    const { data, look, kept, chosen } = this;
    const { head } = look!;
    const all = data!.heads;
    const some = (heads: readonly Head[], words: string) => ({
      heads: heads.map((h) => [h.layer, h.head] as const),
      words,
    });
    if (chosen.scope === "head") return some([head], `layer ${head.layer} head ${head.head}`);
    if (chosen.scope === "layer") {
      const own = all.filter((h) => h.layer === head.layer);
      return some(own, `${plural(own.length, "head")} of layer ${head.layer}`);
    }
    if (chosen.scope === "all" || !kept) return some(all, `all ${plural(all.length, "head")}`);
    const own = all.filter((h) => kept[h.index] === 1);
    return some(own, plural(own.length, "kept head"));
  }

  /** Asks for both sums; false where they are here or under way. */
  private ask(): boolean {
    const { data } = this;
    const { scope, how } = this.chosen;
    const { heads, words } = this.heads;
    const key = JSON.stringify([this.tokens, heads, how, data!.facts.n_tokens, data!.facts.phase]);
    const count = scope === "head" ? "" : `${how === "mean" ? "mean" : "highest"} of `;
    this.note.textContent = `${count}${words}`;
    if (key === this.asked) return false;
    this.asked = key;
    const run = () => {
      for (const direction of DIRECTIONS) void this.bring(key, direction, heads);
    };
    this.pause.stop();
    if (scope === "head") run();
    else this.pause.start(PAUSE, run);
    return true;
  }

  private async bring(key: string, direction: Direction, heads: Pairs): Promise<void> {
    const put = (result: Float32Array | string) => {
      if (this.asked !== key) return;
      this.results[direction] = result;
      this.draw(direction);
    };
    if (heads.length === 0) {
      put("no head passes the filters");
      return;
    }
    const heard = (share: number) => put(`${Math.round(share * 100)} % computed`);
    try {
      put(await this.events.sums(this.tokens[direction], direction, heads, this.chosen.how, heard));
    } catch (error) {
      const gone = error instanceof Unavailable && error.why === "no-kernel";
      put(
        gone ? "Not all of these heads are here: they need a kernel." : `Could not be read: ${String(error)}`,
      );
    }
  }

  private draw(only?: Direction): void {
    const { data, look } = this;
    if (!data || !look) return;
    for (const direction of only ? [only] : DIRECTIONS) {
      const values = this.results[direction];
      const name = (i: number) => (direction === "looks" ? tokenName(data, i) : queryName(data, i));
      if (typeof values === "string") this.profiles[direction].say(values);
      else if (values)
        this.profiles[direction].show(
          { values, name, chosen: data.same ? this.tokens[direction] : [] },
          look,
        );
    }
  }

  private showTokens(): void {
    const { data, tokens } = this;
    if (!data) return;
    const { same } = data;
    this.labels.looks.replaceChildren(...(same ? [] : [queryName(data, tokens.looks[0]!), " "]), "looks at");
    const one = tokens.seen.length === 1 && !same;
    this.labels.seen.replaceChildren(...(one ? [tokenName(data, tokens.seen[0]!), " "] : []), "seen by");
    const chip = (token: number, at: number) => {
      if (at === 0) return h("span", { class: "lt-chip lt-chip-on" }, tokenName(data, token));
      const remove = h("button", { type: "button", class: "lt-chip", title: "Leave this token out" });
      remove.append(tokenName(data, token), " \u00d7");
      remove.addEventListener("click", () => this.events.remove(token));
      return remove;
    };
    const hint =
      tokens.seen.length === 1 ? h("span", { class: "lt-quiet" }, "Shift-click a token adds it") : "";
    this.chips.replaceChildren(...tokens.seen.map(chip), hint);
  }
}
