// SPDX-License-Identifier: MPL-2.0
/**
 * What plays: packets into the decoder, pictures out of it, each shown at its time. It knows no
 * elements and no controls. Everything in here is bounded: packets wait in the file, not in the
 * decoder, and pictures for at most `PICTURES` and `PICTURE_BYTES`.
 */
import type { FrameInfo } from '../types.js';
import { asPlayerError, MediaErrorCode, PlayerError } from './errors.js';
import type { Media, Packet } from './media.js';
import { Clock, Sound } from './sound.js';

/** Packets that wait in the decoder: enough that its Worker never waits for the page. */
const PACKETS = 4;
/** Packets that wait for a live picture before it skips to the next key frame. */
const LIVE_PACKETS = 5;
/** Pictures that wait to be shown: key frames take longer to decode than the others. */
const PICTURES = 32;
/** Bytes of the pictures that wait, and how many there are however large they are. */
const PICTURE_BYTES = 48 * 1024 * 1024;
const LEAST_PICTURES = 3;
/** Seconds of pictures ahead before playing begins, and before it goes on after it had to wait. */
const START_AHEAD = 0.1;
const RESUME_AHEAD = 0.5;
/** Seconds without a picture before playing stops to wait; longer where nobody looks. */
const PATIENCE = 0.25;
const HIDDEN_PATIENCE = 3;
/** Time between two `timeupdate` events, ms. */
const TIMEUPDATE = 250;

const MICRO = 1_000_000;

/** What the player needs of `NnvDecoder`. */
export interface PictureDecoder {
  readonly decodeQueueSize: number;
  set ondequeue(callback: (() => void) | null);
  decode(packet: Packet): void;
  flush(): Promise<void>;
  /** Drops what it holds and makes ready for a key frame. */
  restart(): void;
  close(): void;
}

export interface DecoderCallbacks {
  output(frame: VideoFrame, info: FrameInfo): void;
  error(error: PlayerError): void;
}

/** What the engine tells. */
export interface EngineHooks {
  /** An event of media elements, by its name. */
  emit(name: string): void;
  /** A picture was decoded, in order of showing; it may be closed once this returns. */
  decoded(frame: VideoFrame, info: FrameInfo): void;
  /** A picture is to be shown now. */
  present(frame: VideoFrame, presented: number): void;
  fail(error: PlayerError): void;
}

interface Picture {
  readonly frame: VideoFrame;
  /** Microseconds. */
  readonly start: number;
  readonly end: number;
}

/** How far a load has come, as `HTMLMediaElement.readyState`. */
export type ReadyState = 0 | 1 | 2 | 3 | 4;

export class Engine {
  readyState: ReadyState = 0;
  seeking = false;
  ended = false;
  paused = true;
  loop = false;
  /** Pictures that were decoded, and those of them that came too late to be shown. */
  total = 0;
  dropped = 0;
  presented = 0;

  readonly #hooks: EngineHooks;
  readonly #media: Media;
  readonly #decoder: PictureDecoder;
  readonly #clock = new Clock();
  readonly #timer: ReturnType<typeof setInterval>;
  #sound: Sound | undefined;
  #volume = 1;
  #rate = 1;
  #queue: Picture[] = [];
  #current: Picture | undefined;
  /** µs that is looked for, and the latest picture before it. */
  #target: number | undefined;
  #candidate: Picture | undefined;
  /** Whether it is still open where to decode from for `#target`. */
  #deciding = false;
  /** Counts feeds; an older one stops by itself. */
  #feed = 0;
  #fedAll = false;
  #lastKeyFed = Number.NEGATIVE_INFINITY;
  /** What stopped the feed; told once all pictures before it were shown. */
  #failure: PlayerError | undefined;
  #ahead = START_AHEAD;
  #waiting = false;
  #closed = false;
  #wake: (() => void) | undefined;
  #animation = 0;

  constructor(
    media: Media,
    makeDecoder: (callbacks: DecoderCallbacks) => PictureDecoder,
    hooks: EngineHooks,
  ) {
    this.#media = media;
    this.#hooks = hooks;
    this.#decoder = makeDecoder({
      output: (frame, info) => this.#output(frame, info),
      error: (error) => this.#fail(error),
    });
    this.#decoder.ondequeue = () => this.#wake?.();
    let { duration } = media;
    media.onchange = () => {
      if (media.duration !== duration) hooks.emit('durationchange');
      duration = media.duration;
      hooks.emit('progress');
    };
    this.#timer = setInterval(() => this.#regularly(), TIMEUPDATE);
    this.#target = 0;
    this.#startFeed(0);
  }

  get currentTime(): number {
    if (this.#target !== undefined && this.seeking) return this.#target / MICRO;
    if (this.#media.live) return (this.#current?.start ?? 0) / MICRO;
    return Math.min(this.#clock.time, this.#media.duration);
  }

  /** A copy of the picture that is shown; the caller closes it. */
  get shown(): VideoFrame | undefined {
    return this.#current?.frame.clone();
  }

  /** Pieces of sound that were handed to the sound card's clock. */
  get soundScheduled(): number {
    return this.#sound?.scheduled ?? 0;
  }

  set volume(value: number) {
    this.#volume = value;
    if (this.#sound) this.#sound.volume = value;
    // The page was touched since: sound that had to be left out comes in.
    if (value > 0 && this.#clock.running && this.#sound && !this.#sound.running) {
      this.#sound.resume().then((running) => running && this.#restartClock());
    }
  }

  set rate(value: number) {
    this.#rate = value;
    this.#restartClock();
  }

  /** Rejects with `NotAllowedError` where the browser wants the user to touch the page first. */
  async play(): Promise<void> {
    if (this.ended) this.seek(0);
    if (this.paused) {
      this.paused = false;
      this.#hooks.emit('play');
      if (this.readyState < 3 || this.seeking) this.#wait();
    }
    const track = this.#media.sound;
    if (track && !this.#sound) {
      const failed = (error: unknown) => this.#soundFailed(error);
      this.#sound = new Sound(track, failed, () => this.pause());
      this.#sound.volume = this.#volume;
    }
    if (this.#sound && !(await this.#sound.resume()) && this.#volume > 0 && !this.#closed) {
      this.pause();
      throw new DOMException(
        'The browser lets sound play only after a key or a click. Press play, or set `muted`.',
        'NotAllowedError',
      );
    }
    this.#tick();
  }

  pause(): void {
    if (this.paused) return;
    this.paused = true;
    this.#waiting = false;
    this.#stopClock();
    this.#hooks.emit('timeupdate');
    this.#hooks.emit('pause');
  }

  /** Shows the picture at `time` seconds, exactly. */
  seek(time: number): void {
    if (this.#media.live) return;
    const end = Number.isFinite(this.#media.duration) ? this.#media.duration : Infinity;
    const target = Math.round(Math.max(0, Math.min(time, end)) * MICRO);
    this.#stopClock(target / MICRO);
    this.ended = false;
    this.seeking = true;
    this.#ahead = START_AHEAD;
    this.#target = target;
    this.#hooks.emit('seeking');
    this.#hooks.emit('timeupdate');
    if (this.#show(target)) return;
    this.#deciding = true;
    this.#search(target).catch((error: unknown) => {
      if (this.#target === target) this.#fail(asPlayerError(error, MediaErrorCode.NETWORK));
    });
  }

  /** To the picture after the one that is shown, or the one before. */
  async step(direction: 1 | -1): Promise<void> {
    this.pause();
    const current = this.#current;
    if (!current || this.seeking) return;
    if (direction > 0) {
      const next = this.#queue[0]?.start ?? current.end;
      if (next / MICRO < this.#media.duration) this.seek(next / MICRO);
      return;
    }
    const before = await this.#media.frameTime(current.start - 1);
    if (before !== null && before < current.start) this.seek(before / MICRO);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#feed += 1;
    this.#wake?.();
    clearInterval(this.#timer);
    cancelAnimationFrame(this.#animation);
    this.#sound?.close();
    this.#decoder.close();
    this.#media.close();
    this.#drop();
    this.#current?.frame.close();
    this.#current = undefined;
  }

  // Feeding

  #startFeed(time: number): void {
    this.#feed += 1;
    this.#wake?.();
    this.#fedAll = false;
    this.#failure = undefined;
    const feed = this.#feed;
    this.#pump(feed, this.#media.packets(time)).catch((error: unknown) => {
      if (feed !== this.#feed || this.#closed) return;
      this.#fail(asPlayerError(error, MediaErrorCode.DECODE));
    });
  }

  async #pump(feed: number, packets: AsyncGenerator<Packet>): Promise<void> {
    const live = this.#media.live;
    let skipping = false;
    try {
      for await (const packet of packets) {
        while (!live && feed === this.#feed && !this.#room()) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
        if (feed !== this.#feed) return;
        const behind = live && this.#decoder.decodeQueueSize >= LIVE_PACKETS;
        skipping = packet.type === 'delta' && (skipping || behind);
        if (skipping) {
          this.total += 1;
          this.dropped += 1;
          continue;
        }
        if (packet.type === 'key') this.#lastKeyFed = packet.timestamp;
        this.#decoder.decode(packet);
      }
    } catch (error) {
      if (feed !== this.#feed) return;
      this.#failure = asPlayerError(error, MediaErrorCode.NETWORK);
    }
    if (feed !== this.#feed) return;
    await this.#decoder.flush();
    if (feed !== this.#feed) return;
    this.#fedAll = true;
    if (this.#target !== undefined && !this.#deciding) this.#lastOfAll();
    this.#tick();
  }

  #room(): boolean {
    return this.#decoder.decodeQueueSize < PACKETS && !this.#full();
  }

  /** Whether as many pictures wait as may. */
  #full(): boolean {
    const frame = this.#queue[0]?.frame;
    if (!frame) return false;
    const wide = frame.format?.includes('P10') ? 2 : 1;
    const bytes = frame.codedWidth * frame.codedHeight * 1.5 * wide;
    const most = Math.min(PICTURES, Math.floor(PICTURE_BYTES / bytes));
    return this.#queue.length >= Math.max(LEAST_PICTURES, most);
  }

  // Seeking

  /** Shows the picture at `target` if it is among those at hand, and drops those before it. */
  #show(target: number): boolean {
    if (this.#current && within(this.#current, target)) {
      this.#found(this.#current);
      return true;
    }
    const at = this.#queue.findIndex((picture) => within(picture, target));
    if (at < 0) return false;
    for (const picture of this.#queue.splice(0, at)) picture.frame.close();
    const picture = this.#queue.shift();
    if (picture) this.#found(picture);
    return true;
  }

  async #search(target: number): Promise<void> {
    const key = await this.#media.keyTime(target);
    // Another seek came in the meantime, or the end.
    if (this.#target !== target || !this.#deciding || this.#closed) return;
    if (this.#show(target)) return;
    const last = this.#queue.at(-1) ?? this.#current;
    const onTheWay = !this.#fedAll && last && last.start < target && key <= this.#lastKeyFed;
    this.#deciding = false;
    this.#drop();
    if (onTheWay) {
      // Decoding goes on from where it is: that is nearer than the key frame.
      this.#wake?.();
      return;
    }
    this.#decoder.restart();
    this.#startFeed(target);
  }

  #drop(): void {
    for (const picture of this.#queue) picture.frame.close();
    this.#queue = [];
    this.#candidate?.frame.close();
    this.#candidate = undefined;
  }

  /** Nothing more will come: the latest before the target is what is shown there. */
  #lastOfAll(): void {
    const last = this.#candidate;
    this.#candidate = undefined;
    if (last) {
      this.#found(last);
    } else if (this.#current && this.seeking) {
      this.#found(this.#current);
    } else {
      this.#fail(
        this.#failure ??
          new PlayerError(MediaErrorCode.DECODE, 'No picture of this file can be decoded.'),
      );
    }
  }

  #found(picture: Picture): void {
    const target = this.#target ?? picture.start;
    this.#target = undefined;
    this.#deciding = false;
    this.#candidate?.frame.close();
    this.#candidate = undefined;
    if (picture !== this.#current) this.#present(picture);
    this.#clock.stop(target / MICRO);
    const first = this.readyState < 2;
    this.readyState = 3;
    if (first) {
      this.#hooks.emit('loadeddata');
      this.#hooks.emit('canplay');
      this.#hooks.emit('canplaythrough');
    }
    if (this.seeking) {
      this.seeking = false;
      this.#hooks.emit('timeupdate');
      this.#hooks.emit('seeked');
    }
    this.#wake?.();
    this.#tick();
  }

  // Showing

  #output(frame: VideoFrame, info: FrameInfo): void {
    if (this.#closed) {
      frame.close();
      return;
    }
    this.total += 1;
    this.#hooks.decoded(frame, info);
    const picture: Picture = {
      frame,
      start: frame.timestamp,
      end: frame.timestamp + (frame.duration ?? 0),
    };
    if (this.#media.live) {
      this.#target = undefined;
      this.#present(picture);
      this.#goLive();
      return;
    }
    const target = this.#target;
    if (target === undefined || this.#deciding) {
      this.#queue.push(picture);
    } else if (within(picture, target)) {
      this.#found(picture);
    } else if (picture.start <= target) {
      this.#candidate?.frame.close();
      this.#candidate = picture;
      this.#wake?.();
    } else {
      // The target is in a gap, or before the first picture.
      const shown = this.#candidate ?? picture;
      this.#candidate = undefined;
      if (shown !== picture) this.#queue.push(picture);
      this.#found(shown);
    }
    this.#tick();
  }

  #goLive(): void {
    if (this.readyState >= 3) return;
    this.readyState = 4;
    for (const name of ['loadeddata', 'canplay', 'canplaythrough']) this.#hooks.emit(name);
    if (!this.paused) this.#hooks.emit('playing');
  }

  #present(picture: Picture): void {
    const before = this.#current;
    this.#current = picture;
    this.presented += 1;
    this.#hooks.present(picture.frame, this.presented);
    if (before !== picture) before?.frame.close();
  }

  #tick(): void {
    if (this.#closed || this.#target !== undefined || this.#media.live) return;
    if (!this.paused && !this.#clock.running && this.#enough()) {
      this.#runClock();
      this.readyState = 4;
      this.#waiting = false;
      this.#hooks.emit('playing');
    }
    if (this.#clock.running) this.#advance(this.#clock.time * MICRO);
    this.#animate();
  }

  #advance(now: number): void {
    while (this.#queue[0] && this.#queue[0].start <= now) {
      const picture = this.#queue.shift();
      if (!picture) break;
      if (this.#queue[0] && this.#queue[0].start <= now) {
        this.dropped += 1;
        picture.frame.close();
      } else {
        this.#present(picture);
      }
    }
    this.#wake?.();
    if (this.#queue.length > 0) return;
    const end = this.#current?.end ?? 0;
    if (this.#fedAll) {
      const duration = this.#failure ? 0 : this.#media.duration * MICRO;
      if (now >= Math.max(end, Number.isFinite(duration) ? duration : 0)) this.#end();
    } else if (now > end + (document.hidden ? HIDDEN_PATIENCE : PATIENCE) * MICRO) {
      this.#stopClock();
      this.#wait();
      this.#ahead = RESUME_AHEAD;
      this.#skipToKey(now).catch(() => undefined);
    }
  }

  /** Whether enough pictures are ahead to begin. */
  #enough(): boolean {
    if (this.#fedAll || this.#full()) return true;
    const last = this.#queue.at(-1);
    return last !== undefined && last.end >= (this.#clock.time + this.#ahead) * MICRO;
  }

  /** Where decoding is too slow: goes on at a key frame that the sound has passed already. */
  async #skipToKey(now: number): Promise<void> {
    const feed = this.#feed;
    const key = await this.#media.keyTime(now);
    if (feed !== this.#feed || this.#target !== undefined || key <= this.#lastKeyFed) return;
    const current = this.#current;
    if (current && current.end > current.start) {
      const left = Math.round((key - current.end) / (current.end - current.start));
      this.total += Math.max(0, left);
      this.dropped += Math.max(0, left);
    }
    this.#decoder.restart();
    this.#startFeed(key);
  }

  #wait(): void {
    this.readyState = Math.min(this.readyState, 2) as ReadyState;
    if (this.#waiting) return;
    this.#waiting = true;
    this.#hooks.emit('waiting');
  }

  #end(): void {
    this.#stopClock(Number.isFinite(this.#media.duration) ? this.#media.duration : undefined);
    if (this.#failure) {
      this.#fail(this.#failure);
      return;
    }
    if (this.loop) {
      this.seek(0);
      return;
    }
    this.ended = true;
    this.#hooks.emit('timeupdate');
    this.paused = true;
    this.#hooks.emit('pause');
    this.#hooks.emit('ended');
  }

  #runClock(): void {
    const time = this.#clock.time;
    if (this.#sound?.running) this.#sound.start(time, this.#rate, this.#clock);
    else this.#clock.run(time, this.#rate);
  }

  #stopClock(time?: number): void {
    this.#clock.stop(time);
    this.#sound?.stop();
  }

  #restartClock(): void {
    if (!this.#clock.running) return;
    this.#stopClock();
    this.#runClock();
  }

  #animate(): void {
    if (this.#animation !== 0 || !this.#clock.running) return;
    this.#animation = requestAnimationFrame(() => {
      this.#animation = 0;
      this.#tick();
    });
  }

  #regularly(): void {
    if (!this.#clock.running && !this.#media.live) return;
    this.#hooks.emit('timeupdate');
    // Pages that nobody looks at get no animation frames.
    if (document.hidden) this.#tick();
  }

  #soundFailed(error: unknown): void {
    // The picture goes on; what was lost is told with the next load.
    console.warn('nnv-video: the sound stopped:', error);
  }

  #fail(error: PlayerError): void {
    if (this.#closed) return;
    this.#stopClock();
    this.#feed += 1;
    this.#wake?.();
    this.#hooks.fail(error);
  }
}

function within(picture: Picture, time: number): boolean {
  return picture.start <= time && time < picture.end;
}
