// SPDX-License-Identifier: MPL-2.0
/** What the player says. Pages in other languages assign their own: `Object.assign(wording, …)`. */
export const wording = {
  player: 'Video player',
  controls: 'Video controls',
  picture: 'Video',
  play: 'Play',
  pause: 'Pause',
  replay: 'Play again',
  position: 'Position',
  volume: 'Volume',
  mute: 'Mute',
  unmute: 'Sound on',
  captions: 'Captions',
  fullscreen: 'Full screen',
  exitFullscreen: 'Leave full screen',
  loading: 'Loading',
  waiting: 'Waiting for pictures',
  live: 'Live',
  ended: 'End',
  captionsOn: 'Captions on',
  captionsOff: 'Captions off',
  muted: 'Muted',
  volumeIs: (percent: number) => `Volume ${percent} percent`,
  of: (time: string, duration: string) => `${time} of ${duration}`,
  hours: (n: number) => `${n} ${n === 1 ? 'hour' : 'hours'}`,
  minutes: (n: number) => `${n} ${n === 1 ? 'minute' : 'minutes'}`,
  seconds: (n: number) => `${n} ${n === 1 ? 'second' : 'seconds'}`,
};

/** `1:02:03`, `2:03`. */
export function clockTime(seconds: number): string {
  if (!Number.isFinite(seconds)) return '–:––';
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, '0');
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** `1 hour 2 minutes 3 seconds`, for those who listen. */
export function spokenTime(seconds: number): string {
  if (!Number.isFinite(seconds)) return wording.live;
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const parts: string[] = [];
  if (h > 0) parts.push(wording.hours(h));
  if (m > 0) parts.push(wording.minutes(m));
  if (s > 0 || parts.length === 0) parts.push(wording.seconds(s));
  return parts.join(' ');
}
