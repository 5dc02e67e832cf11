// SPDX-License-Identifier: MPL-2.0
/** Figures of what plays, renewed twice a second. */
import type { NnvPlayer } from 'nnv-web/player';
import type { DecoderStats } from 'nnv-web';

const RENEWED = 500;
/** Delays that the median is of. */
const DELAYS = 50;

const STAGES: readonly (readonly [keyof DecoderStats['times'], string])[] = [
  ['predict', 'motion'],
  ['prior', 'prior network'],
  ['entropy', 'entropy'],
  ['synth', 'synthesis network'],
  ['pack', 'packing'],
  ['quantise', 'dequantising'],
  ['output', 'handing over'],
];

export class Facts {
  readonly #list: HTMLElement;
  readonly #player: NnvPlayer;
  readonly #values = new Map<string, HTMLElement>();
  #decoded: number[] = [];
  #delays: number[] = [];

  constructor(list: HTMLElement, player: NnvPlayer) {
    this.#list = list;
    this.#player = player;
    setInterval(() => void this.#renew(), RENEWED);
  }

  reset(): void {
    this.#decoded = [];
    this.#delays = [];
    this.#values.clear();
    this.#list.replaceChildren();
  }

  /** A picture was decoded. */
  decoded(): void {
    const now = performance.now();
    this.#decoded.push(now);
    while ((this.#decoded[0] ?? now) < now - 2000) this.#decoded.shift();
  }

  /** Milliseconds from drawing to decoding of a live picture; `undefined`: it shows no clock. */
  delay(milliseconds: number | undefined): void {
    if (milliseconds === undefined) return;
    this.#delays.push(milliseconds);
    if (this.#delays.length > DELAYS) this.#delays.shift();
  }

  async #renew(): Promise<void> {
    const now = performance.now();
    const recent = this.#decoded.filter((time) => time > now - 2000);
    const span = recent.length > 1 ? ((recent.at(-1) ?? 0) - (recent[0] ?? 0)) / 1000 : 0;
    if (span > 0) this.#set('Decoded now', `${((recent.length - 1) / span).toFixed(1)} pictures/s`);
    const { totalVideoFrames, droppedVideoFrames } = this.#player.getVideoPlaybackQuality();
    this.#set('Pictures', `${totalVideoFrames}, of which ${droppedVideoFrames} came too late`);
    if (this.#player.videoWidth > 0) {
      this.#set('Size', `${this.#player.videoWidth} × ${this.#player.videoHeight}`);
    }
    this.#showDelay();
    const stats = await this.#player.stats().catch(() => undefined);
    if (stats) this.#showStats(stats);
  }

  #showDelay(): void {
    if (this.#delays.length === 0) return;
    const sorted = [...this.#delays].sort((a, b) => a - b);
    const at = (share: number) => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
    this.#set('Delay', `${at(0.5)} ms (median), ${at(0.95)} ms (95 of 100), from drawing to here`);
  }

  #showStats(stats: DecoderStats): void {
    const { frames, times, networks, bundle, threads } = stats;
    this.#set('Networks', `${networks.way}: ${networks.why}`);
    if (bundle) this.#set('Bundle', `${bundle.name} ${bundle.hash.slice(0, 16)}`);
    this.#set('Threads', threads === 1 ? '1' : String(threads));
    if (frames > 0) {
      const each = (ms: number) => `${(ms / frames).toFixed(1)} ms`;
      this.#set('Time a picture', `${each(times.total)} in all`);
      for (const [stage, name] of STAGES) this.#set(`– ${name}`, each(times[stage]));
    }
    this.#set('Memory', `${(stats.memory / 2 ** 20).toFixed(0)} MiB of WebAssembly`);
    if (stats.firstFrame !== undefined) {
      this.#set('First picture', `${stats.firstFrame.toFixed(0)} ms after the decoder was set up`);
    }
    if (stats.concealed > 0) this.#set('Concealed', `${stats.concealed} pictures`);
  }

  #set(name: string, value: string): void {
    let cell = this.#values.get(name);
    if (!cell) {
      const term = document.createElement('dt');
      term.textContent = name;
      cell = document.createElement('dd');
      this.#list.append(term, cell);
      this.#values.set(name, cell);
    }
    if (cell.textContent !== value) cell.textContent = value;
  }
}
