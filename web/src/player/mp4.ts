// SPDX-License-Identifier: MPL-2.0
/** MP4 through mediabunny: packets, sound, texts, by ranges and with a bounded cache. */
import {
  AudioBufferSink,
  EncodedPacketSink,
  type EncodedPacket,
  Input,
  type InputAudioTrack,
  InputDisposedError,
  type InputTrack,
  type InputVideoTrack,
  Logging,
  LogLevel,
  MP4,
  UrlSource,
} from 'mediabunny';
import { type ByteSource, retryDelay, type Sniffed } from './bytes.js';
import { MediaErrorCode, partial, PlayerError } from './errors.js';
import type { Caption, CaptionTrack, Media, Packet, SoundPiece, SoundTrack } from './media.js';
import { showTexts } from './texts-as-sound.js';

/** Bytes of a file that are kept at a time. */
const CACHE = 48 * 1024 * 1024;

const CACHE_WITHOUT_RANGES = 512 * 1024 * 1024;

/** The longest wait for a duration that has to be found out from the fragments, ms. */
const DURATION_WAIT = 1500;

/** Seconds that pictures may end before what the index says. */
const MISSING = 0.25;

/** What our samples are named in a file. */
const NNV_ENTRY = 'nnv1';
const TEXT_ENTRY = 'tx3g';

const MICRO = 1_000_000;

/** Opens an MP4 file. Rejects with a `PlayerError`. */
export async function openMp4(source: ByteSource, sniffed: Sniffed): Promise<Media> {
  // It warns of each codec that it does not know: ours, and the texts.
  Logging.level = LogLevel.Errors;
  const bytes = new UrlSource(new URL(source.url, document.baseURI), {
    fetchFn: (input, init) => source.fetch(input, init).then(showTexts),
    // Without ranges nothing that was dropped comes again.
    maxCacheSize: sniffed.ranges ? CACHE : CACHE_WITHOUT_RANGES,
    getRetryDelay: (attempts, error) => retryDelay(attempts, error),
    // Whoever reads next gets it.
    handleUnhandledError: () => undefined,
  });
  // Small files have come before the film is open.
  const early: [number, number][] = [];
  let tell = (start: number, end: number): void => void early.push([start, end]);
  bytes.on('read', ({ start, end }) => tell(start, end));
  const input = new Input({ formats: [MP4], source: bytes });
  try {
    const tracks = await input.getTracks();
    const ids = await Promise.all(tracks.map((track) => track.getInternalCodecId()));
    const ours = tracks.find((track, i) => track.isVideoTrack() && ids[i] === NNV_ENTRY);
    if (!ours?.isVideoTrack()) throw noNnv(source.url, tracks, ids);
    const sound = tracks.find((track, i) => track.isAudioTrack() && ids[i] !== TEXT_ENTRY);
    const texts = tracks.filter((_, i) => ids[i] === TEXT_ENTRY);
    const film = new Mp4(input, source.url, sniffed.size, ours);
    await film.open(sound?.isAudioTrack() ? sound : undefined, texts);
    for (const [start, end] of early) film.came(start, end);
    tell = (start, end) => film.came(start, end);
    return film;
  } catch (error) {
    input.dispose();
    if (error instanceof PlayerError) throw error;
    throw broken(source.url, error);
  }
}

function noNnv(url: string, tracks: InputTrack[], ids: unknown[]): PlayerError {
  const found = ids.filter((_, i) => tracks[i]?.isVideoTrack()).join(', ');
  return new PlayerError(
    MediaErrorCode.SRC_NOT_SUPPORTED,
    found
      ? `${url} holds video of another kind (${found}). Play it with <video>.`
      : `${url} holds no video.`,
  );
}

function broken(url: string, error: unknown): PlayerError {
  const reason = error instanceof Error ? error.message : String(error);
  return new PlayerError(
    MediaErrorCode.NETWORK,
    `${url} came only in part, or is damaged: its index cannot be read (${reason}). ` +
      'Load it again, or write it again with nnvmp4mux.',
    { cause: error },
  );
}

class Mp4 implements Media {
  duration = Number.POSITIVE_INFINITY;
  rotation: 0 | 90 | 180 | 270 = 0;
  readonly live = false;
  sound: SoundTrack | undefined;
  captions: CaptionTrack[] = [];
  onchange: (() => void) | undefined;
  readonly #input: Input;
  readonly #url: string;
  readonly #size: number | null;
  readonly #sink: EncodedPacketSink;
  readonly #track: InputVideoTrack;
  /** Seconds of pictures that the index names; 0 where it does not say. */
  #promised = 0;
  /** Byte ranges that have come, ascending, apart from each other. */
  #ranges: [number, number][] = [];

  constructor(input: Input, url: string, size: number | null, track: InputVideoTrack) {
    this.#input = input;
    this.#url = url;
    this.#size = size;
    this.#track = track;
    this.#sink = new EncodedPacketSink(track);
  }

  async open(sound: InputAudioTrack | undefined, texts: InputTrack[]): Promise<void> {
    this.rotation = await this.#track.getRotation();
    if (sound && (await sound.canDecode())) this.sound = new Mp4Sound(sound);
    this.captions = await Promise.all(
      texts.map(async (track) => {
        const language = await track.getLanguageCode();
        return new Mp4Captions(track, language === 'und' ? '' : language);
      }),
    );
    const parts: InputTrack[] = sound ? [this.#track, sound] : [this.#track];
    const told = await Promise.all(parts.map((track) => track.getDurationFromMetadata()));
    this.#promised = told[0] ?? 0;
    const longest = Math.max(0, ...told.map((duration) => duration ?? 0));
    if (longest > 0) {
      this.duration = longest;
      return;
    }
    // A file in fragments tells no duration: all its fragments have to be looked at.
    const computed = Promise.all(parts.map((track) => track.computeDuration())).then((all) => {
      this.duration = Math.max(...all);
      this.onchange?.();
    });
    const late = new Promise<void>((resolve) => setTimeout(resolve, DURATION_WAIT));
    await Promise.race([computed, late]);
    // Unknown until then, or if it breaks off; whoever plays up to there is told.
    computed.catch(() => undefined);
  }

  get buffered(): [number, number][] {
    const size = this.#size;
    if (!size || !Number.isFinite(this.duration)) return [];
    const scale = this.duration / size;
    return this.#ranges.map(([start, end]) => [start * scale, end * scale]);
  }

  /** Bytes have come. */
  came(start: number, end: number): void {
    let [from, to] = [start, end];
    const apart = this.#ranges.filter(([a, b]) => {
      if (b < from || a > to) return true;
      from = Math.min(from, a);
      to = Math.max(to, b);
      return false;
    });
    this.#ranges = [...apart, [from, to] as [number, number]].sort((a, b) => a[0] - b[0]);
    this.onchange?.();
  }

  async *packets(time: number): AsyncGenerator<Packet, void, unknown> {
    let packet = await this.#reading(() => this.#key(time, false));
    let end = 0;
    while (packet) {
      const last: EncodedPacket = packet;
      end = Math.max(end, last.timestamp + last.duration);
      yield asPacket(last);
      packet = await this.#reading(() => this.#sink.getNextPacket(last));
    }
    // mediabunny ends quietly where the index names samples that the file does not have.
    if (end < this.#promised - MISSING) throw partial(this.#url);
  }

  async keyTime(time: number): Promise<number> {
    const packet = await this.#reading(() => this.#key(time, true));
    return packet ? micros(packet.timestamp) : 0;
  }

  async frameTime(time: number): Promise<number | null> {
    const options = { metadataOnly: true };
    const packet = await this.#reading(() => this.#sink.getPacket(seconds(time), options));
    return packet ? micros(packet.timestamp) : null;
  }

  close(): void {
    this.onchange = undefined;
    this.#input.dispose();
  }

  /** Reads from the file; what breaks off there gets the player's words. */
  async #reading<T>(read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (error instanceof PlayerError || error instanceof InputDisposedError) throw error;
      throw partial(this.#url, error);
    }
  }

  async #key(time: number, metadataOnly: boolean): Promise<EncodedPacket | null> {
    const options = { metadataOnly };
    return (
      (await this.#sink.getKeyPacket(seconds(time), options)) ??
      (await this.#sink.getFirstKeyPacket(options))
    );
  }
}

/** Half a microsecond later, so that a time which was rounded down still finds its own packet. */
function seconds(time: number): number {
  return (time + 0.5) / MICRO;
}

function micros(time: number): number {
  return Math.round(time * MICRO);
}

function asPacket(packet: EncodedPacket): Packet {
  return {
    type: packet.type,
    timestamp: micros(packet.timestamp),
    duration: micros(packet.duration),
    data: packet.data as Uint8Array<ArrayBuffer>,
  };
}

class Mp4Sound implements SoundTrack {
  readonly #sink: AudioBufferSink;

  constructor(track: InputAudioTrack) {
    this.#sink = new AudioBufferSink(track);
  }

  pieces(time: number): AsyncGenerator<SoundPiece, void, unknown> {
    return this.#sink.buffers(time);
  }
}

class Mp4Captions implements CaptionTrack {
  readonly language: string;
  readonly #sink: EncodedPacketSink;

  constructor(track: InputTrack, language: string) {
    this.language = language;
    this.#sink = new EncodedPacketSink(track);
  }

  async at(time: number): Promise<Caption | null> {
    const packet = await this.#sink.getPacket(time);
    if (!packet) return null;
    const { timestamp: start, duration, data } = packet;
    // `tx3g`: the bytes of the text, then the text, then boxes that style it.
    const length = data.length < 2 ? 0 : ((data[0] ?? 0) << 8) | (data[1] ?? 0);
    const text = new TextDecoder().decode(data.subarray(2, 2 + length));
    return { start, end: start + duration, text };
  }
}
