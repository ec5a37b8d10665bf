import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { SluiceError } from '../model/errors.ts';
import { watch } from './progress.ts';

/** What is written while these are seen, one after the other; a text, or an error. */
async function written(
  seen: (string | Error)[],
  terminal: { isTTY?: boolean; columns?: number } = {},
): Promise<string> {
  let text = '';
  const out = { ...terminal, write: (more: string) => (text += more) };
  const ended = new AbortController();
  const left = [...seen];
  const look = async () => {
    const one = left.shift()!;
    if (left.length === 0) setTimeout(() => ended.abort(), 0);
    if (typeof one === 'string') return one;
    throw one;
  };
  await watch('assets', look, ended.signal, out, 1);
  return text;
}

const nobody = new SluiceError(
  'no_worker',
  'no worker answers on the task queue sluice',
  'Start one: npx sluice worker.',
);
const unreachable = new SluiceError('temporal_unreachable', 'Temporal does not answer', 'See that it runs.');

describe('waiting for a flow', () => {
  it('writes lines where there is no terminal, and none that says nothing new', async () => {
    const text = await written([
      'planning',
      'running · 2 to go',
      'running · 2 to go',
      'running\n· 1 to go',
      unreachable,
    ]);
    expect(text.split('\n').map((line) => line.replace(/ \d+ s/, ''))).toEqual([
      'assets · planning',
      'assets · running · 2 to go',
      'assets · running · 1 to go',
      'assets · Temporal does not answer',
      '',
    ]);
  });

  it('is quiet before the first pause has passed', async () => {
    const ended = new AbortController();
    let text = '';
    const out = { write: (more: string) => (text += more) };
    const watching = watch('assets', async () => 'running', ended.signal, out, 60_000);
    await sleep(20);
    ended.abort();
    await watching;
    expect(text).toBe('');
  });

  it('rewrites one line on a terminal, no wider than that, and takes it away', async () => {
    const text = await written(['running', 'x'.repeat(100)], { isTTY: true, columns: 30 });
    expect(text.split('\r\u001b[K')).toEqual(['', 'assets 0 s · running', `assets 0 s · ${'x'.repeat(16)}`, '']);
  });

  it('says once that no worker answers, with the command that starts one', async () => {
    const line = 'assets waits: no worker answers on the task queue sluice. Start one: npx sluice worker.\n';
    expect(await written([nobody, nobody, nobody, nobody])).toBe(line);
    // One late answer says nothing, and who was back and is gone again is told of again.
    const later = await written([nobody, 'running', nobody, nobody, 'running', 'done']);
    expect(later.replaceAll(/ \d+ s/g, '')).toBe(`assets · running\n${line}assets · done\n`);
    const terminal = await written([nobody, nobody, nobody], { isTTY: true });
    expect(terminal.split('\r\u001b[K')).toEqual(['', line, '']);
  });
});
