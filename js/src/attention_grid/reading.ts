// What one row of a head's matrix says: where a query looks, in numbers and in words.
// In: the row of a query, maybe a key. Out: the key that stands out, its rank, the next ones.
export interface Reading {
  readonly query: number;
  readonly key: number;
  /** NaN where the query may not see the key. */
  readonly weight: number;
  /** 1 = the highest weight of the row; 0 where there is none. */
  readonly rank: number;
  /** How many keys the query may see. */
  readonly visible: number;
  /** The highest keys besides `key`: [key, weight]. */
  readonly others: readonly (readonly [number, number])[];
  /** The key was chosen here, with the sink set aside although it is higher. */
  readonly afterSink: boolean;
}

/** Reads the row of a query. Without a key the highest one is taken; with the sink aside the highest besides the first token. */
export function read(
  row: Float32Array,
  query: number,
  key: number | null,
  sinkAside: boolean,
): Reading | null {
  const order: number[] = [];
  for (let k = 0; k < row.length; k++) if (!Number.isNaN(row[k]!)) order.push(k);
  order.sort((a, b) => row[b]! - row[a]! || a - b);
  const first = order[0];
  if (first === undefined) return null;
  const chosen = key ?? (sinkAside && first === 0 ? (order[1] ?? first) : first);
  if (chosen < 0 || chosen >= row.length) return null;
  return {
    query,
    key: chosen,
    weight: row[chosen]!,
    rank: order.indexOf(chosen) + 1,
    visible: order.length,
    others: order
      .filter((k) => k !== chosen)
      .slice(0, 2)
      .map((k) => [k, row[k]!] as const),
    afterSink: key === null && chosen !== first,
  };
}
