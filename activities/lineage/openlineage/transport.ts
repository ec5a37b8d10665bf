/** Where events of OpenLineage go: to a collector by HTTP, into a file, or nowhere. */
import { appendFile } from 'node:fs/promises';
import { fetch } from 'undici';
import { SluiceError } from '../../../model/errors.ts';
import { resolveOutgoing } from '../../extract/outgoing.ts';
import { type Deliver, Undeliverable } from './outbox.ts';

/** Milliseconds that a collector may take. */
const patience = 10_000;

export interface Transport {
  /** Of jobs, as consumers group them. */
  namespace: string;
  deliver: Deliver;
}

/**
 * What the environment says: `OPENLINEAGE_URL` (with `OPENLINEAGE_API_KEY`) or `OPENLINEAGE_FILE`, and `OPENLINEAGE_NAMESPACE`.
 * Undefined when neither is set. Errors: `configuration`.
 */
export function readTransport(environment: NodeJS.ProcessEnv = process.env): Transport | undefined {
  const { OPENLINEAGE_URL: url, OPENLINEAGE_FILE: file, OPENLINEAGE_API_KEY: key } = environment;
  const namespace = environment.OPENLINEAGE_NAMESPACE || 'sluice';
  if (url && file) {
    const remedy = 'Unset one of OPENLINEAGE_URL and OPENLINEAGE_FILE.';
    throw new SluiceError('configuration', 'events of OpenLineage are to go to two places', remedy);
  }
  if (file) return { namespace, deliver: (event) => appendFile(file, `${JSON.stringify(event)}\n`) };
  if (!url) return undefined;
  return { namespace, deliver: collector(resolveOutgoing('${OPENLINEAGE_URL}', environment), key || undefined) };
}

/** An address without path means the collectors' usual one. */
function collector(url: URL, key: string | undefined): Deliver {
  const { username, password } = url;
  const target = new URL(url);
  target.username = target.password = '';
  if (target.pathname === '/') target.pathname = '/api/v1/lineage';
  const basic = `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`;
  const authorization = key !== undefined ? `Bearer ${key}` : username !== '' ? basic : undefined;
  const headers = { 'content-type': 'application/json', ...(authorization && { authorization }) };
  return async (event) => {
    const signal = AbortSignal.timeout(patience);
    const body = JSON.stringify(event);
    const answer = await fetch(target, { method: 'POST', headers, body, signal, redirect: 'error' });
    await answer.body?.cancel();
    if (answer.ok) return;
    const reason = `${target.host} answered ${answer.status}`;
    throw [400, 413, 422].includes(answer.status) ? new Undeliverable(reason) : new Error(reason);
  };
}
