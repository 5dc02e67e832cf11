// SPDX-License-Identifier: MPL-2.0
/** The demo page: a film, its checksums beside `nnvdec`'s, figures; a file of yours; live. */
import { definePlayer, type NnvPlayer, type PlayedFrame } from 'nnv-web/player';
import { age } from './clock.js';
import { Facts } from './facts.js';
import { planes, Sums } from './sums.js';

/** Rows of checksums that are shown. */
const ROWS = 8;

/** What `server/clip.mjs` writes beside the clip. */
interface ClipSums {
  readonly rate: number;
  readonly md5: readonly string[];
}

function element<T extends Element>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no #${id}.`);
  return found as unknown as T;
}

definePlayer();
const player = element<NnvPlayer>('player');
const verdict = element<HTMLElement>('verdict');
const rows = element<HTMLTableSectionElement>('sums');
const clipButton = element<HTMLButtonElement>('clip');
const liveButton = element<HTMLButtonElement>('live');
const fileInput = element<HTMLInputElement>('file');
const sums = new Sums();
const facts = new Facts(element<HTMLElement>('facts'), player);

/** Checksums of the film that plays, if they are known; and what was found of each picture. */
let wanted: ClipSums | undefined;
let results = new Map<number, boolean>();
/** Counts the films, so that late checksums of the one before are not taken for this one's. */
let film = 0;

player.ondecoded = (played) => {
  facts.decoded();
  compare(played).catch((error: unknown) => console.warn('no checksum:', error));
};

async function compare({ frame, info }: PlayedFrame): Promise<void> {
  const of = film;
  const { timestamp } = frame;
  if (player.currentSrc.startsWith('ws')) {
    const luma = new Uint8Array(await planesOf(frame));
    if (of === film) facts.delay(age(luma, info.bitDepth === 8 ? frame.codedWidth : 0));
    return;
  }
  const sum = await sums.of(frame);
  if (of !== film || sum === undefined) return;
  const n = wanted ? Math.round((timestamp * wanted.rate) / 1e6) : undefined;
  const other = n === undefined ? undefined : wanted?.md5[n];
  if (n !== undefined && other !== undefined) results.set(n, other === sum);
  addRow(n === undefined ? `${(timestamp / 1e6).toFixed(3)} s` : String(n + 1), sum, other);
  judge();
}

async function planesOf(frame: VideoFrame): Promise<ArrayBuffer> {
  const copy = frame.clone();
  try {
    return await planes(copy);
  } finally {
    copy.close();
  }
}

function addRow(name: string, sum: string, other: string | undefined): void {
  const row = document.createElement('tr');
  const state = other === undefined ? 'unknown' : other === sum ? 'equal' : 'different';
  const words = { unknown: '–', equal: '✓ equal', different: '✗ different' }[state];
  for (const text of [name, words, shorten(sum), other === undefined ? '–' : shorten(other)]) {
    const cell = document.createElement('td');
    cell.textContent = text;
    if (text === words) cell.dataset['state'] = state;
    row.append(cell);
  }
  rows.prepend(row);
  while (rows.rows.length > ROWS) rows.deleteRow(-1);
}

function shorten(sum: string): string {
  return `${sum.slice(0, 4)}…${sum.slice(-4)}`;
}

function judge(): void {
  const different = [...results.values()].filter((equal) => !equal).length;
  const compared = results.size;
  const of = wanted ? `of ${wanted.md5.length} ` : '';
  if (!wanted) say('waiting', 'No checksums of nnvdec are known for this film');
  else if (compared === 0) say('waiting', 'Nothing compared yet');
  else if (different > 0) say('different', `✗ ${different} of ${compared} pictures differ`);
  else say('equal', `✓ Equal: ${compared} ${of}pictures, to the last bit`);
}

function say(state: string, text: string): void {
  verdict.dataset['state'] = state;
  // It is read out where it changes its kind, not with each picture.
  verdict.setAttribute('aria-live', verdict.dataset['said'] === state ? 'off' : 'polite');
  verdict.dataset['said'] = state;
  verdict.textContent = text;
}

function begin(button: HTMLElement | undefined, known: ClipSums | undefined): void {
  film += 1;
  wanted = known;
  results = new Map();
  rows.replaceChildren();
  facts.reset();
  for (const each of [clipButton, liveButton]) {
    each.setAttribute('aria-pressed', String(each === button));
  }
  judge();
}

async function playClip(): Promise<void> {
  const response = await fetch('clip/demo.json');
  const known = response.ok ? ((await response.json()) as ClipSums) : undefined;
  begin(clipButton, known);
  player.src = 'clip/demo.mp4';
  if (player.srcObject) player.srcObject = null;
}

function playLive(): void {
  begin(liveButton, undefined);
  say('waiting', 'Live pictures are not compared; their delay is measured');
  const url = new URL('live', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  player.src = url.href;
  if (player.srcObject) player.srcObject = null;
  player.play().catch(() => undefined);
}

function playFile(file: File): void {
  begin(undefined, undefined);
  player.srcObject = file;
  player.play().catch(() => undefined);
}

clipButton.addEventListener('click', () => void playClip());
liveButton.addEventListener('click', playLive);
fileInput.addEventListener('change', () => {
  const file = fileInput.files?.[0];
  if (file) playFile(file);
});
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dropping');
});
for (const name of ['dragleave', 'drop']) {
  document.addEventListener(name, () => document.body.classList.remove('dropping'));
}
document.addEventListener('drop', (event) => {
  event.preventDefault();
  const file = event.dataTransfer?.files[0];
  if (file) playFile(file);
});

void playClip();
