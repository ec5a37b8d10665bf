/** The keys that live in a table, as the generator knows them: picked at random, and put back when it rolls back. */
import type { Random } from './random.ts';

export class LiveIds {
  readonly #ids: number[] = [];
  readonly #places = new Map<number, number>();
  /** What to undo, newest last: a positive id was added, a negative one removed. */
  #undo: number[] = [];

  get size(): number {
    return this.#ids.length;
  }

  /** Makes these ids, and no others, the live ones. */
  replace(ids: Iterable<number>): void {
    this.#ids.length = 0;
    this.#places.clear();
    for (const id of ids) this.#put(id);
    this.#undo = [];
  }

  add(ids: readonly number[]): void {
    for (const id of ids) if (this.#put(id)) this.#undo.push(id);
  }

  remove(ids: readonly number[]): void {
    for (const id of ids) if (this.#take(id)) this.#undo.push(-id);
  }

  /** A point to roll back to. */
  mark(): number {
    return this.#undo.length;
  }

  rollback(mark: number): void {
    for (const entry of this.#undo.splice(mark).reverse()) {
      if (entry > 0) this.#take(entry);
      else this.#put(-entry);
    }
  }

  commit(): void {
    this.#undo = [];
  }

  /** Up to `count` different ids. */
  pick(random: Random, count: number): number[] {
    const picked = new Set<number>();
    for (let tries = Math.min(count, this.size); tries > 0; tries--) picked.add(random.pick(this.#ids));
    return [...picked];
  }

  #put(id: number): boolean {
    if (this.#places.has(id)) return false;
    this.#places.set(id, this.#ids.length);
    this.#ids.push(id);
    return true;
  }

  #take(id: number): boolean {
    const place = this.#places.get(id);
    if (place === undefined) return false;
    const last = this.#ids.pop()!;
    if (last !== id) {
      this.#ids[place] = last;
      this.#places.set(last, place);
    }
    this.#places.delete(id);
    return true;
  }
}
