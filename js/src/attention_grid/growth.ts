// A text while it is written: what the message `grow` brings.
// In: the message, its buffer, what is known so far. Out: rows in the thumbnails, and facts.
import type { Facts, GridData, Written } from "./data";

/** Everything new since the last one. `from` is the index of the first new token. */
export interface GrowMessage {
  readonly type: "grow";
  readonly from: number;
  readonly n_now: number;
  readonly tokens: readonly string[];
  readonly kinds: readonly string[];
  readonly stats: readonly Written[];
  readonly row0: number;
  readonly row1: number;
}

/** Takes the rows in and gives the new facts; null where something before it was missed. */
export function grow(data: GridData, message: GrowMessage, codes: unknown): Partial<Facts> | null {
  const { facts } = data;
  const { from } = message;
  const first = facts.generated ?? facts.tokens.length;
  if (from > facts.tokens.length) return null;
  data.fillRows(message.row0, message.row1, codes);
  const tokens = [...facts.tokens.slice(0, from), ...message.tokens];
  return {
    phase: "generating",
    n_now: message.n_now,
    tokens,
    query_tokens: tokens,
    kinds: [...facts.kinds.slice(0, from), ...message.kinds],
    generation: [...(facts.generation ?? []).slice(0, from - first), ...message.stats],
  };
}
