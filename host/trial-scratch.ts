import { createHash, randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { pino } from 'pino';
import { join } from 'node:path';
const W = '/tmp/pd/wt/clone/';
const { newInstance } = await import(W + 'host/testing/fixture.ts');
const { newMachineId } = await import(W + 'protocol/ids.ts');
const { startHostService } = await import(W + 'host/service.ts');
const { QemuDriver } = await import(W + 'host/drivers/qemu/driver.ts');
const { Network } = await import(W + 'host/network/network.ts');
const { openImageStore } = await import(W + 'host/images/store.ts');
const { findVmParts } = await import(W + 'host/images/vm.ts');
const { Leases } = await import(W + 'host/system/leases.ts');
const { askAgent } = await import(W + 'host/drivers/vm/agent.ts');
const { audit } = await import(W + 'host/leaks.ts');
const { cgroupOfInstance } = await import(W + 'host/system/cgroups.ts');
import { mkdir } from 'node:fs/promises';
const kind = (process.argv[2] ?? 'cli') as 'cli';
const bench = newInstance();
const { config } = bench;
await mkdir(config.runDir, { recursive: true, mode: 0o711 });
const machinesFolder = join(config.dataDir, 'machines');
await mkdir(machinesFolder, { recursive: true });
const log = pino({ level: 'info' });
const signal = AbortSignal.timeout(900_000);
const idLeases = new Leases(join(config.sharedDir, 'ids'));
const network = await Network.open({ instance: config.instance, runFolder: config.runDir, idpStateFolder: join(config.dataDir, 'idp'), uplink: 'none', subnet: config.subnet, resolvers: undefined, forwardingFolder: join(config.sharedDir, 'forwarding'), hostNetns: undefined, idp: { checkout: config.checkout, nodePath: config.nodePath, script: 'testkit/idp/main.ts' }, uids: { routerDns: 1800000001, idpDns: 1800000002, idp: 1800000003 }, slowdown: 1, log }, [], signal);
const images = openImageStore(config.imageCacheDir, { runDir: config.runDir });
const driver = new QemuDriver({ instance: config.instance, accelerator: 'tcg', slowdown: Number(process.env.SLOW ?? 1), machinesFolder, runFolder: config.runDir, network, idLeases, images: { current: () => images.current(), layerFiles: (id: string) => images.layerFiles(id), vmParts: () => findVmParts({ cacheDir: config.imageCacheDir, checkout: config.checkout }) } });
const newSpec = (token: string) => ({ id: newMachineId(), kind, realm: 'test' as const, limits: { cpus: 2, memoryMiB: kind === 'cli' ? 1024 : 2048, pids: 1024 }, display: { width: 1280, height: 800 }, agentTokenHash: createHash('sha256').update(token).digest('hex') });
const ask = (m: any, token: string, path: string, body?: object) => askAgent((p: number, s: AbortSignal) => m.dial(p, s), { token, path, ...(body ? { body } : {}) }, AbortSignal.timeout(30000));
const sh = (m: any, token: string, script: string) => ask(m, token, '/v1/exec', { argv: ['sh', '-c', script], timeoutMs: 20000 });
const disk = (id: string, f = 'disk.img') => statSync(join(machinesFolder, id, f)).blocks * 512 / 1e6;
const rss = async (pid: number) => (await readFile(`/proc/${pid}/smaps_rollup`, 'utf8')).split('\n').filter((l) => /^(Rss|Anonymous|Pss|Private_Dirty):/.test(l)).join(' ').replace(/\s+/g, ' ');
let template: any;
try {
  let t = performance.now();
  template = await driver.makeTemplate(newSpec('x'), signal);
  console.log('template ms', Math.round(performance.now() - t));
  for (const f of await (await import('node:fs/promises')).readdir(machinesFolder)) console.log('template disk MB', disk(f, 'template.img'), 'devices', statSync(join(machinesFolder, f, 'devices')).size);
  const one = async (n: number) => {
    const token = randomBytes(16).toString('hex');
    const t = performance.now();
    const m = await template.start(newSpec(token), signal);
    const a = performance.now();
    const health = JSON.parse(await ask(m, token, '/health'));
    const b = performance.now();
    console.log(n, 'copy ms', Math.round(a - t), 'health', Math.round(b - a), 'ready', health.ready, JSON.stringify(health.stamps));
    return { m, token };
  };
  const copies = [await one(0), await one(1)];
  const cpu = async (pid: number) => { const f = (await readFile(`/proc/${pid}/stat`, 'latin1')).split(') ')[1]!.split(' '); return (Number(f[11]) + Number(f[12])) / 100; };
  for (let i = 0; i < 3; i++) { for (const { m } of copies) console.log('cpu s', await cpu(m.state.pid), 'disk MB', disk(m.id), await rss(m.state.pid)); await new Promise((r) => setTimeout(r, 10000)); }
  { const { readdirSync } = await import('node:fs'); for (const fd of readdirSync('/proc/self/fd')) { try { const { readlinkSync } = await import('node:fs'); if (readlinkSync(`/proc/self/fd/${fd}`).includes('polydev-template')) console.log('template memory MiB', statSync(`/proc/self/fd/${fd}`).blocks / 2048); } catch {} } }
  for (const { m, token } of copies.slice(0, 4)) {
    console.log(m.address, await sh(m, token, 'hostname; cat /etc/machine-id; cat /proc/sys/kernel/random/uuid; node -p "crypto.randomBytes(8).toString(\'hex\')"; ip -br addr; ip route; ip neigh; date +%s.%N; cat /etc/hosts'), Date.now() / 1000);
    console.log('disk MB', disk(m.id), await rss(m.state.pid));
    console.log(await sh(m, token, 'node -e \'const s=require("net").connect({host:"auth.openai.com",port:443,timeout:8000});s.on("connect",()=>{console.log("open");process.exit()}).on("error",e=>{console.log(e.message);process.exit()}).on("timeout",()=>{console.log("timeout");process.exit()})\''));
  }
  if (kind !== 'cli') console.log(await sh(copies[0]!.m, copies[0]!.token, 'xdotool search --name . getwindowname %@'));
  console.log(await ask(copies[0]!.m, copies[0]!.token, '/v1/log'));
  console.log((await copies[0]!.m.console()).slice(0, 600));
  // A copy sleeps and wakes.
  const c = copies[1]!;
  t = performance.now();
  await c.m.hibernate(signal);
  const again = await driver.resume(c.m.spec, signal);
  console.log('slept and woke', Math.round(performance.now() - t), await ask(again, c.token, '/health'));
  if (process.argv[3] === 'settle') { await new Promise((r) => setTimeout(r, 60000)); for (const { m } of copies) console.log('after 60 s: disk MB', disk(m.id), await rss(m.state.pid).catch(String)); }
} catch (e) {
  console.log('FAILED', e, (e as any).lines);
} finally {
  await template?.[Symbol.asyncDispose]();
  const { listIfThere } = await import(W + 'host/system/files.ts');
  for (const f of await listIfThere(machinesFolder)) await driver.reclaim(f, { disk: true });
  await driver[Symbol.asyncDispose]();
  await network[Symbol.asyncDispose]();
  console.log(await audit(config));
  const { rmSync } = await import('node:fs');
  rmSync(config.runDir, { recursive: true, force: true });
  bench[Symbol.dispose]();
}
process.exit(0);
