// SPDX-License-Identifier: MPL-2.0
/** The films of the tests: made once by GStreamer, kept in a folder. */
import { execFile } from 'node:child_process';
import { access, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { pictureSums, QUEUE, runPipeline } from '../../demo/server/gst.mjs';

const PICTURE = 160 * 96;
const SOURCE = (n, more = '') =>
  `videotestsrc num-buffers=${n} pattern=ball animation-mode=frames !
   video/x-raw,width=160,height=96,framerate=25/1,format=I420${more}`;

const there = (file) =>
  access(file).then(
    () => true,
    () => false,
  );

/** Makes what is missing; the folder then holds all of the films. */
export async function makeClips(folder) {
  await mkdir(folder, { recursive: true });
  if (!(await there(join(folder, 'demo.mp4')))) {
    const script = fileURLToPath(new URL('../../demo/server/clip.mjs', import.meta.url));
    await promisify(execFile)(process.execPath, [script, folder]);
  }
  const make = async (name, pipeline, then) => {
    if (await there(join(folder, name))) return;
    await runPipeline(folder, pipeline.replaceAll('NAME', `${name}.part`));
    await then?.(join(folder, `${name}.part`));
    await rename(join(folder, `${name}.part`), join(folder, name));
  };
  // In fragments, with Opus; ten bits.
  const fragments = (depth) =>
    `nnvmp4mux name=m fragment-duration=400 ! filesink location=NAME
     ${SOURCE(50)} ! videoconvert ! video/x-raw,format=${depth} !
     nnvenc key-int-max=10 bframes=3 ! ${QUEUE} ! m.video_0
     audiotestsrc samplesperbuffer=960 num-buffers=100 ! audio/x-raw,rate=48000,channels=2 !
     opusenc ! ${QUEUE} ! m.audio_0`;
  await make('fragments.mp4', fragments('I420_10LE'), async (file) => {
    const sums = await pictureSums(folder, `filesrc location=${file} ! qtdemux`, PICTURE * 3);
    await writeFile(join(folder, 'fragments.json'), JSON.stringify({ rate: 25, md5: sums }));
  });
  // Turned by a quarter, pixels that are not square, the index behind the data.
  await make(
    'turned.mp4',
    `${SOURCE(12, ',pixel-aspect-ratio=4/3')} !
     taginject tags="image-orientation=(string)rotate-90" ! nnvenc ! nnvmp4mux !
     filesink location=NAME`,
  );
  await make('other.mp4', `${SOURCE(12)} ! x264enc ! mp4mux ! filesink location=NAME`);
  await make('short.nnv', `${SOURCE(12)} ! nnvenc ! filesink location=NAME`);
  const unknown = join(folder, 'unknown.nnv');
  if (!(await there(unknown))) {
    await writeFile(unknown, otherBundle(await readFile(join(folder, 'short.nnv'))));
  }
}

/** The stream with another hash of its bundle, and sound checksums. */
function otherBundle(stream) {
  const out = Buffer.from(stream);
  for (let at = out.indexOf('NNV1'); at >= 0; at = out.indexOf('NNV1', at + 1)) {
    const hash = at + 6 + out[at + 5];
    out[hash] ^= 0xff;
    // Start code, type, length, header check: the length takes one byte or two.
    const wide = out[at - 2] < 128 && out[at - 3] >= 128 ? 2 : 1;
    const length = wide === 1 ? out[at - 2] : (out[at - 3] & 127) | (out[at - 2] << 7);
    const type = out[at - 2 - wide];
    const covered = Buffer.concat([
      Buffer.from([type]),
      out.subarray(at - 1 - wide, at - 1),
      out.subarray(at, at + length),
    ]);
    out.writeUInt32BE(crc32c(covered), at + length);
  }
  return out;
}

function crc32c(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
