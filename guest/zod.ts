/**
 * Imported before anything that makes a schema: the agent reads most kinds of message once, and writing a program for each kind, as Zod does
 * by default, takes longer than reading it.
 */
import { config } from 'zod';

config({ jitless: true });
