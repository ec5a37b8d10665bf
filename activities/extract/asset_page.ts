/** One page of an asset API: `{items: [{id, name, kind, value, updated_at, deleted}], next_page}`, read exactly. */
import { SluiceError } from '../../model/errors.ts';
import { parseInstant } from '../../model/instant.ts';

/** An asset as the API has it; fields that are missing are null, and nothing is checked but the instant. */
export interface AssetItem {
  id: unknown;
  name: unknown;
  kind: unknown;
  value: unknown;
  updated_at: unknown;
  deleted: unknown;
}

export interface AssetPage {
  items: AssetItem[];
  /** Null on the last page. */
  nextPage: number | null;
}

/** Reads a page's body. Undefined when it is no JSON at all (cut off, or an error page). Errors: `source_refused`. */
export function readPage(body: string): AssetPage | undefined {
  let content: unknown;
  try {
    content = JSON.parse(keepDigits(body));
  } catch {
    return undefined;
  }
  const { items, next_page: next } = (content ?? {}) as { items?: unknown; next_page?: unknown };
  const isNext = next === null || next === undefined || (typeof next === 'number' && Number.isSafeInteger(next));
  if (Array.isArray(items) && isNext) return { items: items.map(readItem), nextPage: (next as number | null) ?? null };
  throw new SluiceError(
    'source_refused',
    'the asset API answered JSON of another shape',
    'It must answer {"items": […], "next_page": number or null}; see docs/deployments.md.',
  );
}

function readItem(item: unknown): AssetItem {
  const given = (typeof item === 'object' && item !== null ? item : {}) as Record<string, unknown>;
  const own = (name: string) => (Object.hasOwn(given, name) ? (given[name] ?? null) : null);
  return {
    id: own('id'),
    name: own('name'),
    kind: own('kind'),
    value: own('value'),
    updated_at: own('updated_at'),
    deleted: own('deleted'),
  };
}

/** When an asset was updated; undefined when that is not to be read. */
export function updatedAt(item: AssetItem): bigint | undefined {
  return typeof item.updated_at === 'string' ? parseInstant(item.updated_at) : undefined;
}

/**
 * Numbers with more digits than a double holds become texts, so that they are kept exactly: JSON has numbers only
 * outside of strings, and a string is one match here.
 */
function keepDigits(body: string): string {
  if (!/\d[\d.]{15}/.test(body)) return body;
  return body.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (token) =>
    token[0] !== '"' && token.replace(/[eE].*$|\D/g, '').length > 15 ? `"${token}"` : token,
  );
}
