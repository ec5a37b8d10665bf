/**
 * `${NAME}` in YAML. Without quotes it is no YAML inside of `{ }` and `[ ]`, where people write it all the same. So the text is parsed
 * with marks in its place, as long as what they stand for: wherever it stands, and no value is in the text while that is parsed.
 */
import { type Document, isScalar, type ParsedNode, type ParseOptions, parseDocument, visit } from 'yaml';

const reference = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g;
/** Characters that Unicode keeps for such use: no text has them. */
const marks = { begin: '\ufdd0\ufdd1', end: '\ufdd2' };
const marked = new RegExp(`${marks.begin}([A-Za-z0-9_]+)${marks.end}`, 'g');

/** Parses a YAML text; its references are in the values as they are written. */
export function parseYaml(text: string, options: ParseOptions): Document.Parsed<ParsedNode> {
  const document = parseDocument(text.replace(reference, `${marks.begin}$1${marks.end}`), {
    ...options,
    uniqueKeys: true,
  });
  visit(document, (_key, node) => {
    if (isScalar(node) && typeof node.value === 'string') node.value = unmarked(node.value);
  });
  for (const problem of document.errors) problem.message = unmarked(problem.message);
  return document;
}

function unmarked(text: string): string {
  return text.replace(marked, '$${$1}');
}

/** Puts values for `${NAME}`, but for what `keeps` names. */
export function replaceReferences(
  value: unknown,
  at: PropertyKey[],
  keeps: (at: PropertyKey[]) => boolean,
  read: (name: string, at: PropertyKey[]) => string,
): unknown {
  if (keeps(at)) return value;
  if (typeof value === 'string') return value.replace(reference, (_text, name: string) => read(name, at));
  if (Array.isArray(value)) return value.map((item, index) => replaceReferences(item, [...at, index], keeps, read));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, replaceReferences(item, [...at, key], keeps, read)]),
  );
}
