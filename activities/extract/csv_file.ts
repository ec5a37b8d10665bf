/** A CSV file that is there whole or not at all: written under another name, made durable, then renamed. */
import { createHash, randomUUID } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { asSluiceError, SluiceError } from '../../model/errors.ts';
import { csvColumns } from './asset_row.ts';

/** Bytes that are written at once. */
const pieceBytes = 1024 * 1024;
/** Bytes that the sink is sent at once. */
const partBytes = 8 * 1024 * 1024;
/** Ends the names of files that are being written. */
export const draftEnding = '.draft';

/** A stretch of whole rows inside a file. */
export interface CsvPart {
  start: number;
  end: number;
  rows: number;
}

/** What a finished file is. */
export interface CsvSummary {
  /** Its name in the deployment's folder. */
  file: string;
  rows: number;
  bytes: number;
  sha256: string;
  /** Rows that cannot enter the copy as they are. */
  faulty: number;
}

export class CsvFile {
  readonly #folder: string;
  readonly #name: string;
  readonly #draft: string;
  readonly #handle: FileHandle;
  readonly #hash = createHash('sha256');
  readonly parts: CsvPart[] = [];
  #buffered: string[] = [];
  #bufferedLength = 0;
  #bytes = 0;
  #part: CsvPart = { start: 0, end: 0, rows: 0 };
  rows = 0;
  faulty = 0;

  private constructor(folder: string, name: string, draft: string, handle: FileHandle) {
    this.#folder = folder;
    this.#name = name;
    this.#draft = draft;
    this.#handle = handle;
  }

  /** Begins a file with its header, for the run `run`. Errors: `file_unwritable` when the folder cannot be written to. */
  static async create(folder: string, name: string, run: string): Promise<CsvFile> {
    try {
      await mkdir(folder, { recursive: true });
      // A predecessor that nobody believes alive may still write its own.
      const draft = path.join(folder, `.${name}.${run}-${randomUUID().slice(0, 8)}${draftEnding}`);
      const file = new CsvFile(folder, name, draft, await open(draft, 'wx+'));
      file.#append(`${csvColumns.join(',')}\n`);
      await file.#flush();
      file.#part = { start: file.#bytes, end: file.#bytes, rows: 0 };
      return file;
    } catch (error) {
      throw fileError(folder, error);
    }
  }

  /** Appends one row, a line as `csvLine` makes it. */
  async writeRow(line: string, faulty: boolean): Promise<void> {
    this.#append(line);
    this.rows++;
    this.#part.rows++;
    if (faulty) this.faulty++;
    if (this.#bufferedLength >= pieceBytes) await this.#flush();
  }

  /** The bytes of a part; after `finish`. */
  async read(part: CsvPart): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(part.end - part.start);
    await this.#handle.read(bytes, 0, bytes.length, part.start);
    return bytes;
  }

  /** A stream of the whole file; after `finish`. */
  stream(): NodeJS.ReadableStream {
    return this.#handle.createReadStream({ start: 0, autoClose: false });
  }

  /** Makes the file durable under its own name. */
  async finish(): Promise<CsvSummary> {
    try {
      await this.#flush();
      this.#endPart();
      await this.#handle.sync();
      await rename(this.#draft, path.join(this.#folder, this.#name));
      await syncFolder(this.#folder);
    } catch (error) {
      throw fileError(this.#folder, error);
    }
    const { rows, faulty } = this;
    return { file: this.#name, rows, bytes: this.#bytes, sha256: this.#hash.digest('hex'), faulty };
  }

  /** Closes it; a file that was not finished disappears. */
  async close(): Promise<void> {
    await this.#handle.close().catch(() => {});
    await rm(this.#draft, { force: true });
  }

  #append(line: string): void {
    this.#buffered.push(line);
    this.#bufferedLength += line.length;
  }

  async #flush(): Promise<void> {
    const bytes = Buffer.from(this.#buffered.join(''));
    this.#buffered = [];
    this.#bufferedLength = 0;
    this.#hash.update(bytes);
    // All of it, whatever the system takes at once.
    for (let at = 0; at < bytes.length; ) {
      at += (await this.#handle.write(bytes, at, bytes.length - at, this.#bytes + at)).bytesWritten;
    }
    this.#bytes += bytes.length;
    if (this.#bytes - this.#part.start >= partBytes) this.#endPart();
  }

  #endPart(): void {
    if (this.#part.rows === 0) return;
    this.parts.push({ ...this.#part, end: this.#bytes });
    this.#part = { start: this.#bytes, end: this.#bytes, rows: 0 };
  }
}

/** Milliseconds after which a draft that nobody writes to is nobody's any more. */
const abandoned = 86_400_000;

/** Removes what earlier attempts of a run have left of files whose names begin with `prefix`, and what others left long ago. */
export async function removeDrafts(folder: string, prefix: string, run: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.startsWith(`.${prefix}`) || !name.endsWith(draftEnding)) continue;
    const file = path.join(folder, name);
    const age = async () => Date.now() - ((await stat(file).catch(() => undefined))?.mtimeMs ?? 0);
    if (name.includes(`.${run}-`) || (await age()) > abandoned) await rm(file, { force: true });
  }
}

/** Writes a small file whole. */
export async function writeWhole(folder: string, name: string, text: string): Promise<void> {
  const draft = path.join(folder, `.${name}.${randomUUID().slice(0, 8)}${draftEnding}`);
  try {
    await mkdir(folder, { recursive: true });
    const handle = await open(draft, 'wx');
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, path.join(folder, name));
    await syncFolder(folder);
  } catch (error) {
    throw fileError(folder, error);
  }
}

/** A rename is durable when its folder is. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A full disk or a lost right may be mended while it is tried again. */
export function fileError(folder: string, error: unknown): SluiceError {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === undefined) return asSluiceError(error);
  const remedy = 'See that the folder can be written to and that its disk has room; it is tried again by itself.';
  return new SluiceError('file_unwritable', `files cannot be written: ${code}`, remedy, { file: folder }, error);
}
