// What the token explorer shows: distributions by their place in a tree of continuations, and the words of tokens.
// In: the widget's traits. Out: look-ups. A node is one token after its parent; node 0 is the prompt.
import { floats } from "../attention_grid/data";
import { Chain, Distribution, type Settings } from "./chain";

export interface Facts {
  readonly title: string;
  readonly model: string;
  readonly provenance: string;
  readonly details: Readonly<Record<string, string>>;
  readonly live: boolean;
  readonly saved: string | null;
  readonly n_words: number;
  /** The prompt. */
  readonly tokens: readonly string[];
  readonly kinds: readonly string[];
  readonly ids: readonly number[];
  /** Which special tokens were added, and by whom; empty where none were. */
  readonly added: string;
  /** Of the last text: ms to its first token, tokens per second, whether the model ended it. */
  readonly speed: {
    readonly first_token?: number;
    readonly tokens_per_second?: number;
    readonly ended?: number;
  };
}

export interface Node {
  readonly parent: number | null;
  readonly token: number | null;
  readonly text: string;
  readonly kind: string;
  /** The character that it completes, where earlier tokens hold its first bytes. */
  readonly joins: string | null;
  readonly probability: number;
  readonly rank: number;
  readonly ms: number | null;
  readonly how: "sampled" | "likeliest" | "chosen";
  /** The likeliest tokens at its place: id, text, probability. */
  readonly top: readonly (readonly [number, string, number])[];
}

/** The shared state: the public traits. */
export interface State extends Settings {
  readonly seed: number;
  readonly node: number;
  readonly leaf: number;
  /** Tokens of the prompt that a linked widget chose. */
  readonly selected_tokens: readonly number[];
  readonly theme: "auto" | "light" | "dark";
}

export class ExplorerData {
  private readonly chains = new Map<number, Chain>();
  private readonly raw = new Map<number, Float32Array>();
  nodes: readonly Node[] = [];

  constructor(
    public facts: Facts,
    private words: Readonly<Record<string, readonly [string, string]>>,
  ) {}

  retell(facts: Facts, nodes: readonly Node[], words: Readonly<Record<string, readonly [string, string]>>) {
    this.facts = facts;
    this.nodes = nodes;
    this.words = words;
  }

  /** Takes in the logits after some nodes. */
  put(here: readonly number[], logits: readonly unknown[]): void {
    here.forEach((node, i) => {
      const own = floats(logits[i]);
      if (own.length > 0 && !this.raw.has(node)) this.raw.set(node, own);
    });
  }

  has(node: number): boolean {
    return this.raw.has(node);
  }

  /** The chain over the distribution after a node; null where it is not here. */
  chain(node: number): Chain | null {
    const own = this.raw.get(node);
    if (!own) return null;
    let chain = this.chains.get(node);
    if (!chain) {
      chain = new Chain(new Distribution(own), this.before(node));
      this.chains.set(node, chain);
    }
    return chain;
  }

  word(id: number): string {
    return this.words[id]?.[0] ?? `#${id}`;
  }

  /** "normal", "control", "byte", …; of a word that is not here "normal". */
  kind(id: number): string {
    return this.words[id]?.[1] ?? "normal";
  }

  /** The nodes from the first token after the prompt to this one. */
  path(node: number): number[] {
    const found: number[] = [];
    for (let at = node; at > 0 && this.nodes[at]; at = this.nodes[at]!.parent ?? 0) found.push(at);
    return found.reverse();
  }

  /** Ends of the continuations, in the order in which a tree is read. */
  leaves(): number[] {
    const children = new Map<number, number[]>();
    this.nodes.forEach((node, at) => {
      if (node.parent !== null) children.set(node.parent, [...(children.get(node.parent) ?? []), at]);
    });
    const found: number[] = [];
    const waiting = [0];
    while (waiting.length > 0) {
      const at = waiting.pop()!;
      const own = children.get(at) ?? [];
      if (own.length === 0 && at !== 0) found.push(at);
      waiting.push(...own.reverse());
    }
    return found;
  }

  child(node: number, token: number): number | null {
    const at = this.nodes.findIndex((n) => n.parent === node && n.token === token);
    return at < 0 ? null : at;
  }

  private before(node: number): number[] {
    return [...this.facts.ids, ...this.path(node).map((at) => this.nodes[at]!.token!)];
  }
}
