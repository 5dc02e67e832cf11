// SPDX-License-Identifier: MPL-2.0
/** What went wrong, in the codes of `MediaError` and in words that say what to do. */

/** The codes of the platform's `MediaError`. */
export const MediaErrorCode = {
  /** The user stopped the load. */
  ABORTED: 1,
  /** The file came only in part. */
  NETWORK: 2,
  /** The file came, and is damaged. */
  DECODE: 3,
  /** No such file, no file of ours, or a browser that cannot play it. */
  SRC_NOT_SUPPORTED: 4,
} as const;

export type MediaErrorCode = (typeof MediaErrorCode)[keyof typeof MediaErrorCode];

/** An error as `<nnv-video>` tells it: in the picture, and as `error` of the element. */
export class PlayerError extends Error {
  override readonly name = 'PlayerError';

  constructor(
    readonly code: MediaErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** A file that came only in part. */
export function partial(url: string, cause?: unknown): PlayerError {
  return new PlayerError(
    MediaErrorCode.NETWORK,
    `${url} came only in part: it was cut, or the connection broke. Load it again.`,
    { cause },
  );
}

/** `error` as a `PlayerError`; what is none already gets `code` and keeps its words. */
export function asPlayerError(error: unknown, code: MediaErrorCode): PlayerError {
  if (error instanceof PlayerError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new PlayerError(code, message, { cause: error });
}
