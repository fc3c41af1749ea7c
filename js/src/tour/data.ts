// What a tour is made of, as Python sends it: steps with words, drawings and a question; and the state that is shared.
// In: the traits of the widget. Out: types, and the map of places that the steps go through.

export type Figure = Chips | Strips | Matrix | Bars | Dials | Groups;

export interface Chips {
  readonly kind: "chips";
  readonly tokens: readonly string[];
  readonly marked: readonly number[];
}

export interface Strips {
  readonly kind: "strips";
  /** The colours end at plus and minus this. */
  readonly limit: number;
  readonly rows: readonly {
    readonly label: string;
    readonly sign: string;
    readonly cells: readonly number[];
    /** Numbers of the vector; more than there are cells where runs were reduced. */
    readonly size: number;
    readonly first: readonly string[];
    readonly norm: string;
  }[];
}

export interface Matrix {
  readonly kind: "matrix";
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** null = masked. */
  readonly cells: readonly (readonly (number | null)[])[];
  readonly scale: "weight" | "signed";
  readonly limit: number;
  /** Rows that are named in the text. */
  readonly mark: readonly number[];
}

export interface Bars {
  readonly kind: "bars";
  readonly what: string;
  readonly rows: readonly { readonly label: string; readonly value: number | null; readonly text: string }[];
  readonly marked: readonly number[];
}

export interface Dials {
  readonly kind: "dials";
  /** Radians. */
  readonly angles: readonly number[];
  readonly turns: readonly string[];
  readonly what: string;
}

export interface Groups {
  readonly kind: "groups";
  readonly heads: number;
  readonly kv_heads: number;
  readonly head: number;
}

export interface Question {
  readonly text: string;
  readonly options: readonly string[];
  readonly answer: number;
  readonly because: string;
}

export interface Step {
  readonly key: string;
  readonly place: string;
  readonly title: string;
  readonly says: readonly string[];
  readonly figures: readonly Figure[];
  readonly question: Question;
  /** Drawn once the user has predicted, or asked to see. */
  readonly after: readonly Figure[];
  readonly tokens: readonly number[];
  readonly inside: boolean;
  readonly see: string;
}

export interface Facts {
  readonly title: string;
  readonly model: string;
  readonly provenance: string;
  readonly details: Readonly<Record<string, string>>;
  readonly live: boolean;
  readonly saved: string | null;
  readonly tokens: readonly string[];
  readonly layer: number;
  readonly head: number | null;
  readonly n_layers: number;
  readonly steps: readonly Step[];
}

/** In `predictions`: the answer was asked for. */
export const SHOWN = -1;

export interface State {
  readonly step: number;
  /** Key of a step -> number of the option, or SHOWN. */
  readonly predictions: Readonly<Record<string, number>>;
  readonly selected_layer: number | null;
  readonly selected_head: number | null;
  readonly selected_tokens: readonly number[];
  readonly theme: "auto" | "light" | "dark";
}

/** A box of the map: steps that stand at the same place, one after the other. */
export interface Place {
  readonly name: string;
  readonly inside: boolean;
  /** First step, and the one after the last. */
  readonly from: number;
  readonly to: number;
}

export function places(steps: readonly Step[]): Place[] {
  const found: Place[] = [];
  steps.forEach((step, at) => {
    const last = found.at(-1);
    if (last && last.name === step.place && last.inside === step.inside)
      found[found.length - 1] = { ...last, to: at + 1 };
    else found.push({ name: step.place, inside: step.inside, from: at, to: at + 1 });
  });
  return found;
}

/** What a step selects in linked widgets. */
export function looksAt(
  facts: Facts,
  step: number,
): Pick<State, "selected_layer" | "selected_head" | "selected_tokens"> {
  const own = facts.steps[step]!;
  const inHead = own.inside && facts.head !== null;
  return {
    selected_layer: inHead ? facts.layer : null,
    selected_head: inHead ? facts.head : null,
    selected_tokens: own.tokens,
  };
}
