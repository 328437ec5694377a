/** Every provider by its id. */
import type { ProviderId } from '../protocol/ids.ts';
import { codex } from './codex.ts';
import type { Provider } from './provider.ts';

export const providers: Readonly<Record<ProviderId, Provider>> = { codex };
