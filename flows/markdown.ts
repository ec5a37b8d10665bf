/**
 * Text for people: the current details of flows, as Temporal UI and `temporal workflow metadata` show them. The UI that
 * comes with the server renders bold, links, and bullets behind an empty line, but draws no lines in tables: so there
 * are none. In its links it fills in {namespace} and {runId} itself.
 */
import type { ErrorReport } from '../model/errors.ts';

/** Blocks with an empty line between them; those without content are left out. */
export function page(...blocks: (string | false | null | undefined)[]): string {
  // The frame around it is a line too low, so that its end cannot be read: it ends with a line of nothing.
  return [...blocks.filter(Boolean), '\u00a0'].join('\n\n');
}

/** A title and a bullet a line; nothing without lines. */
export function section(title: string, lines: string[]): string {
  return lines.length === 0 ? '' : [`**${title}**`, '', ...lines.map((line) => `- ${line}`)].join('\n');
}

/** What is wrong and what to do about it. `what` begins a sentence, e.g. `table accounts stands still`. */
export function trouble(what: string, { kind, reason, remedy, affects = [] }: ErrorReport): string {
  const reach = affects.length > 0 ? `\n\n**It reaches** ${affects.map(code).join(', ')}.` : '';
  return `**${plain(what)}** (${kind}): ${plain(reason)}${reach}\n\n**What to do**: ${plain(remedy)}`;
}

/** Text that may hold anything, e.g. the words of an error. What stands in backticks stays. */
export function plain(text: string): string {
  return text
    .split('`')
    .map((part, index) => (index % 2 === 0 ? part.replace(/[<*]/g, '\\$&') : part))
    .join('`');
}

/** A name or a command, as it is. */
export function code(text: string): string {
  return `\`${text.replaceAll('`', "'")}\``;
}

/** The page of the last run of a flow. */
export function flowLink(workflowId: string, text: string): string {
  return `[${text}](/namespaces/{namespace}/workflows/${encodeURIComponent(workflowId)})`;
}

/** What the running activities of this run say. */
export function activitiesLink(workflowId: string, text: string): string {
  return `[${text}](/namespaces/{namespace}/workflows/${encodeURIComponent(workflowId)}/{runId}/pending-activities)`;
}

/** A list of flows, e.g. of `SluiceSource = "shop"`. */
export function flowsLink(query: string, text: string): string {
  return `[${text}](/namespaces/{namespace}/workflows?query=${encodeURIComponent(query)})`;
}

/** The form that starts a flow, filled in but for its input, which is that of the last such flow. */
export function startLink(type: string, workflowId: string, taskQueue: string, text: string): string {
  const form = `workflowType=${type}&workflowId=${encodeURIComponent(workflowId)}&taskQueue=${encodeURIComponent(taskQueue)}`;
  return `[${text}](/namespaces/{namespace}/workflows/start-workflow?${form})`;
}

/** `1 row`, `12,000 rows`. */
export function count(number: number, noun: string, plural = `${noun}s`): string {
  return `${grouped(number)} ${number === 1 ? noun : plural}`;
}

/** `12,000`. */
export function grouped(number: number): string {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** An ISO text in UTC without what says nothing: `2026-01-31 09:30:00`, `2026-01-31 09:30:00.25`. */
export function instant(iso: string): string {
  return iso
    .replace('T', ' ')
    .replace(/(\.\d*?)0*Z$/, '$1')
    .replace(/[.Z]$/, '');
}

/** The time of day of an ISO text in UTC, to the second. */
export function timeOfDay(iso: string): string {
  return iso.slice(11, 19);
}

/** How much of the stretch from `from` to `to` lies before `at`: `33 %`. */
export function percentOf(from: string, to: string, at: string): string {
  const [begin, end, now] = [from, to, at].map((iso) => Date.parse(iso)) as [number, number, number];
  return `${Math.floor((100 * (now - begin)) / (end - begin))} %`;
}

/** A stretch of time in few words; '' = the beginning of all. It holds nothing that would end the text of a link. */
export function stretch(from: string, to: string): string {
  // Seconds are shown only where they matter.
  const whole = [from, to].every((iso) => iso === '' || /:00(\.0*)?Z$/.test(iso));
  const short = (iso: string) => (whole ? instant(iso).slice(0, 16) : instant(iso));
  const begin = from === '' ? 'beginning' : short(from);
  const end = short(to);
  const sameDay = from.slice(0, 10) === to.slice(0, 10);
  return `${begin} – ${sameDay ? end.slice(11) : end}`;
}
