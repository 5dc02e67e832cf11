// See run.sh. CPU time of a page is that of its renderer process, as Chromium counts it.
import { execFileSync } from 'node:child_process';
import { loadavg } from 'node:os';
import { basename } from 'node:path';
import { launch, open } from '../tests/browser.mjs';
import { serve } from '../tests/server.mjs';

const streams = process.argv.slice(2);
const runs = Number(streams.splice(streams.indexOf('--runs'), 2)[1]);
const SMALL = new URL('../../tests/conformance/low-delay.nnv', import.meta.url).pathname;
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

/** Seconds of CPU time and of the clock that nnvdec takes, and its frames. */
function native(path) {
  const pipeline = `gst-launch-1.0 -q filesrc location="$1" ! nnvparse ! nnvdec threads=1 ! fakesink sync=false`;
  const script = `TIMEFORMAT="%U %S %R"; time ${pipeline}`;
  // `time` of bash goes to standard error.
  const out = execFileSync('bash', ['-c', `{ ${script}; } 2>&1`, 'bash', path], { encoding: 'utf8' });
  const [user, system, real] = out.trim().split('\n').at(-1).split(' ').map(Number);
  return { cpu: user + system, real };
}

const extra = Object.fromEntries(streams.map((path) => [`/bench/${basename(path)}`, path]));
const server = await serve({ extra });
const browser = await launch();
const cdp = await browser.newBrowserCDPSession();
const renderers = async () => {
  const { processInfo } = await cdp.send('SystemInfo.getProcessInfo');
  return processInfo.filter((p) => p.type === 'renderer').reduce((sum, p) => sum + p.cpuTime, 0);
};
console.log(`load ${loadavg()[0].toFixed(1)}, ${runs} runs, medians`);
try {
  for (const path of streams) {
    const rows = [];
    for (let run = 0; run < runs; run += 1) {
      const start = native(SMALL);
      const whole = native(path);
      const { page } = await open(browser, server.url);
      const go = (url) => page.evaluate((u) => globalThis.harness.decode(u, {}, { keep: false }), url);
      const begun = performance.now();
      await go('/conformance/low-delay.nnv');
      const first = performance.now() - begun;
      const before = await renderers();
      const got = await go(`/bench/${basename(path)}`);
      const cpu = await renderers() - before;
      await page.close();
      const frames = got.frames.length;
      const own = (whole.cpu - start.cpu) / frames * 1000;
      rows.push({
        frames, own, first,
        page: cpu / frames * 1000,
        ratio: cpu / frames * 1000 / own,
        worker: got.stats.times.total / frames,
        memory: got.stats.memory / 2 ** 20,
        times: Object.entries(got.stats.times).map(([name, ms]) => [name, ms / frames]),
        loaded: got.stats.loaded,
        firstFrame: got.stats.firstFrame,
      });
    }
    const mid = (name) => median(rows.map((row) => row[name]));
    const one = (n) => n.toFixed(1);
    console.log(`\n${basename(path)}: ${rows[0].frames} frames`);
    console.log(`  nnvdec threads=1   ${one(mid('own'))} ms of CPU time a frame`);
    console.log(`  page               ${one(mid('page'))} ms, ratio ${one(mid('ratio'))}`);
    console.log(`  Worker's clock     ${one(mid('worker'))} ms a frame, ${one(1000 / mid('worker'))} frames/s`);
    console.log(`  memory             ${one(mid('memory'))} MiB of WebAssembly`);
    console.log(`  networks loaded    ${one(mid('loaded'))} ms, first frame ${one(mid('firstFrame'))} ms after configure`);
    const names = rows[0].times.map(([name]) => name);
    const stages = names.map((name, i) => `${name} ${one(median(rows.map((row) => row.times[i][1])))}`);
    console.log(`  stages, ms         ${stages.join(', ')}`);
  }
} finally {
  await browser.close();
  await server.close();
}
