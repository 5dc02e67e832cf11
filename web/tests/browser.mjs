// Chromium for the tests and the benchmark.
import { chromium } from 'playwright-core';

export const executablePath = process.env.CHROMIUM || '/usr/bin/chromium';

export function launch(args = []) {
  return chromium.launch({
    executablePath,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', ...args,
    ],
  });
}

/** Opens a page whose harness is there. */
export async function open(browser, url, { from, script } = {}) {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  if (script) await page.addInitScript(script);
  await page.goto(from ? `${url}?from=${encodeURIComponent(from)}` : url);
  const ready = await page.waitForSelector('body[data-ready]', { state: 'attached', timeout: 30_000 })
    .catch(() => null);
  if (!ready) throw new Error(`the page does not come up: ${errors.join('; ')}`);
  return { page, errors };
}
