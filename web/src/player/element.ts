// SPDX-License-Identifier: MPL-2.0
/** `<nnv-video>`: NNV in a page, with what people know from `<video>`. */
import type { DecoderStats, FrameInfo } from '../types.js';
import { blobSource, type ByteSource, httpSource, sniff } from './bytes.js';
import { openBare } from './bare.js';
import { Controls } from './controls.js';
import {
  type DecoderOptions,
  makeDecoder,
  type PlayerDecoder,
  supportProblem,
} from './decoding.js';
import { Engine, type ReadyState } from './engine.js';
import { asPlayerError, MediaErrorCode, PlayerError } from './errors.js';
import { openLive } from './live.js';
import type { Caption, Media } from './media.js';
import { openMp4 } from './mp4.js';
import { PictureCanvas } from './picture.js';
import { PlainTimeRanges } from './ranges.js';
import { playerStyle } from './style.js';
import { wording } from './wording.js';

/** Milliseconds without a movement until the controls go while the film plays. */
const IDLE = 3000;

/** What `requestVideoFrameCallback` tells, as far as it holds here. */
export interface FrameMetadata {
  readonly presentationTime: number;
  readonly expectedDisplayTime: number;
  readonly width: number;
  readonly height: number;
  readonly mediaTime: number;
  readonly presentedFrames: number;
}

export type FrameCallback = (now: number, metadata: FrameMetadata) => void;

/** A picture as it was decoded. */
export interface PlayedFrame {
  readonly frame: VideoFrame;
  readonly info: FrameInfo;
}

type Attributes = 'autoplay' | 'controls' | 'loop' | 'muted';

// Node.js and others without a page can import this file; they cannot make elements.
const Base = (typeof HTMLElement === 'undefined'
  ? class {}
  : HTMLElement) as unknown as typeof HTMLElement;

export class NnvPlayer extends Base {
  static readonly observedAttributes = [
    'src',
    'controls',
    'loop',
    'poster',
    'width',
    'height',
    'crossorigin',
  ];
  /** How players decode: where the bundles lie, how many threads. Counts for the next load. */
  static decoder: DecoderOptions = {};

  static readonly HAVE_NOTHING = 0;
  static readonly HAVE_METADATA = 1;
  static readonly HAVE_CURRENT_DATA = 2;
  static readonly HAVE_FUTURE_DATA = 3;
  static readonly HAVE_ENOUGH_DATA = 4;

  /** Called with each picture that was decoded, in order of showing. It is closed afterwards. */
  ondecoded: ((played: PlayedFrame) => void) | null = null;

  readonly #canvas = new PictureCanvas();
  readonly #stage = div('stage');
  readonly #captions = div('captions');
  readonly #alert = div('alert');
  readonly #poster = document.createElement('img');
  readonly #size = new CSSStyleSheet();
  readonly #controls: Controls;
  #engine: Engine | undefined;
  #decoder: PlayerDecoder | undefined;
  #media: Media | undefined;
  #object: Blob | null = null;
  #error: PlayerError | null = null;
  #loading: AbortController | undefined;
  #volume = 1;
  #muted = false;
  #rate = 1;
  /** Where to begin, if somebody sought before there was anything to seek in. */
  #begin = 0;
  #captionsShown = true;
  #caption: Caption | null = null;
  #captionRequest = 0;
  #playWhenReady = false;
  #pending: { resolve: () => void; reject: (error: unknown) => void }[] = [];
  #callbacks = new Map<number, FrameCallback>();
  #callback = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #created = false;

  readonly #fullscreenChanged = () => this.#emit('fullscreenchange');

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [playerStyle(), this.#size];
    this.#canvas.element.setAttribute('role', 'img');
    this.#canvas.element.setAttribute('aria-label', wording.picture);
    this.#canvas.element.setAttribute('part', 'picture');
    this.#poster.className = 'poster';
    this.#poster.alt = '';
    this.#poster.hidden = true;
    this.#alert.setAttribute('role', 'alert');
    this.#alert.setAttribute('part', 'alert');
    this.#captions.setAttribute('part', 'captions');
    this.#controls = new Controls(this);
    const { element, status } = this.#controls;
    element.hidden = true;
    const spinner = div('spinner');
    this.#stage.append(this.#canvas.element, this.#poster, this.#captions, spinner, this.#alert);
    this.#stage.append(element);
    root.append(this.#stage, status);
    this.#canvas.element.addEventListener('click', () => {
      if (this.controls && !this.#error) this.#controls.togglePlay();
    });
    this.#canvas.element.addEventListener('dblclick', () => {
      if (this.controls) void this.toggleFullscreen();
    });
    this.addEventListener('keydown', (event) => {
      if (this.controls && this.#controls.key(event)) {
        event.preventDefault();
        this.#active();
      }
    });
    for (const name of ['pointermove', 'pointerdown', 'focusin', 'play', 'pause']) {
      this.addEventListener(name, () => this.#active());
    }
  }

  connectedCallback(): void {
    if (!this.#created) {
      this.#created = true;
      this.#muted = this.hasAttribute('muted');
      if (!this.hasAttribute('role')) this.setAttribute('role', 'region');
      if (!this.hasAttribute('aria-label')) this.setAttribute('aria-label', wording.player);
    }
    document.addEventListener('fullscreenchange', this.#fullscreenChanged);
    if (!this.#engine && !this.#loading) this.load();
  }

  disconnectedCallback(): void {
    document.removeEventListener('fullscreenchange', this.#fullscreenChanged);
    // Moved within the page it goes on.
    queueMicrotask(() => {
      if (!this.isConnected) this.#unload();
    });
  }

  attributeChangedCallback(name: string, _old: string | null, value: string | null): void {
    switch (name) {
      case 'src':
        if (this.isConnected) this.load();
        break;
      case 'controls':
        this.#controls.element.hidden = value === null;
        this.#stage.classList.toggle('with-controls', value !== null);
        if (value !== null && !this.hasAttribute('tabindex')) this.tabIndex = 0;
        break;
      case 'loop':
        if (this.#engine) this.#engine.loop = value !== null;
        break;
      case 'poster':
        if (value) this.#poster.src = value;
        this.#poster.hidden = !value || this.readyState >= 2;
        break;
      case 'width':
      case 'height':
        this.#resize();
        break;
      default:
    }
  }

  // Attributes as properties

  get src(): string {
    const src = this.getAttribute('src');
    return src ? new URL(src, document.baseURI).href : '';
  }
  set src(value: string) {
    this.setAttribute('src', value);
  }

  /** A file in place of an address; `null` for `src` again. */
  get srcObject(): Blob | null {
    return this.#object;
  }
  set srcObject(value: Blob | null) {
    this.#object = value;
    this.load();
  }

  get currentSrc(): string {
    return this.#object ? '' : this.src;
  }

  get autoplay(): boolean {
    return this.hasAttribute('autoplay');
  }
  set autoplay(value: boolean) {
    this.#reflect('autoplay', value);
  }
  get controls(): boolean {
    return this.hasAttribute('controls');
  }
  set controls(value: boolean) {
    this.#reflect('controls', value);
  }
  get loop(): boolean {
    return this.hasAttribute('loop');
  }
  set loop(value: boolean) {
    this.#reflect('loop', value);
  }
  get defaultMuted(): boolean {
    return this.hasAttribute('muted');
  }
  set defaultMuted(value: boolean) {
    this.#reflect('muted', value);
  }
  get poster(): string {
    return this.getAttribute('poster') ?? '';
  }
  set poster(value: string) {
    this.setAttribute('poster', value);
  }
  get crossOrigin(): string | null {
    const value = this.getAttribute('crossorigin');
    return value === null ? null : value === 'use-credentials' ? value : 'anonymous';
  }
  set crossOrigin(value: string | null) {
    if (value === null) this.removeAttribute('crossorigin');
    else this.setAttribute('crossorigin', value);
  }
  get width(): number {
    return Number.parseInt(this.getAttribute('width') ?? '0', 10) || 0;
  }
  set width(value: number) {
    this.setAttribute('width', String(value));
  }
  get height(): number {
    return Number.parseInt(this.getAttribute('height') ?? '0', 10) || 0;
  }
  set height(value: number) {
    this.setAttribute('height', String(value));
  }

  // State

  get error(): PlayerError | null {
    return this.#error;
  }
  get readyState(): ReadyState {
    if (this.#error) return 0;
    return this.#engine?.readyState ?? 0;
  }
  get duration(): number {
    return this.#media?.duration ?? Number.NaN;
  }
  get paused(): boolean {
    return this.#engine?.paused ?? true;
  }
  get ended(): boolean {
    return this.#engine?.ended ?? false;
  }
  get seeking(): boolean {
    return this.#engine?.seeking ?? false;
  }
  get seekable(): boolean {
    return this.#media !== undefined && !this.#media.live && !this.#error;
  }
  get live(): boolean {
    return this.#media?.live ?? false;
  }
  get hasCaptions(): boolean {
    return (this.#media?.captions.length ?? 0) > 0;
  }
  get hasSound(): boolean {
    return this.#media?.sound !== undefined;
  }
  get buffered(): TimeRanges {
    return new PlainTimeRanges(this.#media?.buffered ?? []);
  }
  get fullscreen(): boolean {
    return document.fullscreenElement === this;
  }
  /** Size of the picture, turned and with square pixels. */
  get videoWidth(): number {
    return this.#canvas.width;
  }
  get videoHeight(): number {
    return this.#canvas.height;
  }

  get currentTime(): number {
    return this.#engine?.currentTime ?? this.#begin;
  }
  set currentTime(value: number) {
    if (!Number.isFinite(value)) throw new TypeError('currentTime: a finite number of seconds.');
    if (this.#engine && !this.#error) this.#engine.seek(value);
    else this.#begin = value;
  }

  get volume(): number {
    return this.#volume;
  }
  set volume(value: number) {
    if (!(value >= 0 && value <= 1)) {
      throw new DOMException('volume: a number from 0 to 1.', 'IndexSizeError');
    }
    if (value === this.#volume) return;
    this.#volume = value;
    this.#applyVolume();
  }
  get muted(): boolean {
    return this.#muted;
  }
  set muted(value: boolean) {
    if (value === this.#muted) return;
    this.#muted = value;
    this.#applyVolume();
  }

  get playbackRate(): number {
    return this.#rate;
  }
  /** From 1/16 to 16. Sound follows in pitch, and is left out beyond 1/4 and 4. */
  set playbackRate(value: number) {
    if (!(value >= 0.0625 && value <= 16)) {
      throw new DOMException('playbackRate: a number from 0.0625 to 16.', 'NotSupportedError');
    }
    this.#rate = value;
    if (this.#engine) this.#engine.rate = value;
    this.#emit('ratechange');
  }

  /** Whether captions are shown where the file has some. */
  get captionsShown(): boolean {
    return this.#captionsShown;
  }
  set captionsShown(value: boolean) {
    this.#captionsShown = value;
    this.#caption = null;
    this.#updateCaption();
    this.#emit('captionschange');
  }

  canPlayType(type: string): '' | 'maybe' | 'probably' {
    if (/^video\/x-nnv\b/.test(type)) return 'probably';
    if (!/^video\/mp4\b/.test(type)) return '';
    return /codecs\s*=\s*"?[^"]*\bnnv1\b/.test(type)
      ? 'probably'
      : /codecs/.test(type)
        ? ''
        : 'maybe';
  }

  // Playing

  load(): void {
    this.#unload();
    this.#begin = 0;
    if (!this.isConnected || (!this.#object && !this.src)) return;
    this.#loading = new AbortController();
    this.#stage.classList.add('busy');
    this.#emit('loadstart');
    this.#load(this.#loading.signal).catch((error: unknown) => {
      this.#fail(asPlayerError(error, MediaErrorCode.SRC_NOT_SUPPORTED));
    });
  }

  /** Resolves once the film plays. */
  async play(): Promise<void> {
    if (this.#error) throw new DOMException(this.#error.message, 'NotSupportedError');
    const playing = new Promise<void>((resolve, reject) => {
      this.#pending.push({ resolve, reject });
    });
    // Each of the two may fail; both are waited for below.
    playing.catch(() => undefined);
    if (this.#engine) {
      try {
        await this.#engine.play();
      } catch (error) {
        this.#settle(error);
        throw error;
      }
    } else {
      this.#playWhenReady = true;
      if (!this.#loading) this.load();
    }
    await playing;
  }
  pause(): void {
    this.#playWhenReady = false;
    this.#engine?.pause();
    this.#settle(new DOMException('pause() was called before the film played.', 'AbortError'));
  }

  /** To the next picture, or the one before; the film pauses. */
  async step(direction: 1 | -1): Promise<void> {
    await this.#engine?.step(direction);
  }

  async toggleFullscreen(): Promise<void> {
    try {
      if (this.fullscreen) await document.exitFullscreen();
      else await this.requestFullscreen();
    } catch {
      // Browsers may refuse; then the size stays.
    }
  }

  requestVideoFrameCallback(callback: FrameCallback): number {
    this.#callback += 1;
    this.#callbacks.set(this.#callback, callback);
    return this.#callback;
  }

  cancelVideoFrameCallback(handle: number): void {
    this.#callbacks.delete(handle);
  }

  getVideoPlaybackQuality(): VideoPlaybackQuality {
    return {
      creationTime: performance.now(),
      totalVideoFrames: this.#engine?.total ?? 0,
      droppedVideoFrames: this.#engine?.dropped ?? 0,
      corruptedVideoFrames: 0,
    };
  }

  /** What the decoder says of itself: its way, its time by stage. */
  async stats(): Promise<DecoderStats | undefined> {
    return this.#decoder?.stats();
  }

  /** A copy of the picture that is shown, as it was decoded. The caller closes it. */
  captureFrame(): VideoFrame | undefined {
    return this.#engine?.shown;
  }

  /** Pieces of sound that were handed to the sound card's clock. */
  get soundScheduled(): number {
    return this.#engine?.soundScheduled ?? 0;
  }

  async #load(signal: AbortSignal): Promise<void> {
    const problem = await supportProblem(NnvPlayer.decoder);
    if (problem) throw new PlayerError(MediaErrorCode.SRC_NOT_SUPPORTED, problem);
    const media = await this.#open(signal);
    if (signal.aborted) {
      media.close();
      return;
    }
    this.#media = media;
    const engine = new Engine(
      media,
      (callbacks) => {
        const warning = (text: string) => this.#warn(text);
        const decoder = makeDecoder(NnvPlayer.decoder, media.live, { ...callbacks, warning });
        this.#decoder = decoder;
        return decoder;
      },
      {
        emit: (name) => this.#fromEngine(name),
        decoded: (frame, info) => this.ondecoded?.({ frame, info }),
        present: (frame, presented) => this.#present(frame, presented),
        fail: (error) => this.#fail(error),
      },
    );
    this.#engine = engine;
    this.#loading = undefined;
    engine.readyState = 1;
    engine.loop = this.loop;
    engine.rate = this.#rate;
    engine.volume = this.#muted ? 0 : this.#volume;
    this.#emit('durationchange');
    this.#emit('loadedmetadata');
    if (this.#begin > 0) engine.seek(this.#begin);
    if (this.#playWhenReady) {
      this.#playWhenReady = false;
      engine.play().catch((error: unknown) => this.#settle(error));
    } else if (this.autoplay) {
      // Browsers refuse sound before the page is touched: then it waits for `play`.
      engine.play().catch(() => undefined);
    }
  }

  async #open(signal: AbortSignal): Promise<Media> {
    if (!this.#object && /^wss?:/.test(this.src)) return openLive(this.src, signal);
    const source: ByteSource = this.#object
      ? blobSource(this.#object)
      : httpSource(this.src, this.crossOrigin === 'use-credentials' ? 'include' : 'same-origin');
    const sniffed = await sniff(source, signal);
    return sniffed.kind === 'mp4' ? openMp4(source, sniffed) : openBare(source, sniffed, signal);
  }

  #unload(): void {
    this.#loading?.abort();
    this.#loading = undefined;
    const had = this.#engine !== undefined || this.#error !== null;
    this.#engine?.close();
    this.#engine = undefined;
    this.#decoder = undefined;
    this.#media = undefined;
    this.#error = null;
    this.#stage.classList.remove('failed');
    this.#alert.textContent = '';
    this.#caption = null;
    this.#captions.replaceChildren();
    this.#stage.classList.remove('busy');
    this.#poster.hidden = !this.poster;
    this.#settle(new DOMException('Another load began.', 'AbortError'));
    if (had) this.#emit('emptied');
  }

  #fail(error: PlayerError): void {
    this.#engine?.pause();
    this.#engine?.close();
    this.#engine = undefined;
    this.#loading = undefined;
    this.#error = error;
    this.#stage.classList.remove('busy');
    this.#stage.classList.add('failed');
    this.#alert.textContent = error.message;
    this.#settle(new DOMException(error.message, 'NotSupportedError'));
    this.#emit('error');
  }

  #warn(message: string): void {
    this.dispatchEvent(new CustomEvent('warning', { detail: message }));
  }

  #settle(error?: unknown): void {
    const pending = this.#pending;
    this.#pending = [];
    for (const { resolve, reject } of pending) {
      if (error === undefined) resolve();
      else reject(error);
    }
  }

  #fromEngine(name: string): void {
    switch (name) {
      case 'playing':
        this.#settle();
        this.#stage.classList.remove('busy');
        break;
      case 'loadeddata':
      case 'seeked':
      case 'pause':
        this.#stage.classList.remove('busy');
        break;
      case 'waiting':
      case 'seeking':
        this.#stage.classList.add('busy');
        break;
      default:
    }
    if (name === 'timeupdate' || name === 'seeked') this.#updateCaption();
    this.#emit(name);
  }

  #emit(name: string): void {
    this.dispatchEvent(new Event(name));
  }

  #present(frame: VideoFrame, presented: number): void {
    const resized = this.#canvas.draw(frame, this.#media?.rotation ?? 0);
    this.#poster.hidden = true;
    if (resized) this.#emit('resize');
    this.#updateCaption(frame.timestamp / 1e6);
    if (this.#callbacks.size === 0) return;
    const now = performance.now();
    const metadata: FrameMetadata = {
      presentationTime: now,
      expectedDisplayTime: now,
      width: this.#canvas.width,
      height: this.#canvas.height,
      mediaTime: frame.timestamp / 1e6,
      presentedFrames: presented,
    };
    const callbacks = [...this.#callbacks.values()];
    this.#callbacks.clear();
    for (const callback of callbacks) callback(now, metadata);
  }

  #updateCaption(time = this.currentTime): void {
    const track = this.#captionsShown ? this.#media?.captions[0] : undefined;
    if (!track) {
      this.#captions.replaceChildren();
      return;
    }
    if (this.#caption && time >= this.#caption.start && time < this.#caption.end) return;
    this.#captionRequest += 1;
    const request = this.#captionRequest;
    track.at(time).then(
      (caption) => {
        if (request !== this.#captionRequest) return;
        this.#caption = caption;
        const text = caption && time < caption.end ? caption.text : '';
        this.#captions.lang = track.language;
        this.#captions.replaceChildren();
        if (text) {
          const span = document.createElement('span');
          span.textContent = text;
          this.#captions.append(span);
        }
      },
      // A text that cannot be read is left out; the picture tells what is wrong with the file.
      () => undefined,
    );
  }

  #applyVolume(): void {
    if (this.#engine) this.#engine.volume = this.#muted ? 0 : this.#volume;
    this.#emit('volumechange');
  }

  #active(): void {
    this.#stage.classList.remove('idle');
    clearTimeout(this.#idle);
    if (this.paused) return;
    this.#idle = setTimeout(() => {
      if (!this.paused) this.#stage.classList.add('idle');
    }, IDLE);
  }

  #resize(): void {
    const [w, h] = [this.width, this.height];
    const ratio = w && h ? `aspect-ratio: ${w} / ${h};` : h ? `height: ${h}px;` : '';
    this.#size.replaceSync(w || h ? `:host { ${w ? `width: ${w}px;` : ''} ${ratio} }` : '');
  }

  #reflect(name: Attributes, value: boolean): void {
    this.toggleAttribute(name, value);
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'nnv-video': NnvPlayer;
  }
}

/** Makes `<nnv-video>` known to the page; once is enough. */
export function definePlayer(name = 'nnv-video'): void {
  if (!customElements.get(name)) customElements.define(name, NnvPlayer);
}

function div(name: string): HTMLDivElement {
  const element = document.createElement('div');
  element.className = name;
  return element;
}
