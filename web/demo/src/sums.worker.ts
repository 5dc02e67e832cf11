// SPDX-License-Identifier: MPL-2.0
/** MD5 beside the page: browsers' own WebCrypto has none. */
import { md5 } from '@noble/hashes/legacy.js';
import { bytesToHex } from '@noble/hashes/utils.js';

interface Scope {
  onmessage: ((event: MessageEvent<{ id: number; bytes: ArrayBuffer }>) => void) | null;
  postMessage(message: { id: number; sum: string }): void;
}

const scope = globalThis as unknown as Scope;

scope.onmessage = ({ data: { id, bytes } }) => {
  scope.postMessage({ id, sum: bytesToHex(md5(new Uint8Array(bytes))) });
};
