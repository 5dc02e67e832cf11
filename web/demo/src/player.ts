// SPDX-License-Identifier: MPL-2.0
/**
 * `player.html?src=ADDRESS&muted&autoplay&loop`: a page with nothing but a player. The tests begin
 * with it, too.
 */
import { definePlayer } from 'nnv-web/player';

definePlayer();
const wanted = new URLSearchParams(location.search);
const src = wanted.get('src');
if (src) {
  const player = document.createElement('nnv-video');
  player.setAttribute('controls', '');
  for (const name of ['muted', 'autoplay', 'loop']) player.toggleAttribute(name, wanted.has(name));
  player.setAttribute('src', src);
  document.querySelector('main')?.append(player);
}
