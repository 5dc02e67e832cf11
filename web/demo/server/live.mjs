// SPDX-License-Identifier: MPL-2.0
/** A GStreamer pipeline whose stream goes into a WebSocket while it is made. */
import { spawn } from 'node:child_process';
import { drawFrame, FRAME_BYTES, HEIGHT, RATE, WIDTH } from './picture.mjs';

/** Bytes that may wait for a slow viewer. Then data are left out, until the next key frame. */
const MOST_WAITING = 512 * 1024;

/** Pipes of `gst-launch-1.0`: raw pictures in, the stream out. Standard output stays for words. */
const [PICTURES, STREAM] = [3, 4];

const DRAWN =
  `fdsrc fd=${PICTURES} blocksize=${FRAME_BYTES} do-timestamp=true ! ` +
  `rawvideoparse width=${WIDTH} height=${HEIGHT} format=i420 framerate=${RATE}/1`;

const ENCODER = 'nnvenc zerolatency=true speed-preset=ultrafast key-int-max=25 quantizer=30';

/**
 * Sends the stream of a pipeline into `socket` until it closes.
 * `source`: GStreamer elements that end in raw video, in place of the drawn film with its clock.
 */
export function sendLive(socket, source) {
  const pipeline =
    `${source ?? DRAWN} ! queue max-size-buffers=1 leaky=downstream ! ${ENCODER} ! ` +
    `fdsink fd=${STREAM} sync=false`;
  const stdio = ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'];
  const gst = spawn('gst-launch-1.0', ['-q', ...pipeline.split(' ')], { stdio });
  let words = '';
  gst.stderr.on('data', (data) => {
    words = (words + data).slice(-4000);
  });
  let left = 0;
  gst.stdio[STREAM].on('data', (data) => {
    if (socket.bufferedAmount > MOST_WAITING) left += data.length;
    else socket.send(data);
  });
  const timer = source ? undefined : draw(gst.stdio[PICTURES]);
  gst.on('error', (error) => {
    socket.close(1011, `gst-launch-1.0 cannot run: ${error.message}`.slice(0, 120));
  });
  gst.on('exit', (code) => {
    clearInterval(timer);
    if (code) console.error(`live: the pipeline ended with ${code}:\n${words}`);
    socket.close(code ? 1011 : 1000, code ? "The pipeline failed; see the server's output" : '');
  });
  socket.on('close', () => {
    clearInterval(timer);
    gst.kill('SIGTERM');
    if (left > 0) console.error(`live: ${left} bytes were left out for a slow viewer`);
  });
}

/** Writes a frame whenever its time has come; none where the pipeline is behind. */
function draw(pipe) {
  pipe.on('error', () => undefined);
  const begin = Date.now();
  let last = -1;
  return setInterval(() => {
    const n = Math.floor(((Date.now() - begin) * RATE) / 1000);
    if (n === last || pipe.writableLength > FRAME_BYTES) return;
    last = n;
    pipe.write(drawFrame(n, Date.now()));
  }, 5);
}
