// A stylesheet imported as text (see js/build.mjs).
declare module "*.css" {
  const text: string;
  export default text;
}
