// Questions to the kernel: each waits for the answer with its number, for an error, or until nobody seems to be there.
// In: an AFM model and the messages that it hears. Out: answers as promises.
import type { AnyModel } from "@anywidget/types";

/** Why an answer does not come. */
export class Unavailable extends Error {
  constructor(
    readonly why: "no-kernel" | "error",
    message: string,
  ) {
    super(message);
  }
}

export interface Answer {
  readonly message: Readonly<Record<string, unknown>>;
  readonly buffers: readonly unknown[];
}

export interface Heard {
  readonly type: string;
  readonly id?: unknown;
}

interface Waiting {
  done(answer: Answer): void;
  fail(error: Error): void;
  heard(share: number): void;
  timer: number;
}

/** A kernel that has not answered after this long is gone, or busy with a cell. */
const ANSWER = 3000;
/** What the host of an exported page answers to a request. */
const NO_KERNEL = "needs a kernel";

export class Kernel {
  private readonly waiting = new Map<string, Waiting>();
  private readonly name = crypto.getRandomValues(new Uint32Array(1))[0]!.toString(36);
  private count = 0;

  /**
   * `patient` says that silence means nothing now, besides when the host says that a cell is running; `gone` is told
   * when nobody answers.
   */
  constructor(
    private readonly model: AnyModel,
    private readonly patient: () => boolean,
    private readonly gone: () => void,
  ) {}

  /** The host says that the kernel is running a cell. */
  get busy(): boolean {
    const manager = this.model.widget_manager as unknown as
      | { kernel?: { status?: string } | null }
      | undefined;
    return manager?.kernel?.status === "busy";
  }

  /** `heard` is told how much of a long answer has been computed, from 0 to 1. */
  ask(message: Record<string, unknown>, heard: (share: number) => void = () => undefined): Promise<Answer> {
    const id = `${this.name}-${++this.count}`;
    return new Promise((done, fail) => {
      this.waiting.set(id, { done, fail, heard, timer: this.watch(id) });
      this.model.send({ ...message, id });
    });
  }

  /** Takes a message; false where nobody here asked for it. */
  hear(message: Heard, buffers: readonly unknown[]): boolean {
    const id = String(message.id ?? "");
    const request = this.waiting.get(id);
    if (!request) return false;
    window.clearInterval(request.timer);
    if (message.type === "progress") {
      const { done, total } = message as unknown as { done: number; total: number };
      request.timer = this.watch(id);
      // Without a total it only says that somebody is at work.
      if (total > 0) request.heard(done / total);
      return true;
    }
    this.waiting.delete(id);
    if (message.type !== "error") {
      request.done({ message: { ...message }, buffers });
      return true;
    }
    const words = String((message as unknown as { message: unknown }).message);
    request.fail(new Unavailable(words === NO_KERNEL ? "no-kernel" : "error", words));
    return true;
  }

  destroy(): void {
    for (const { timer } of this.waiting.values()) window.clearInterval(timer);
    this.waiting.clear();
  }

  private watch(id: string): number {
    return window.setInterval(() => this.overdue(id), ANSWER);
  }

  private overdue(id: string): void {
    const request = this.waiting.get(id);
    if (!request || this.patient() || this.busy) return;
    window.clearInterval(request.timer);
    this.waiting.delete(id);
    request.fail(new Unavailable("no-kernel", "no answer from the kernel"));
    this.gone();
  }
}
