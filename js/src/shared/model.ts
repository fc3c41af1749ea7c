// What the bridges between a widget's model and its view have in common.
// In: changes of traits. Out: one update for all that change at once.
import type { Cleanup } from "./dom";

/** Runs `update` once after all that happens now: a lock changes two traits, new data three. */
export function together(cleanup: Cleanup, update: () => void): () => void {
  let queued = false;
  let ended = false;
  cleanup.add(() => {
    ended = true;
  });
  return () => {
    if (queued) return;
    queued = true;
    queueMicrotask(() => {
      queued = false;
      if (!ended) update();
    });
  };
}
