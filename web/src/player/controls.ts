// SPDX-License-Identifier: MPL-2.0
/** The bar of controls below the picture, and the keys. Both know the player by its methods only. */
import { clockTime, spokenTime, wording } from './wording.js';

/** What the controls see of the player. */
export interface Controllable extends EventTarget {
  currentTime: number;
  volume: number;
  muted: boolean;
  captionsShown: boolean;
  readonly duration: number;
  readonly paused: boolean;
  readonly ended: boolean;
  readonly seeking: boolean;
  readonly seekable: boolean;
  readonly live: boolean;
  readonly hasCaptions: boolean;
  readonly hasSound: boolean;
  readonly buffered: TimeRanges;
  readonly fullscreen: boolean;
  play(): Promise<void>;
  pause(): void;
  step(direction: 1 | -1): Promise<void>;
  toggleFullscreen(): Promise<void>;
}

/** Seconds by which arrow keys, and `j` and `l`, move. */
const SHORT = 5;
const LONG = 10;
const VOLUME_STEP = 0.05;

const ICONS = {
  play: 'M8 5v14l11-7z',
  pause: 'M7 5h4v14H7zM13 5h4v14h-4z',
  replay: 'M12 5V1L7 6l5 5V7a5 5 0 1 1-5 5H5a7 7 0 1 0 7-7z',
  loud: 'M4 9v6h4l5 5V4L8 9zM15 8.5a4 4 0 0 1 0 7zM15 4v2.1a6.5 6.5 0 0 1 0 11.8V20a8.5 8.5 0 0 0 0-16z',
  mute: 'M4 9v6h4l5 5V4L8 9zM21 9.4 19.6 8 17.5 10.1 15.4 8 14 9.4l2.1 2.1L14 13.6l1.4 1.4 2.1-2.1 2.1 2.1 1.4-1.4-2.1-2.1z',
  captions: 'M3 5h18v14H3zM5 7v10h14V7zM7 13.5h4v2H7zM13 13.5h4v2h-4zM7 10h6v2H7z',
  enlarge: 'M4 9V4h5v2H6v3zM15 4h5v5h-2V6h-3zM6 15v3h3v2H4v-5zM18 15h2v5h-5v-2h3z',
  reduce: 'M7 4h2v5H4V7h3zM15 4h2v3h3v2h-5zM4 15h5v5H7v-3H4zM15 15h5v2h-3v3h-2z',
} as const;

type Icon = keyof typeof ICONS;

export class Controls {
  readonly element = document.createElement('div');
  /** Says what a key did, to those who listen. */
  readonly status = document.createElement('div');
  readonly #player: Controllable;
  readonly #play = new IconButton('play');
  readonly #seek = slider('seek');
  readonly #ranges = box('ranges');
  readonly #time = box('time');
  readonly #mute = new IconButton('loud');
  readonly #volume = slider('volume');
  readonly #captions = new IconButton('captions');
  readonly #fullscreen = new IconButton('enlarge');
  /** While the bar is dragged it does not follow the film. */
  #dragging = false;

  constructor(player: Controllable) {
    this.#player = player;
    this.status.className = 'status';
    this.status.setAttribute('role', 'status');
    this.element.className = 'controls';
    this.element.setAttribute('part', 'controls');
    this.element.setAttribute('role', 'group');
    this.element.setAttribute('aria-label', wording.controls);
    const seek = box('seek');
    seek.append(box('track'), this.#ranges, this.#seek);
    const volume = box('volume');
    volume.append(box('track'), this.#volume);
    this.element.append(
      seek,
      this.#play.element,
      this.#time,
      box('space'),
      this.#mute.element,
      volume,
      this.#captions.element,
      this.#fullscreen.element,
    );
    this.#seek.setAttribute('aria-label', wording.position);
    this.#volume.setAttribute('aria-label', wording.volume);
    this.#volume.max = '1';
    this.#volume.step = String(VOLUME_STEP);
    this.#listen();
    this.update();
  }

  /** Brings all controls in line with the player. */
  update(): void {
    const player = this.#player;
    const state = player.ended ? 'replay' : player.paused ? 'play' : 'pause';
    this.#play.set(state, wording[state]);
    this.#mute.set(player.muted ? 'mute' : 'loud', player.muted ? wording.unmute : wording.mute);
    this.#mute.element.hidden = !player.hasSound;
    this.#volume.disabled = !player.hasSound;
    set(this.#volume, player.muted ? 0 : player.volume, 1);
    const percent = Math.round(player.volume * 100);
    this.#volume.setAttribute('aria-valuetext', player.muted ? wording.muted : `${percent} %`);
    this.#captions.set('captions', wording.captions);
    this.#captions.element.hidden = !player.hasCaptions;
    this.#captions.element.setAttribute('aria-pressed', String(player.captionsShown));
    const full = player.fullscreen;
    this.#fullscreen.set(
      full ? 'reduce' : 'enlarge',
      full ? wording.exitFullscreen : wording.fullscreen,
    );
    this.updateTime();
    this.#updateBuffered();
  }

  updateTime(): void {
    const { currentTime, duration, seekable, live } = this.#player;
    const known = Number.isFinite(duration) && duration > 0;
    this.#seek.disabled = !seekable || !known;
    this.#seek.max = String(known ? duration : 1);
    this.#seek.step = 'any';
    if (!this.#dragging) set(this.#seek, known ? currentTime : 0, known ? duration : 1);
    const spoken = wording.of(spokenTime(currentTime), spokenTime(duration));
    this.#seek.setAttribute('aria-valuetext', known ? spoken : spokenTime(currentTime));
    this.#time.textContent = known
      ? `${clockTime(currentTime)} / ${clockTime(duration)}`
      : live
        ? wording.live
        : clockTime(currentTime);
  }

  #updateBuffered(): void {
    const { buffered, duration } = this.#player;
    this.#ranges.replaceChildren();
    if (!Number.isFinite(duration) || duration <= 0) return;
    for (let i = 0; i < buffered.length; i++) {
      const range = document.createElement('i');
      range.style.left = `${(buffered.start(i) / duration) * 100}%`;
      range.style.width = `${((buffered.end(i) - buffered.start(i)) / duration) * 100}%`;
      this.#ranges.append(range);
    }
  }

  #listen(): void {
    const player = this.#player;
    this.#play.element.addEventListener('click', () => this.togglePlay());
    this.#mute.element.addEventListener('click', () => this.#toggleMute());
    this.#captions.element.addEventListener('click', () => this.#toggleCaptions());
    this.#fullscreen.element.addEventListener('click', () => void player.toggleFullscreen());
    this.#seek.addEventListener('pointerdown', () => {
      this.#dragging = true;
    });
    this.#seek.addEventListener('input', () => {
      fill(this.#seek);
      player.currentTime = this.#seek.valueAsNumber;
    });
    const dropped = () => {
      this.#dragging = false;
      this.updateTime();
    };
    for (const name of ['change', 'pointerup', 'pointercancel']) {
      this.#seek.addEventListener(name, dropped);
    }
    this.#volume.addEventListener('input', () => {
      player.muted = this.#volume.valueAsNumber === 0;
      player.volume = this.#volume.valueAsNumber;
    });
    for (const name of [
      'play',
      'pause',
      'ended',
      'volumechange',
      'durationchange',
      'loadedmetadata',
      'emptied',
      'captionschange',
      'fullscreenchange',
      'seeking',
      'seeked',
      'error',
    ]) {
      player.addEventListener(name, () => this.update());
    }
    player.addEventListener('timeupdate', () => this.updateTime());
    player.addEventListener('progress', () => this.#updateBuffered());
  }

  togglePlay(): void {
    if (this.#player.paused) this.#player.play().catch(() => undefined);
    else this.#player.pause();
  }

  #toggleMute(): void {
    this.#player.muted = !this.#player.muted;
    this.#say(this.#player.muted ? wording.muted : this.#volumeText());
  }

  #toggleCaptions(): void {
    if (!this.#player.hasCaptions) return;
    this.#player.captionsShown = !this.#player.captionsShown;
    this.#say(this.#player.captionsShown ? wording.captionsOn : wording.captionsOff);
  }

  #louder(by: number): void {
    this.#player.muted = false;
    // In hundredths, so that 0.1 and 0.2 make 0.3.
    const volume = Math.round((this.#player.volume + by) * 100) / 100;
    this.#player.volume = Math.min(1, Math.max(0, volume));
    this.#say(this.#volumeText());
  }

  #volumeText(): string {
    return wording.volumeIs(Math.round(this.#player.volume * 100));
  }

  #go(to: number): void {
    if (!this.#player.seekable) return;
    this.#player.currentTime = Math.max(0, Math.min(to, this.#player.duration));
    this.#say(spokenTime(this.#player.currentTime));
  }

  #say(text: string): void {
    this.status.textContent = text;
  }

  /** Does what a key means; `true` if it means something. */
  key(event: KeyboardEvent): boolean {
    if (event.ctrlKey || event.altKey || event.metaKey) return false;
    const target = event.composedPath()[0];
    const onButton = target instanceof HTMLButtonElement;
    const { currentTime: now, duration } = this.#player;
    switch (event.key) {
      case ' ':
      case 'Enter':
        // A button that has the focus is pressed by these.
        if (onButton || (event.key === 'Enter' && target instanceof HTMLInputElement)) return false;
        this.togglePlay();
        return true;
      case 'k':
        this.togglePlay();
        return true;
      case 'ArrowLeft':
      case 'ArrowRight': {
        const sign = event.key === 'ArrowLeft' ? -1 : 1;
        if (target === this.#volume) this.#louder(sign * VOLUME_STEP);
        else this.#go(now + sign * SHORT);
        return true;
      }
      case 'ArrowUp':
      case 'ArrowDown':
        if (!this.#player.hasSound) return false;
        this.#louder(event.key === 'ArrowUp' ? VOLUME_STEP : -VOLUME_STEP);
        return true;
      case 'j':
        this.#go(now - LONG);
        return true;
      case 'l':
        this.#go(now + LONG);
        return true;
      case 'Home':
      case 'End':
        // On the bar of the volume they mean silence and all of it.
        if (target === this.#volume) return false;
        this.#go(event.key === 'Home' ? 0 : duration);
        return true;
      case 'm':
        this.#toggleMute();
        return true;
      case 'c':
        this.#toggleCaptions();
        return true;
      case 'f':
        void this.#player.toggleFullscreen();
        return true;
      case ',':
      case '.':
        void this.#player.step(event.key === '.' ? 1 : -1).catch(() => undefined);
        return true;
      default:
        if (!/^\d$/.test(event.key) || !Number.isFinite(duration)) return false;
        this.#go((Number(event.key) / 10) * duration);
        return true;
    }
  }
}

class IconButton {
  readonly element = document.createElement('button');
  readonly #path = document.createElementNS('http://www.w3.org/2000/svg', 'path');

  constructor(icon: Icon) {
    this.element.type = 'button';
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('viewBox', '0 0 24 24');
    svg.setAttribute('aria-hidden', 'true');
    this.#path.setAttribute('fill-rule', 'evenodd');
    svg.append(this.#path);
    this.element.append(svg);
    this.set(icon, '');
  }

  set(icon: Icon, label: string): void {
    this.#path.setAttribute('d', ICONS[icon]);
    this.element.setAttribute('aria-label', label);
    this.element.title = label;
  }
}

function box(name: string): HTMLDivElement {
  const element = document.createElement('div');
  element.className = name;
  return element;
}

function slider(name: string): HTMLInputElement {
  const input = document.createElement('input');
  input.type = 'range';
  input.min = '0';
  input.value = '0';
  input.name = name;
  return input;
}

function set(input: HTMLInputElement, value: number, max: number): void {
  input.max = String(max);
  input.value = String(value);
  fill(input);
}

function fill(input: HTMLInputElement): void {
  const share = Number(input.max) > 0 ? input.valueAsNumber / Number(input.max) : 0;
  input.style.setProperty('--fill', `${Math.min(1, share) * 100}%`);
}
