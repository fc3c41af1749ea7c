// The DOM twin of a canvas: a visually hidden grid that takes the focus and names cells for screen readers.
// In: size, the chosen cell, and a function that says a cell in words. Out: a few elements around the chosen cell, never all.
import { h, setProps } from "../shared/dom";

export class Twin {
  readonly element: HTMLElement;
  private readonly id: string;

  constructor(
    label: string,
    region: string,
    private readonly say: (row: number, column: number) => string | null,
    unique: string,
  ) {
    this.id = `lt-${region}-${unique}`;
    this.element = h("div", {
      class: "lt-hidden lt-twin",
      role: "grid",
      tabindex: 0,
      "aria-label": label,
      "data-region": region,
    });
  }

  set label(text: string) {
    this.element.setAttribute("aria-label", text);
  }

  /** Renders the cells around (row, column) and makes that one the active descendant. */
  show(
    rows: number,
    columns: number,
    row: number,
    column: number,
    selected: (row: number, column: number) => boolean,
  ): void {
    const lines: HTMLElement[] = [];
    for (let r = Math.max(0, row - 1); r <= Math.min(rows - 1, row + 1); r++) {
      const line = h("div", { role: "row", "aria-rowindex": r + 1 });
      for (let c = Math.max(0, column - 1); c <= Math.min(columns - 1, column + 1); c++) {
        const words = this.say(r, c);
        if (words === null) continue;
        const cell = h(
          "div",
          { role: "gridcell", "aria-colindex": c + 1, "aria-selected": String(selected(r, c)) },
          words,
        );
        if (r === row && c === column) cell.id = this.id;
        line.append(cell);
      }
      lines.push(line);
    }
    this.element.replaceChildren(...lines);
    setProps(this.element, {
      "aria-rowcount": rows,
      "aria-colcount": columns,
      "aria-activedescendant": this.id,
    });
  }
}
