// Opens a page of `nnv inspect` in Chromium and uses it as people do.
//
//   node inspect.mjs PAGE [FOLDER FOR SCREENSHOTS]
//
// PLAYWRIGHT: folder of playwright-core. Prints one line of JSON, or fails with what is wrong.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT);
const [page_path, shots] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});

/** Whether a canvas shows more than one colour. */
const drawn = (page, id) => page.$eval(id, (canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
  return colours.size;
});
const hash = (page, id) => page.$eval(id, (canvas) => canvas.toDataURL().length + canvas.toDataURL().slice(-200));
const settled = (page, frame) => page.waitForFunction((n) => document.body.dataset.frame === String(n), frame);

let said = null;
try {
  for (const [width, scheme] of [[1280, 'light'], [1280, 'dark'], [400, 'light'], [400, 'dark']]) {
    const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme });
    const page = await context.newPage();
    const errors = [];
    page.on('pageerror', (e) => errors.push(String(e)));
    page.on('console', (m) => m.type() === 'error' && errors.push(m.text()));
    page.on('request', (r) => {
      if (!/^(file|data|blob):/.test(r.url())) errors.push('asks the network: ' + r.url());
    });
    await page.goto(pathToFileURL(page_path).href);
    const there = await page.waitForFunction(() => document.body.dataset.frame !== undefined, undefined, { timeout: 20000 })
      .catch(() => null);
    assert.ok(there, 'the page does not come up: ' + errors.join('; '));
    const frames = await page.evaluate(() => JSON.parse(document.getElementById('data').textContent).frames);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${width}: the page is ${overflow} px too wide`);

    // A click on a frame's place in a chart chooses it and shows its motion field.
    const inter = frames.map((f, i) => (f.kind === 'inter' ? i : -1)).filter((i) => i >= 0);
    const target = inter[Math.floor(inter.length / 2)];
    const over = page.locator('.u-over').nth(1);
    await over.scrollIntoViewIfNeeded();
    const box = await over.boundingBox();
    const x = ((target + 0.5) / frames.length) * box.width;
    await page.mouse.click(box.x + x, box.y + box.height / 2);
    await settled(page, target);
    assert.equal(await page.textContent('#number'), String(target));
    assert.ok((await drawn(page, '#motion')) > 8, 'no motion field');
    assert.match(await page.textContent('#motion-scale'), /longest/);
    assert.ok((await drawn(page, '#map')) > 8, 'no map of bits');
    const natural = await page.$eval('#prediction', (img) => img.naturalWidth);
    assert.ok(natural > 60, 'no prediction');

    // Keys: the next frame has another field.
    const before = await hash(page, '#motion');
    const next = inter.find((i) => i > target);
    for (let i = target; i < next; i++) await page.keyboard.press('ArrowRight');
    await settled(page, next);
    assert.notEqual(await hash(page, '#motion'), before, 'the same motion field');
    await page.keyboard.press('Home');
    await settled(page, 0);
    assert.equal(frames[0].kind, 'key');
    assert.ok(await page.$eval('#motion', (c) => c.parentNode.classList.contains('none')));
    await page.keyboard.press('End');
    await settled(page, frames.length - 1);
    await page.keyboard.press(',');
    const key = frames.map((f) => f.kind).lastIndexOf('key');
    await settled(page, key === frames.length - 1 ? frames.map((f) => f.kind).lastIndexOf('key', key - 1) : key);
    assert.match(page.url(), /#frame=\d+$/);

    // Back to the frame in the middle: its numbers under the pointer, another map.
    await page.goto(pathToFileURL(page_path).href + '#frame=' + target);
    await settled(page, target);
    await page.locator('#motion').hover();
    assert.match(await page.textContent('#place'), /latent .* bits · motion .* from frame \d+/);
    const maps = new Set();
    for (const name of ['latent', 'hyper', 'motion', 'all']) {
      await page.selectOption('#which', name);
      assert.ok((await drawn(page, '#map')) > 8);
      maps.add(await hash(page, '#map'));
    }
    assert.equal(maps.size, 4, 'two maps are the same');
    // Every control has a name, and can be reached by keys.
    const nameless = await page.$$eval('button, input, select', (all) => all.filter((e) =>
      !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim()).length);
    assert.equal(nameless, 0);
    if (shots) {
      mkdirSync(shots, { recursive: true });
      await page.screenshot({ path: `${shots}/inspect-${width}-${scheme}.png`, fullPage: true });
    }
    assert.deepEqual(errors, []);
    said = { frames: frames.length, target, looked: (said?.looked ?? 0) + 1 };
    await context.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(said));
