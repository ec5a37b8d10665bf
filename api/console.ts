/** The web page: one file that loads nothing from elsewhere. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { FastifyInstance } from 'fastify';
import { projectFolder } from '../workers/settings.ts';
import type { Control } from './control/control.ts';

export function addConsole(app: FastifyInstance, control: Control): void {
  const page = readFileSync(path.join(projectFolder, 'console', 'index.html'), 'utf8');
  const policy = contentPolicy(page);
  app.get('/', { schema: { hide: true } }, (_request, reply) => {
    return reply
      .header('content-security-policy', policy)
      .header('referrer-policy', 'no-referrer')
      .type('text/html; charset=utf-8')
      .send(page.replaceAll('{{temporal_ui}}', escapeAttribute(control.settings.temporalUi)));
  });
  app.get('/favicon.ico', { schema: { hide: true } }, (_request, reply) => reply.code(204).send());
}

/** Only the script and the style of the page itself run: they are named by their hashes. */
export function contentPolicy(page: string): string {
  const hashes = (tag: string) =>
    [...page.matchAll(new RegExp(`<${tag}>(.*?)</${tag}>`, 'gs'))]
      .map(
        (match) =>
          `'sha256-${createHash('sha256')
            .update(match[1] ?? '')
            .digest('base64')}'`,
      )
      .join(' ');
  return (
    `default-src 'none'; script-src ${hashes('script')}; style-src ${hashes('style')}; connect-src 'self'; ` +
    `base-uri 'none'; form-action 'none'; frame-ancestors 'none'`
  );
}

function escapeAttribute(text: string): string {
  return text.replace(/[&"<>]/g, (char) => `&#${char.charCodeAt(0)};`);
}
