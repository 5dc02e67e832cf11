// SPDX-License-Identifier: MPL-2.0
/** The player's look. A constructed sheet: pages with a strict Content-Security-Policy accept it. */
const CSS = `
:host {
  display: inline-block; position: relative; overflow: hidden; width: 100%; max-width: 100%;
  background: #000; color: #fff; color-scheme: dark; contain: content; container-type: inline-size;
  font: 14px/1.4 system-ui, sans-serif; --accent: #4da3ff; --panel: rgb(12 14 18 / .86);
  --ink: #fff; --faint: rgb(255 255 255 / .35); --mid: rgb(255 255 255 / .6);
}
:host([hidden]) { display: none }
:host(:focus-visible) { outline: 3px solid var(--accent); outline-offset: 2px }
@media (prefers-color-scheme: light) {
  :host {
    color-scheme: light; --accent: #0a58ca; --panel: rgb(250 251 253 / .94); --ink: #14171c;
    --faint: rgb(20 23 28 / .25); --mid: rgb(20 23 28 / .5);
  }
}
:host(:fullscreen) { width: 100vw; height: 100vh; max-width: none }
.stage {
  position: relative; display: grid; place-items: center; width: 100%; height: 100%;
  grid-template: minmax(0, 1fr) / minmax(0, 1fr);
}
canvas, .poster {
  grid-area: 1 / 1; display: block; width: 100%; height: 100%; min-height: 0; max-height: 100vh;
  object-fit: contain;
}
.poster[hidden] { display: none }
.captions {
  grid-area: 1 / 1; align-self: end; justify-self: center; max-width: 90%; margin-bottom: 8px;
  text-align: center; white-space: pre-line; font-size: clamp(14px, 4cqi, 28px); color: #fff;
  pointer-events: none;
}
.with-controls .captions { margin-bottom: 78px }
.with-controls.idle .captions { margin-bottom: 8px }
.captions span {
  background: rgb(0 0 0 / .78); padding: .1em .45em; box-decoration-break: clone;
  -webkit-box-decoration-break: clone; border-radius: 3px;
}
.spinner {
  grid-area: 1 / 1; width: 44px; height: 44px; border-radius: 50%; pointer-events: none;
  border: 4px solid rgb(255 255 255 / .3); border-top-color: #fff; visibility: hidden;
}
.busy .spinner { visibility: visible; animation: turn 1s linear infinite }
@keyframes turn { to { transform: rotate(1turn) } }
.alert {
  grid-area: 1 / 1; z-index: 2; max-width: min(90%, 46em); max-height: 90%; overflow: auto;
  box-sizing: border-box; padding: 12px 16px; border-radius: 6px; background: #fff; color: #14171c;
  border-left: 6px solid #c62828; overflow-wrap: anywhere;
}
.alert:empty { display: none }
.controls {
  position: absolute; inset: auto 0 0 0; z-index: 1; display: flex; align-items: center;
  flex-wrap: wrap; gap: 2px; padding: 2px 6px 4px; background: var(--panel); color: var(--ink);
  box-sizing: border-box;
}
.controls[hidden], .failed .controls { display: none }
.idle .controls { opacity: 0 }
.idle .controls:focus-within { opacity: 1 }
.idle { cursor: none }
@media (prefers-reduced-motion: no-preference) { .controls { transition: opacity .2s } }
@media (prefers-reduced-motion: reduce) {
  .busy .spinner { animation: none; border-style: dotted }
}
button {
  appearance: none; border: 0; margin: 0; padding: 0; width: 40px; height: 40px; flex: none;
  display: grid; place-items: center; background: none; color: inherit; border-radius: 6px;
  cursor: pointer;
}
button[hidden] { display: none }
button:hover { background: rgb(127 127 127 / .28) }
button:focus-visible, input:focus-visible { outline: 3px solid var(--accent); outline-offset: -1px }
button[aria-pressed="true"] { box-shadow: inset 0 -3px 0 var(--accent) }
svg { width: 24px; height: 24px; fill: currentColor }
.seek { order: -1; flex: 1 0 calc(100% - 12px); position: relative; height: 22px; margin: 0 6px }
.track, .ranges {
  position: absolute; inset: 9px 0 auto 0; height: 4px; border-radius: 2px; overflow: hidden;
}
.track { background: var(--faint) }
.ranges i { position: absolute; top: 0; bottom: 0; background: var(--mid) }
input[type="range"] {
  appearance: none; background: none; margin: 0; height: 22px; cursor: pointer; color: inherit;
  --fill: 0%;
}
.seek input { position: absolute; inset: 0; width: 100% }
.volume { position: relative; width: 84px; flex: none }
.volume input { position: relative; width: 100%; display: block }
.volume .track { inset-block-start: 9px }
input[type="range"]::-webkit-slider-runnable-track {
  height: 4px; border-radius: 2px;
  background: linear-gradient(to right, var(--accent) var(--fill), transparent var(--fill));
}
input[type="range"]::-moz-range-progress {
  height: 4px; border-radius: 2px; background: var(--accent);
}
input[type="range"]::-webkit-slider-thumb {
  appearance: none; width: 16px; height: 16px; margin-top: -6px; border-radius: 50%;
  background: var(--accent); border: 2px solid #fff; box-sizing: border-box;
}
input[type="range"]::-moz-range-thumb {
  width: 12px; height: 12px; border-radius: 50%; background: var(--accent); border: 2px solid #fff;
}
input:disabled { cursor: default; opacity: .5 }
.time { padding: 0 8px; font-variant-numeric: tabular-nums; white-space: nowrap }
.space { flex: 1 }
.status {
  position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap;
}
@container (max-width: 420px) { .volume { width: 60px } .time { padding: 0 4px } }
@container (max-width: 330px) { .volume { display: none } }
@media (forced-colors: active) {
  .track { background: CanvasText } button[aria-pressed="true"] { outline: 2px solid Highlight }
  input[type="range"]::-webkit-slider-thumb { background: Highlight; forced-color-adjust: none }
}
`;

let sheet: CSSStyleSheet | undefined;

/** One sheet for all players of a page. */
export function playerStyle(): CSSStyleSheet {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  return sheet;
}
