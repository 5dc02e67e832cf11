// SPDX-License-Identifier: MPL-2.0
/** `gst-launch-1.0` with a pipe in and a pipe out. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';

/** A queue that holds whatever an encoder makes others wait for. */
export const QUEUE = 'queue max-size-time=0 max-size-buffers=0 max-size-bytes=0';

/**
 * Runs a pipeline in `folder`; `feed` writes into its pipe 3, `take` gets what comes out of its
 * pipe 4. File names are relative, so that spaces in the folder's name do no harm.
 */
export async function runPipeline(folder, pipeline, { feed, take } = {}) {
  const stdio = ['ignore', 'ignore', 'inherit', feed ? 'pipe' : 'ignore', take ? 'pipe' : 'ignore'];
  const words = ['-q', '-e', ...pipeline.trim().split(/\s+/)];
  const gst = spawn('gst-launch-1.0', words, { stdio, cwd: folder });
  const ended = new Promise((resolve, reject) => {
    gst.on('error', reject);
    gst.on('exit', (code) => {
      if (code === 0) resolve();
      else reject(new Error(`gst-launch-1.0 ended with ${code}: ${pipeline}`));
    });
  });
  if (feed) gst.stdio[3].on('error', () => undefined);
  const work = [feed?.(gst.stdio[3]), take?.(gst.stdio[4])];
  await Promise.all([ended, ...work]);
}

/** MD5 of each picture that `nnvdec` makes of what `source` (elements) gives, as hex. */
export async function pictureSums(folder, source, pictureBytes) {
  const sums = [];
  const take = async (pipe) => {
    let rest = Buffer.alloc(0);
    for await (const data of pipe) {
      rest = Buffer.concat([rest, data]);
      for (; rest.length >= pictureBytes; rest = rest.subarray(pictureBytes)) {
        sums.push(createHash('md5').update(rest.subarray(0, pictureBytes)).digest('hex'));
      }
    }
    if (rest.length > 0) throw new Error(`${rest.length} bytes are no whole picture`);
  };
  await runPipeline(folder, `${source} ! nnvparse ! nnvdec ! fdsink fd=4 sync=false`, { take });
  return sums;
}
