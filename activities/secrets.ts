/**
 * Connection strings on their way through Temporal: sealed with AES-256-GCM, or a reference such as `${DATABASE_URL}`.
 * The API and the CLI seal; activities open, and who tries a rule on rows of a source, so that no row travels through
 * Temporal.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { SluiceError } from '../model/errors.ts';

const prefix = 'sealed:v1:';
const reference = /^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$/;

function keyFrom(secret: string): Buffer {
  return createHash('sha256').update(`sluice:${secret}`).digest();
}

/** True for what may stand in a flow's input: sealed, or an environment reference. */
export function isSealed(text: string): boolean {
  return text.startsWith(prefix) || reference.test(text);
}

/** Seals a secret for its source. A reference stays as it is: its value is read where it is used. */
export function seal(plain: string, secretKey: string): string {
  if (isSealed(plain)) return plain;
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', keyFrom(secretKey), nonce);
  const sealed = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()]);
  return prefix + Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64url');
}

/** The secret itself. Throws `configuration` when the variable is not set, the key is another, or the text is damaged. */
export function open(sealed: string, secretKey: string, environment: NodeJS.ProcessEnv = process.env): string {
  const name = reference.exec(sealed)?.[1];
  if (name !== undefined) {
    const value = environment[name];
    if (value) return value;
    throw new SluiceError(
      'configuration',
      `the environment variable ${name} is not set`,
      `Set ${name} where the worker runs.`,
    );
  }
  if (!sealed.startsWith(prefix)) {
    throw new SluiceError(
      'configuration',
      'the connection string is neither sealed nor an environment reference',
      'Connect by `sluice sources connect` or POST /api/v1/sources/connect, which seal it, or write ${DATABASE_URL}.',
    );
  }
  try {
    const bytes = Buffer.from(sealed.slice(prefix.length), 'base64url');
    const decipher = createDecipheriv('aes-256-gcm', keyFrom(secretKey), bytes.subarray(0, 12));
    decipher.setAuthTag(bytes.subarray(12, 28));
    return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString('utf8');
  } catch (error) {
    throw new SluiceError(
      'configuration',
      'the sealed connection string cannot be opened with this key',
      'Set SLUICE_SECRET_KEY to the key that it was sealed with, or connect the source again.',
      {},
      error,
    );
  }
}

/** Takes credentials out of a text before anybody sees it. */
export function redact(text: string): string {
  return text
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@]*@/gi, '$1***@')
    .replace(/\b(password|passwd|pwd|secret|token)(\s*[=:]\s*)('[^']*'|"[^"]*"|[^\s&,;]+)/gi, '$1$2***');
}
