/**
 * Reads files of systemd's journal that an untrusted guest wrote: nothing here trusts an offset, a length or a count, and the
 * work is bounded by the size of the file. Layout: systemd's documentation of the journal file format (252: also its compact
 * form), little-endian throughout.
 */
import { zstdDecompressSync } from 'node:zlib';
import { redact } from '../../protocol/redact.ts';

const SIGNATURE = 'LPKSHHRH';
const FLAGS_AT = 12;
const COMPACT = 16;
const HEADER_SIZE_AT = 88;
const OBJECT_HEADER = 16;
const DATA = 1;
const ENTRY = 3;
/** Of an entry: the microseconds since 1970 and where its items begin. */
const REALTIME_AT = 24;
const ITEMS_AT = 64;
const ZSTD = 4;
const COMPRESSED = 7;
/** An entry has about 20 fields; a field that is longer than a line of evidence is cut. */
const MAX_ITEMS = 64;
const MAX_FIELD = 16 * 1024;

interface Entry {
  /** Microseconds since 1970. */
  readonly time: number;
  readonly file: Buffer;
  readonly at: number;
  readonly size: number;
}

const u64 = (file: Buffer, at: number): number => Number(file.readBigUInt64LE(at));

/** Every entry of one file, in the order in which they were written; stops at the first thing that cannot be one. */
function entriesOf(file: Buffer): Entry[] {
  if (file.length < 272 || file.toString('latin1', 0, 8) !== SIGNATURE) return [];
  const entries: Entry[] = [];
  let at = u64(file, HEADER_SIZE_AT);
  while (at >= 0 && at + OBJECT_HEADER <= file.length) {
    const size = u64(file, at + 8);
    if (size < OBJECT_HEADER || at + size > file.length) break;
    if (file[at] === ENTRY && size >= ITEMS_AT)
      entries.push({ time: u64(file, at + REALTIME_AT), file, at, size });
    at = Math.ceil((at + size) / 8) * 8;
  }
  return entries;
}

/** `NAME=value` of the data object at `at`; undefined when there is none. */
function fieldAt(file: Buffer, at: number, compact: boolean): string | undefined {
  if (at < 0 || at + OBJECT_HEADER > file.length || file[at] !== DATA) return undefined;
  const size = u64(file, at + 8);
  const from = at + (compact ? 72 : 64);
  const to = Math.min(at + size, file.length);
  if (to <= from) return undefined;
  const flags = file[at + 1] ?? 0;
  if ((flags & COMPRESSED) === 0) return file.toString('utf8', from, Math.min(to, from + MAX_FIELD));
  if ((flags & COMPRESSED) !== ZSTD) return 'MESSAGE=[compressed]';
  try {
    const plain = zstdDecompressSync(file.subarray(from, to), { maxOutputLength: 1024 * 1024 });
    return plain.toString('utf8', 0, MAX_FIELD);
  } catch {
    return 'MESSAGE=[compressed]';
  }
}

function fieldsOf({ file, at, size }: Entry): Map<string, string> {
  const compact = (file.readUInt32LE(FLAGS_AT) & COMPACT) !== 0;
  const width = compact ? 4 : 16;
  const count = Math.min(Math.floor((size - ITEMS_AT) / width), MAX_ITEMS);
  const fields = new Map<string, string>();
  for (let index = 0; index < count; index++) {
    const item = at + ITEMS_AT + index * width;
    const field = fieldAt(file, compact ? file.readUInt32LE(item) : u64(file, item), compact);
    const equals = field?.indexOf('=') ?? -1;
    if (field !== undefined && equals > 0) fields.set(field.slice(0, equals), field.slice(equals + 1));
  }
  return fields;
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** As `journalctl --output=short-precise --utc` writes the time. */
function timeOf(microseconds: number): string {
  const date = new Date(Math.floor(microseconds / 1000));
  if (Number.isNaN(date.getTime())) return '(no time)';
  const [, clock = ''] = /T(.*)\.\d+Z$/.exec(date.toISOString()) ?? [];
  const day = String(date.getUTCDate()).padStart(2, '0');
  return `${MONTHS[date.getUTCMonth()]} ${day} ${clock}.${String(microseconds % 1_000_000).padStart(6, '0')}`;
}

const TAB = ' '.repeat(8);
/** Everything that is no text is shown as a question mark: it could write anything on the terminal of who reads it. */
const NO_TEXT = /[\u0000-\u0008\u000b-\u001a\u001c-\u001f\u007f]/g;

function lineOf(entry: Entry): string {
  const fields = fieldsOf(entry);
  const program = fields.get('SYSLOG_IDENTIFIER') ?? fields.get('_COMM') ?? 'unknown';
  const pid = fields.get('_PID') ?? fields.get('SYSLOG_PID');
  // When it was said, where that is known, rather than when it was written down.
  const said = Number(fields.get('_SOURCE_REALTIME_TIMESTAMP'));
  const time = timeOf(Number.isSafeInteger(said) && said > 0 ? said : entry.time);
  const head = `${time} ${fields.get('_HOSTNAME') ?? '-'} ${program}${pid === undefined ? '' : `[${pid}]`}: `;
  const text = (fields.get('MESSAGE') ?? '').replaceAll('\t', TAB).replace(NO_TEXT, '?');
  return text
    .split('\n')
    .map((line, index) => redact(index === 0 ? head + line : ' '.repeat(head.length) + line))
    .join('\n');
}

/** The last entries of all files, oldest first, one line or more each, as journalctl's short-precise; redacted. */
export function journalText(files: readonly Buffer[], most: { entries: number; characters: number }): string {
  const entries = files
    .flatMap(entriesOf)
    .sort((a, b) => a.time - b.time)
    .slice(-most.entries);
  const lines: string[] = [];
  let left = most.characters;
  for (const entry of entries.reverse()) {
    const line = `${lineOf(entry)}\n`;
    left -= line.length;
    if (left < 0) break;
    lines.push(line);
  }
  return lines.reverse().join('');
}
