// The colour tokens of the house, taken from the host where it has them and where they can be read.
// In: the widget's root element and the trait "theme". Out: --lt-* variables on that root, and a Theme for canvases.
import { contrast, css, DIVERGING, luminance, mix, parseColour, type Rgb, ramp, SEQUENTIAL } from "./colour";

export type ThemeChoice = "auto" | "light" | "dark";

/** Everything a canvas needs to draw in the present theme. */
export interface Theme {
  readonly dark: boolean;
  readonly paper: Rgb;
  readonly plate: Rgb;
  readonly ink: Rgb;
  readonly ink2: Rgb;
  readonly ink3: Rgb;
  readonly line: Rgb;
  readonly line2: Rgb;
  readonly accent: Rgb;
  readonly accentText: Rgb;
  readonly accentSoft: Rgb;
  readonly sequential: readonly Rgb[];
  readonly diverging: readonly Rgb[];
  readonly sans: string;
  readonly mono: string;
}

const OURS = {
  light: {
    paper: "#ffffff",
    fill: "#f4f6f8",
    fill2: "#e9edf1",
    line: "#dfe4e9",
    line2: "#c3cad2",
    ink: "#171b21",
    ink2: "#454d57",
    ink3: "#68727e",
    accent: "#d4540a",
    "accent-t": "#b04300",
    "accent-soft": "#fdeee2",
    attn: "#2f6fb3",
    mlp: "#8b5a9e",
    good: "#1f7a52",
    warn: "#8a5a00",
    bad: "#b3261e",
  },
  dark: {
    paper: "#14171b",
    fill: "#1c2025",
    fill2: "#262b31",
    line: "#2c3239",
    line2: "#464e58",
    ink: "#eceff2",
    ink2: "#bac2cb",
    ink3: "#8c96a2",
    accent: "#ffa336",
    "accent-t": "#ffb35c",
    "accent-soft": "#3a2813",
    attn: "#7db8f0",
    mlp: "#cf9fe0",
    good: "#5ecf9a",
    warn: "#f2c14e",
    bad: "#ff8a80",
  },
} as const;

type Token = keyof (typeof OURS)["light"];

/** Which host variables may stand in for a token, best first. */
const HOST: Partial<Record<Token, readonly string[]>> = {
  paper: ["--jp-layout-color0", "--vscode-editor-background"],
  fill: ["--jp-layout-color2", "--vscode-editorWidget-background"],
  line: ["--jp-border-color2", "--vscode-panel-border"],
  line2: ["--jp-border-color1", "--vscode-panel-border"],
  ink: ["--jp-ui-font-color1", "--vscode-editor-foreground"],
  ink3: ["--jp-ui-font-color2", "--vscode-descriptionForeground"],
  good: ["--jp-success-color1"],
  warn: ["--jp-warn-color1"],
  bad: ["--jp-error-color1", "--vscode-errorForeground"],
};

/** The least contrast to paper a token must have; host colours below it are not used. */
const TEXT: Partial<Record<Token, number>> = { ink: 7, ink3: 4.5, good: 4.5, warn: 4.5, bad: 4.5 };
/** The most contrast to paper a quiet token may have: some hosts' plates and borders would shout under data. */
const QUIET: Partial<Record<Token, number>> = { fill: 1.18, line: 1.6, line2: 2.2 };

/** Quiet tokens on a tinted paper are this much ink, so that they keep its tint. */
const QUIET_MIX: Partial<Record<Token, number>> = { fill: 0.045, fill2: 0.09, line: 0.12, line2: 0.24 };

/** The colour a CSS expression gives on this element, as the browser resolves it (var(), names, color-mix). */
function resolve(probe: HTMLElement, expression: string, paper: Rgb | null): Rgb | null {
  probe.style.color = "";
  probe.style.color = expression;
  if (probe.style.color === "") return null;
  const text = getComputedStyle(probe).color;
  const rgb = parseColour(text);
  const alpha = Number.parseFloat(/^rgba\((?:[^,]+,){3}([^)]+)\)$/.exec(text)?.[1] ?? "1");
  return rgb && paper && alpha < 1 ? mix(paper, rgb, alpha) : rgb;
}

/** The first host variable among `names` that is set here and is a colour. */
function hostColour(root: HTMLElement, probe: HTMLElement, token: Token, paper: Rgb | null): Rgb | null {
  const style = getComputedStyle(root);
  for (const name of HOST[token] ?? []) {
    const value = style.getPropertyValue(name).trim();
    const rgb = value ? resolve(probe, value, paper) : null;
    if (rgb) return rgb;
  }
  return null;
}

/** What the page really shows behind the widget where the host names no colours. */
function pageColour(root: HTMLElement): Rgb | null {
  for (let e = root.parentElement; e; e = e.parentElement) {
    const rgb = parseColour(getComputedStyle(e).backgroundColor);
    if (rgb) return rgb;
  }
  return getComputedStyle(document.documentElement).colorScheme === "dark"
    ? parseColour(OURS.dark.paper)
    : null;
}

/** A host colour is taken only where it does its work: readable as text, quiet as a plate, not saturated. */
function fits(token: Token, colour: Rgb, paper: Rgb): boolean {
  const ratio = contrast(colour, paper);
  return ratio >= (TEXT[token] ?? 1) && ratio <= (QUIET[token] ?? 21);
}

/** Reads the host, sets the --lt-* variables on the root, and returns the theme for canvases. */
export function applyTheme(root: HTMLElement, choice: ThemeChoice): Theme {
  const probe = document.createElement("span");
  probe.hidden = true;
  root.append(probe);
  const forced = window.matchMedia?.("(forced-colors: active)").matches ?? false;
  probe.style.setProperty("forced-color-adjust", "none");
  const system = forced ? resolve(probe, "Canvas", null) : null;
  const found =
    system ?? hostColour(root, probe, "paper", null) ?? pageColour(root) ?? parseColour(OURS.light.paper)!;
  const hostDark = luminance(found) < 0.4;
  const dark = choice === "auto" ? hostDark : choice === "dark";
  const own = OURS[dark ? "dark" : "light"];
  const useHost = dark === hostDark && !forced;
  const ours = (t: Token): Rgb => parseColour(own[t])!;
  const paper = useHost || (forced && dark === hostDark) ? found : ours("paper");
  const tinted = contrast(paper, ours("paper")) > 1.02;
  const ink = pick("ink", ours("ink"));
  function pick(token: Token, ink: Rgb): Rgb {
    const host = useHost ? hostColour(root, probe, token, paper) : null;
    if (host && fits(token, host, paper)) return host;
    const share = tinted ? QUIET_MIX[token] : undefined;
    return share === undefined ? ours(token) : mix(paper, ink, share);
  }
  const colours = new Map<Token, Rgb>([["paper", paper]]);
  for (const token of Object.keys(own) as Token[])
    if (token !== "paper") colours.set(token, pick(token, ink));
  probe.remove();
  for (const [token, rgb] of colours) root.style.setProperty(`--lt-${token}`, css(rgb));
  root.style.colorScheme = dark ? "dark" : "light";
  root.classList.toggle("lt-dark", dark);
  const get = (t: Token): Rgb => colours.get(t)!;
  const style = getComputedStyle(root);
  const stops = SEQUENTIAL[dark ? "dark" : "light"].map((c) => parseColour(c)!);
  if (tinted) stops[0] = mix(paper, ink, 0.03);
  return {
    dark,
    paper,
    plate: get("fill"),
    ink,
    ink2: get("ink2"),
    ink3: get("ink3"),
    line: get("line"),
    line2: get("line2"),
    accent: get("accent"),
    accentText: get("accent-t"),
    accentSoft: get("accent-soft"),
    sequential: ramp(stops),
    diverging: ramp(DIVERGING[dark ? "dark" : "light"].map((c) => parseColour(c)!)),
    sans: style.getPropertyValue("--lt-sans").trim() || "sans-serif",
    mono: style.getPropertyValue("--lt-mono").trim() || "monospace",
  };
}

/**
 * Calls back whenever the host may have changed its theme; returns the function that ends it.
 * Two signals: attributes of the page, and a probe whose colours follow the host's variables, so that it tells of
 * style sheets that finish loading long after the attribute was set.
 */
export function watchTheme(root: HTMLElement, changed: () => void): () => void {
  const observer = new MutationObserver(changed);
  const names = [
    "class",
    "style",
    "data-jp-theme-name",
    "data-jp-theme-light",
    "data-theme",
    "data-vscode-theme-kind",
  ];
  for (const e of [document.documentElement, document.body])
    observer.observe(e, { attributes: true, attributeFilter: names });
  const probe = document.createElement("span");
  probe.className = "lt-hidden lt-theme-probe";
  probe.setAttribute("aria-hidden", "true");
  probe.addEventListener("transitionrun", changed);
  root.append(probe);
  const forced = window.matchMedia?.("(forced-colors: active)");
  forced?.addEventListener?.("change", changed);
  return () => {
    observer.disconnect();
    probe.remove();
    forced?.removeEventListener?.("change", changed);
  };
}

/** Two themes draw the same. */
export function sameTheme(a: Theme, b: Theme): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
