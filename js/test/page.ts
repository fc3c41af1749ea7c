// What happy-dom leaves out and the views need: a width, frames, and a count of listeners for the clean-up test.
import { vi } from "vitest";

/** The inner width that every element has. */
export const page = { width: 1084 };

Object.defineProperty(HTMLElement.prototype, "clientWidth", { configurable: true, get: () => page.width });

/** Observers that are watching now, so that a test can say "the view has been resized". */
export const observers = new Set<FakeResizeObserver>();

class FakeResizeObserver {
  constructor(readonly tell: () => void) {}
  observe(): void {
    observers.add(this);
  }
  unobserve(): void {}
  disconnect(): void {
    observers.delete(this);
  }
}

vi.stubGlobal("ResizeObserver", FakeResizeObserver);
vi.stubGlobal("requestAnimationFrame", (run: FrameRequestCallback) =>
  setTimeout(() => run(performance.now()), 0),
);
vi.stubGlobal("cancelAnimationFrame", (id: number) => clearTimeout(id));

/** The page has a new width. */
export function resize(width: number): void {
  page.width = width;
  for (const o of observers) o.tell();
}
