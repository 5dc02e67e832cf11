// SPDX-License-Identifier: MPL-2.0
// node read.mjs mp4box|mediabunny FILE: what a reader finds in a file, a line for each track:
//   KIND CODEC SECONDS SAMPLES SYNC-SAMPLES WIDTH HEIGHT
import { readFileSync } from "node:fs";

const [reader, path] = process.argv.slice(2);
const bytes = readFileSync(path);
const line = (...fields) => console.log(fields.join(" "));

async function mp4box() {
  const { createFile, MP4BoxBuffer } = await import("mp4box");
  const file = createFile();
  const ready = new Promise((resolve, reject) => {
    file.onReady = resolve;
    file.onError = (module, message) => reject(new Error(`${module}: ${message}`));
  });
  const data = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  file.appendBuffer(MP4BoxBuffer.fromArrayBuffer(data, 0), true);
  file.flush();
  const info = await ready;
  for (const track of info.tracks) {
    const samples = file.getTrackSamplesInfo(track.id);
    const ends = samples.map((s) => s.cts + s.duration);
    const begin = samples.reduce((least, s) => Math.min(least, s.cts), Infinity);
    const duration = (ends.reduce((a, b) => Math.max(a, b), 0) - begin) / track.timescale;
    const sync = samples.filter((s) => s.is_sync).length;
    const [width, height] = [track.track_width, track.track_height];
    line(track.type, track.codec, duration, samples.length, sync, width, height);
  }
}

async function mediabunny() {
  const { ALL_FORMATS, BufferSource, EncodedPacketSink, Input } = await import("mediabunny");
  const input = new Input({ formats: ALL_FORMATS, source: new BufferSource(bytes) });
  for (const track of await input.getTracks()) {
    let [samples, sync, begin, end] = [0, 0, Infinity, 0];
    for await (const packet of new EncodedPacketSink(track).packets()) {
      samples += 1;
      sync += packet.type === "key" ? 1 : 0;
      begin = Math.min(begin, packet.timestamp);
      end = Math.max(end, packet.timestamp + packet.duration);
    }
    const [width, height] = [track.codedWidth ?? 0, track.codedHeight ?? 0];
    const codec = track.codec ?? track.internalCodecId;
    line(track.type, codec, end - begin, samples, sync, width, height);
  }
}

await { mp4box, mediabunny }[reader]();
