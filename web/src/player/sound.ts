// SPDX-License-Identifier: MPL-2.0
/** Sound through an `AudioContext`, and the clock that pictures follow. */
import type { SoundTrack } from './media.js';

/** Seconds of sound that are handed to the context ahead of time. */
const AHEAD = 1;

/** Seconds from the order to begin to the first sample, so that the first pieces are ready. */
const LEAD = 0.05;

/** Sound faster or slower than this cannot be followed by ear, and browsers mute it, too. */
const AUDIBLE_RATES = [0.25, 4] as const;

/** Time of the film while it plays. Follows the sound card where sound runs, else the page's clock. */
export class Clock {
  #context: AudioContext | undefined;
  #rate = 1;
  /** Time of the film at `#origin` of the clock behind. */
  #time = 0;
  #origin: number | undefined;

  /** Seconds of the film. */
  get time(): number {
    if (this.#origin === undefined) return this.#time;
    return this.#time + Math.max(0, this.#now() - this.#origin) * this.#rate;
  }

  get running(): boolean {
    return this.#origin !== undefined;
  }

  /** Runs from `time` on. With `context`, time passes as that plays, and from `at` of its own. */
  run(time: number, rate: number, context?: AudioContext, at?: number): void {
    this.#context = context;
    this.#rate = rate;
    this.#time = time;
    this.#origin = at ?? this.#now();
  }

  /** Stands still, at `time` or where it is. */
  stop(time = this.time): void {
    this.#time = time;
    this.#origin = undefined;
  }

  #now(): number {
    return this.#context ? this.#context.currentTime : performance.now() / 1000;
  }
}

/** Plays one track of sound along a clock. */
export class Sound {
  /** Pieces handed to the context since the beginning; for tests and statistics. */
  scheduled = 0;
  readonly #track: SoundTrack;
  readonly #context: AudioContext;
  readonly #gain: GainNode;
  readonly #onerror: (error: unknown) => void;
  readonly #sources = new Set<AudioBufferSourceNode>();
  /** Counts the runs: an older one stops by itself. */
  #run = 0;

  /** `onstopped`: the system took the sound card away, as for a call; its clock stands still. */
  constructor(track: SoundTrack, onerror: (error: unknown) => void, onstopped: () => void) {
    this.#track = track;
    this.#onerror = onerror;
    this.#context = new AudioContext({ latencyHint: 'interactive' });
    let ran = false;
    this.#context.onstatechange = () => {
      if (ran && !this.running) onstopped();
      ran = this.running;
    };
    this.#gain = new GainNode(this.#context);
    this.#gain.connect(this.#context.destination);
  }

  /** Loudness from 0 to 1, muted or not. */
  set volume(value: number) {
    // Short, so that no click is heard.
    this.#gain.gain.setTargetAtTime(value, this.#context.currentTime, 0.01);
  }

  get running(): boolean {
    return this.#context.state === 'running';
  }

  /** Lets the context run; `false` where the browser waits for the user to touch the page. */
  async resume(): Promise<boolean> {
    if (this.running) return true;
    const late = new Promise<void>((resolve) => setTimeout(resolve, 300));
    // It stays pending until the user touches the page.
    await Promise.race([this.#context.resume().catch(() => undefined), late]);
    return this.running;
  }

  /** Plays from `time` of the film on, and lets `clock` follow. */
  start(time: number, rate: number, clock: Clock): void {
    this.stop();
    const run = this.#run;
    const at = this.#context.currentTime + LEAD;
    // What is heard now left the context that long ago.
    const latency = this.#context.outputLatency || this.#context.baseLatency || 0;
    clock.run(time, rate, this.#context, at + latency);
    if (rate < AUDIBLE_RATES[0] || rate > AUDIBLE_RATES[1]) return;
    this.#feed(run, time, rate, at).catch((error: unknown) => {
      if (run === this.#run) this.#onerror(error);
    });
  }

  stop(): void {
    this.#run += 1;
    for (const source of this.#sources) {
      source.onended = null;
      source.stop();
      source.disconnect();
    }
    this.#sources.clear();
  }

  close(): void {
    this.stop();
    this.#context.onstatechange = null;
    this.#context.close().catch(() => undefined);
  }

  async #feed(run: number, time: number, rate: number, at: number): Promise<void> {
    for await (const { buffer, timestamp } of this.#track.pieces(time)) {
      if (run !== this.#run) return;
      // Negative for a piece that began before.
      const offset = (timestamp - time) / rate;
      this.#schedule(buffer, at + offset, Math.max(at, this.#context.currentTime), rate);
      const wait = at + offset - AHEAD - this.#context.currentTime;
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait * 1000));
      if (run !== this.#run) return;
    }
  }

  /** Plays `buffer` at `at`; of one that begins before `earliest`, what is left from there. */
  #schedule(buffer: AudioBuffer, at: number, earliest: number, rate: number): void {
    const gone = Math.max(0, earliest - at) * rate;
    if (gone >= buffer.duration) return;
    const source = new AudioBufferSourceNode(this.#context, { buffer, playbackRate: rate });
    source.connect(this.#gain);
    source.onended = () => {
      source.disconnect();
      this.#sources.delete(source);
    };
    source.start(Math.max(at, earliest), gone);
    this.#sources.add(source);
    this.scheduled += 1;
  }
}
