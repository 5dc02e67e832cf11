// SPDX-License-Identifier: MPL-2.0
/** A file as the player sees it, whatever it lies in. Times are seconds of the film from 0. */

/** A coded picture, as the decoder takes it. Times in whole microseconds. */
export interface Packet {
  readonly type: 'key' | 'delta';
  readonly timestamp: number;
  readonly duration: number;
  readonly data: BufferSource;
}

/** One text on the picture. */
export interface Caption {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Decoded sound. */
export interface SoundPiece {
  readonly buffer: AudioBuffer;
  readonly timestamp: number;
}

/** The sound of a file. */
export interface SoundTrack {
  /** Pieces that follow each other, the first being the one that sounds at `time`. */
  pieces(time: number): AsyncGenerator<SoundPiece, void, unknown>;
}

/** The texts of a file. */
export interface CaptionTrack {
  /** BCP 47 or ISO 639-2 tag; empty where it is not known. */
  readonly language: string;
  /** The text at `time`, or the silence there, with its end. */
  at(time: number): Promise<Caption | null>;
}

/** An opened file. */
export interface Media {
  /** Seconds; `Infinity` for live ones; it may grow, see `onchange`. */
  readonly duration: number;
  /** Whether pictures are shown as they come, without a clock and without seeking. */
  readonly live: boolean;
  /** Clockwise turn for showing, degrees. */
  readonly rotation: 0 | 90 | 180 | 270;
  readonly sound: SoundTrack | undefined;
  readonly captions: readonly CaptionTrack[];
  /** Parts that are here already, as seconds: an estimate from the bytes that have come. */
  readonly buffered: readonly (readonly [number, number])[];
  /** Called when `duration` or `buffered` have changed. */
  onchange: (() => void) | undefined;
  /** Packets in order of decoding, from the last key frame at or before `time` (µs) on. */
  packets(time: number): AsyncGenerator<Packet, void, unknown>;
  /** Time (µs) of the last key frame at or before `time` (µs). */
  keyTime(time: number): Promise<number>;
  /** Time (µs) of the picture shown at `time` (µs); `null` before the first. */
  frameTime(time: number): Promise<number | null>;
  close(): void;
}
