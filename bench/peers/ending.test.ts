import { expect, test } from 'vitest';
import { Ending } from './ending.ts';

test('ends newest first, once, and goes on behind what cannot be ended', async () => {
  const ended: string[] = [];
  const ending = new Ending();
  ending.add(() => ended.push('first'));
  ending.add(async () => {
    throw new Error('this one is broken, as the test wants it');
  });
  ending.add(async () => {
    await new Promise((resolve) => setTimeout(resolve, 10));
    ended.push('last');
  });
  await Promise.all([ending.end(), ending.end()]);
  expect(ended).toEqual(['last', 'first']);
});

test('what begins while all ends is ended, too', async () => {
  const ended: string[] = [];
  const ending = new Ending();
  ending.add(() => ended.push('early'));
  await ending.end();
  ending.add(() => ended.push('late'));
  await ending.end();
  expect(ended).toEqual(['early', 'late']);
});

test('an inner one ends with its work, also when that fails, and with the outer one', async () => {
  const ended: string[] = [];
  const ending = new Ending();
  const failing = ending.within(async (own) => {
    own.add(() => ended.push('inner'));
    throw new Error('no');
  });
  await expect(failing).rejects.toThrow('no');
  expect(ended).toEqual(['inner']);

  let free = () => {};
  const running = ending.within(async (own) => {
    own.add(() => ended.push('running'));
    await new Promise<void>((resolve) => {
      free = resolve;
    });
  });
  await ending.end();
  expect(ended).toEqual(['inner', 'running']);
  free();
  await running;
});
