/** A browser for tests and pictures: the one that is there, else one that is installed for it. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { promisify } from 'node:util';
import { type Browser, chromium } from 'playwright-core';

const run = promisify(execFile);
const usual = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/snap/bin/chromium'];

/** Opens a browser; up to some minutes when it must be installed first. Errors: what was tried, and what to do. */
export async function openChromium(): Promise<Browser> {
  const executablePath = found() ?? (await install());
  // Chromium's own sandbox needs a user that is not root.
  return await chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] });
}

function found(): string | undefined {
  const named = process.env.CHROMIUM_PATH;
  if (named) return named;
  return [...usual, chromium.executablePath()].find((program) => existsSync(program));
}

async function install(): Promise<string> {
  const tried: string[] = [];
  for (const [program, ...args] of installers()) {
    await run(program!, args, {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      maxBuffer: 64 << 20,
    }).catch((error: Error) => tried.push(error.message.slice(0, 500)));
    const program_ = found();
    if (program_ !== undefined) return program_;
  }
  const remedy = 'Install Chromium, or set CHROMIUM_PATH to a Chromium or Chrome that is there.';
  throw new Error(`there is no browser, and it could not be installed. ${remedy}\n${tried.join('\n')}`);
}

/** Debian's package where this user may install it, else the build that playwright knows. */
function installers(): string[][] {
  const own = path.join(path.dirname(createRequire(import.meta.url).resolve('playwright-core/package.json')), 'cli.js');
  const debian = process.getuid?.() === 0 && existsSync('/usr/bin/apt-get');
  return [
    ...(debian
      ? [
          ['apt-get', 'update'],
          ['apt-get', 'install', '-y', 'chromium'],
        ]
      : []),
    [process.execPath, own, 'install', 'chromium'],
  ];
}
