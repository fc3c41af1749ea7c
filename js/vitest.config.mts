// Unit tests of the frontend: pure code and views in a simulated page; the real browsers are in tests/browser.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["js/test/**/*.test.ts"], environment: "happy-dom", setupFiles: ["js/test/page.ts"] },
  plugins: [
    // As js/build.mjs does it: a stylesheet is imported as its text.
    {
      name: "css-as-text",
      enforce: "pre",
      transform: (code, id) => (id.endsWith(".css") ? `export default ${JSON.stringify(code)}` : null),
    },
  ],
});
