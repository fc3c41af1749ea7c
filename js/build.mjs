// Builds the frontend: one minified ES module per widget, CSS inlined, no code from anywhere else.
// In: js/src/<widget>/widget.ts. Out: llamatelemetry_widget/widgets/static/<widget>.js.
// Prints each bundle's size and fails above its budget. With --watch it rebuilds on every change.
import { mkdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = join(root, "llamatelemetry_widget", "widgets", "static");

/** Bytes a bundle may have. A reader pays for them in every saved notebook and every exported page. */
const BUDGET = {
  architecture_tree: 120_000,
  attention_grid: 180_000,
  embedding_space: 700_000, // three.js is most of it
  expert_strip: 90_000,
  head_comparison: 100_000,
  layer_lens: 90_000,
  quantization_report: 90_000,
  telemetry_panel: 70_000,
  token_explorer: 80_000,
  tour: 60_000,
};

/** Imports of .css give the minified text: the view puts it into its own root, so nothing leaks to the page. */
const cssAsText = {
  name: "css-as-text",
  setup(build) {
    build.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const source = await readFile(path, "utf8");
      const { code } = await esbuild.transform(source, { loader: "css", minify: true });
      return { contents: code.trim(), loader: "text" };
    });
  },
};

/** esbuild's options of one widget. */
function options(widget) {
  return {
    entryPoints: [join(root, "js", "src", widget, "widget.ts")],
    outfile: join(out, `${widget}.js`),
    bundle: true,
    format: "esm",
    target: "es2021",
    minify: true,
    charset: "utf8",
    legalComments: "eof",
    logLevel: "warning",
    plugins: [cssAsText],
    // three.js warns of a second copy of itself on a page; every widget brings its own.
    define: { "window.__THREE__": "undefined" },
    logOverride: { "assign-to-define": "silent" },
  };
}

/** Prints the sizes; returns the widgets that are above their budget. */
async function tooBig() {
  const over = [];
  for (const [widget, budget] of Object.entries(BUDGET)) {
    const { size } = await stat(join(out, `${widget}.js`));
    console.log(`${widget}.js ${(size / 1000).toFixed(1)} kB (budget ${budget / 1000} kB)`);
    if (size > budget) over.push(widget);
  }
  return over;
}

await mkdir(out, { recursive: true });
const widgets = Object.keys(BUDGET);
if (process.argv.includes("--watch")) {
  for (const widget of widgets) await (await esbuild.context(options(widget))).watch();
  console.log("watching js/src; stop with Ctrl-C");
} else {
  await Promise.all(widgets.map((widget) => esbuild.build(options(widget))));
  const over = await tooBig();
  if (over.length > 0) {
    console.error(`above budget: ${over.join(", ")}`);
    process.exitCode = 1;
  }
}
