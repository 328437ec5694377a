/** The private disk of a machine that does not exist yet: what is put here lies over the image from its first moment. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { firstIdOf } from '../../host/system/ids.ts';

/** The last of the ranges that the driver gives, so that no other machine of this run has taken it. */
const FIRST_ID = firstIdOf(4095);

export class Disk {
  readonly #folder: string;
  readonly #upper: string;
  readonly #firstId: number;

  /**
   * @param folder the machine's folder in the data directory of its host service
   * @param firstId the host id of the machine's root
   */
  constructor(folder: string, firstId = FIRST_ID) {
    this.#folder = folder;
    this.#firstId = firstId;
    this.#upper = path.join(folder, 'upper');
  }

  /** The disk is made at the first change; a machine without one gets a new disk, as usual. */
  #place(file: string, owner: number): string {
    this.#own(this.#upper, 0);
    let folder = this.#upper;
    const parts = file.split('/').filter((part) => part !== '');
    const name = parts.pop() ?? '';
    for (const part of parts) {
      folder = path.join(folder, part);
      this.#own(folder, folder.includes('/upper/home/person') ? owner : 0);
    }
    return path.join(folder, name);
  }

  #own(folder: string, owner: number): void {
    if (existsSync(folder)) return;
    mkdirSync(folder, { recursive: true });
    chmodSync(folder, 0o755);
    chownSync(folder, this.#firstId + owner, this.#firstId + owner);
  }

  /** Puts a file at an absolute path of the machine. `owner` is an id inside it. */
  write(file: string, content: string | Buffer, mode = 0o755, owner = 0): void {
    const target = this.#place(file, owner);
    rmSync(target, { force: true });
    writeFileSync(target, content, { mode });
    chmodSync(target, mode);
    chownSync(target, this.#firstId + owner, this.#firstId + owner);
  }

  link(file: string, to: string, owner = 0): void {
    const target = this.#place(file, owner);
    symlinkSync(to, target);
    execFileSync('chown', ['-h', `${this.#firstId + owner}:${this.#firstId + owner}`, target]);
  }

  /** Hides a file of the image. */
  remove(file: string): void {
    execFileSync('mknod', [this.#place(file, 0), 'c', '0', '0']);
  }

  /** Moves the disk onto a file system of its own of this size. Returns what unmounts it. */
  limit(kib: number): () => void {
    const small = `${this.#folder}-small`;
    mkdirSync(small, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${kib}k,mode=755`, 'small', small]);
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    for (const name of ['upper', 'work']) {
      mkdirSync(path.join(small, name), { mode: 0o755 });
      chownSync(path.join(small, name), this.#firstId, this.#firstId);
      symlinkSync(path.join(small, name), path.join(this.#folder, name));
    }
    return () => {
      execFileSync('umount', ['-l', small]);
      rmSync(small, { recursive: true, force: true });
    };
  }
}
