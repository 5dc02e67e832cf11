// SPDX-License-Identifier: MPL-2.0
/**
 * node clip.mjs FOLDER: makes the demo's clip with nnvenc, `demo.mp4` with sound and captions and
 * `demo.nnv` without, and `demo.json`: the MD5 of each picture that nnvdec makes of it.
 */
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pictureSums, QUEUE, runPipeline } from './gst.mjs';
import { drawFrame, FRAME_BYTES, HEIGHT, RATE, WIDTH } from './picture.mjs';

const SECONDS = 12;

const CAPTIONS = `1
00:00:00,500 --> 00:00:03,000
nnvenc coded this picture.

2
00:00:03,500 --> 00:00:07,000
This page decodes it, to the same bits.

3
00:00:07,500 --> 00:00:11,500
Sound is AAC.
These words lie in the file, too.
`;

async function writeFrames(pipe) {
  for (let n = 0; n < SECONDS * RATE; n++) {
    const time = Math.round((n * 1000) / RATE);
    if (!pipe.write(drawFrame(n, time)))
      await new Promise((resolve) => pipe.once('drain', resolve));
  }
  pipe.end();
}

const folder = process.argv[2];
if (!folder) throw new Error('usage: node clip.mjs FOLDER');
await mkdir(folder, { recursive: true });
await writeFile(join(folder, 'demo.srt'), CAPTIONS);
await runPipeline(
  folder,
  `nnvmp4mux name=m faststart=true ! filesink location=demo.mp4.part
   fdsrc fd=3 blocksize=${FRAME_BYTES} !
   rawvideoparse width=${WIDTH} height=${HEIGHT} format=i420 framerate=${RATE}/1 !
   nnvenc quantizer=28 bframes=3 key-int-max=50 ! ${QUEUE} ! m.video_0
   audiotestsrc wave=ticks freq=660 samplesperbuffer=960 num-buffers=${SECONDS * 50} !
   audio/x-raw,rate=48000,channels=2 ! audioconvert ! avenc_aac ! ${QUEUE} ! m.audio_0
   filesrc location=demo.srt ! subparse ! ${QUEUE} ! m.subtitle_0`,
  { feed: writeFrames },
);
const demux = 'filesrc location=demo.mp4.part ! qtdemux';
await runPipeline(folder, `${demux} ! nnvparse ! filesink location=demo.nnv`);
const md5 = await pictureSums(folder, demux, FRAME_BYTES);
if (md5.length !== SECONDS * RATE) throw new Error(`nnvdec made ${md5.length} pictures`);
await writeFile(join(folder, 'demo.json'), JSON.stringify({ rate: RATE, md5 }));
// Last: whoever finds the file finds all of them.
await rename(join(folder, 'demo.mp4.part'), join(folder, 'demo.mp4'));
