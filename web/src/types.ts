/**
 * What the package takes and gives, in the shape of WebCodecs.
 *
 * Times are in microseconds unless a name says otherwise.
 */

/** An access unit of a stream: units with start codes and checksums, as MP4 samples hold them. */
export interface EncodedChunk {
  /** `key`: decoding can begin here. */
  readonly type: 'key' | 'delta';
  /** Presentation time; the frame made of this chunk gets it. */
  readonly timestamp: number;
  /** How long the frame is shown. */
  readonly duration?: number | undefined;
  /** The bytes. They are copied, unless `transfer` says that they may be taken. */
  readonly data: BufferSource;
  /** The buffer below `data` may be handed over to the decoder, and is empty afterwards. */
  readonly transfer?: boolean | undefined;
}

/** What runs the networks: `auto` takes the fastest that passes the known answers. */
export type Networks = 'auto' | 'kernels';

export interface NnvDecoderConfig {
  readonly codec: 'nnv1';
  /**
   * The sequence header: the payload of an MP4 file's box `nnvC` (docs/mp4.md), the payload of a
   * sequence header unit, or the unit itself. With it the networks load before the first chunk.
   */
  readonly description?: BufferSource | undefined;
  /** For `isConfigSupported`: the size is checked against `maxPixels`. */
  readonly codedWidth?: number | undefined;
  readonly codedHeight?: number | undefined;
  /** Base URL of the bundles of networks; default: `bundles/` beside this module. */
  readonly bundles?: string | URL | undefined;
  /** Threads wanted; 0 or absent: as many as help. More than one needs cross-origin isolation. */
  readonly threads?: number | undefined;
  readonly networks?: Networks | undefined;
  /** Shows the nearest picture where one is lost or damaged (default), else drops it. */
  readonly conceal?: boolean | undefined;
  /** Frames come out as soon as they can be decoded: for calls and live streams. */
  readonly optimizeForLatency?: boolean | undefined;
  /** Streams with larger pictures (luma samples) are refused; default 1920·1088. */
  readonly maxPixels?: number | undefined;
  /**
   * Streams of a higher level (1 to 10, docs/bitstream.md 13) are refused; default: none are.
   * `isConfigSupported` compares it with what `description` says.
   */
  readonly maxLevel?: number | undefined;
}

/** What a frame is, beside its pixels. */
export interface FrameInfo {
  /** Not what the encoder saw: lost or damaged, or predicted from such a frame. */
  readonly concealed: boolean;
  /** Made of a key frame. */
  readonly key: boolean;
  /** Presentation time and duration as the stream has them, where it has. */
  readonly streamTimestamp?: number | undefined;
  readonly streamDuration?: number | undefined;
  /** `VideoFrame.timestamp` again. */
  readonly timestamp: number;
  /** Bits per sample of the stream: 8 or 10. */
  readonly bitDepth: 8 | 10;
  /** The stream has no colour; the frame's chroma planes are neutral. */
  readonly grey: boolean;
}

export interface NnvDecoderInit {
  /** Frames in order of presentation. Whoever gets a frame closes it. */
  output(frame: VideoFrame, info: FrameInfo): void;
  /** Ends the decoder, which is closed then. Damage in a stream is no error: see `warning`. */
  error(error: DOMException): void;
  /** Something a viewer may want to know; once per event. */
  warning?(text: string): void;
}

/** Milliseconds per stage since `configure`. */
export interface StageTimes {
  readonly predict: number;
  readonly pack: number;
  readonly prior: number;
  readonly entropy: number;
  readonly synth: number;
  readonly quantise: number;
  /** Copies into `VideoFrame`s. */
  readonly output: number;
  /** All work of the Worker: the above and what lies between. */
  readonly total: number;
}

export interface DecoderStats {
  /** Frames shown. */
  readonly frames: number;
  readonly concealed: number;
  /** Chunks of which nothing was shown. */
  readonly dropped: number;
  /** Frames that never came, as the numbers of those around them tell. */
  readonly missing: number;
  /** Frame checksums of the stream that were right. */
  readonly verified: number;
  readonly times: StageTimes;
  /** What runs the networks, and why. */
  readonly networks: { readonly way: string; readonly why: string };
  readonly threads: number;
  readonly bundle?: { readonly name: string; readonly hash: string } | undefined;
  /** Bytes of WebAssembly memory. It never shrinks. */
  readonly memory: number;
  /** Milliseconds from `configure` to networks that are ready, and to the first frame. */
  readonly loaded?: number | undefined;
  readonly firstFrame?: number | undefined;
}

export interface NnvDecoderSupport {
  readonly supported: boolean;
  readonly config: NnvDecoderConfig;
  /** Where not supported: why, and what to do. */
  readonly reason?: string | undefined;
}

/**
 * What `NnvDecoder` does.
 *
 * Methods throw as WebCodecs' do: `InvalidStateError` in the wrong state, `DataError` for a first
 * chunk that is no key, `TypeError` for a configuration that makes no sense. What goes wrong later
 * comes through `error`.
 */
export interface Decoder {
  readonly state: 'unconfigured' | 'configured' | 'closed';
  /** Chunks that wait to be decoded. */
  readonly decodeQueueSize: number;
  /** Called when `decodeQueueSize` falls; several falls may make one call. */
  ondequeue: (() => void) | null;
  configure(config: NnvDecoderConfig): void;
  decode(chunk: EncodedChunk): void;
  /** Resolves when all frames so far are out; the next chunk must be a key. */
  flush(): Promise<void>;
  /** Drops all that waits, as for a seek; the decoder must be configured again (cheap). */
  reset(): void;
  close(): void;
  stats(): Promise<DecoderStats>;
}

/** What a sequence header says. */
export interface SequenceInfo {
  /** Shown size in samples: the coded size less the crop. */
  readonly width: number;
  readonly height: number;
  readonly codedWidth: number;
  readonly codedHeight: number;
  /** Shown size with the pixel aspect multiplied in, in the direction that grows. */
  readonly displayWidth: number;
  readonly displayHeight: number;
  readonly pixelAspect: readonly [number, number];
  readonly bitDepth: 8 | 10;
  readonly grey: boolean;
  /** Frames per second as a fraction; absent where unknown or variable. */
  readonly frameRate?: readonly [number, number] | undefined;
  /** In the words of `VideoColorSpace`; null where the stream does not say. */
  readonly colorSpace: VideoColorSpaceInit;
  /** Frames that come before a frame and are shown after it, at most. */
  readonly maxReorder: number;
  /** Frames from one key frame to the next at most; absent without a limit. */
  readonly keyInterval?: number | undefined;
  readonly profile: 'main';
  /** 1 to 10; infinite without bounds. */
  readonly level: number;
  /** Multiplications of the networks for a luma sample of the costliest frame; early streams do not say. */
  readonly macsPerSample?: number | undefined;
  readonly bundle: { readonly name: string; readonly hash: string };
}

/** A key frame that an index names. */
export interface KeyFrameEntry {
  /** Byte offset of its access unit in the file. */
  readonly offset: number;
  readonly timestamp: number;
}

/**
 * Cuts the bytes of a bare `.nnv` stream into chunks. Make one with
 * `await NnvSplitter.create()`; then nothing in it waits.
 */
export interface Splitter {
  /** What the newest sequence header says; absent before the first. */
  readonly sequence: SequenceInfo | undefined;
  /**
   * Takes the next bytes and returns the chunks that are whole now. Damaged bytes are passed over,
   * and a length that nothing confirms is not waited for beyond what the picture's size allows.
   */
  push(bytes: BufferSource): EncodedChunk[];
  /** The stream ends: what is left. */
  finish(): EncodedChunk[];
  /**
   * Goes on elsewhere in the file, as after a seek. `timestamp`: of the key frame that comes next,
   * where its own does not say.
   */
  restart(timestamp?: number): void;
  /** Bytes that were passed over as damaged. */
  readonly skipped: number;
  /** Frees the memory. */
  close(): void;
}

/** Key frames and duration of a `.nnv` file, found by hopping over it. */
export interface StreamIndex {
  readonly keys: readonly KeyFrameEntry[];
  /** Whole file; absent where `read` stopped early. */
  readonly duration?: number | undefined;
}
