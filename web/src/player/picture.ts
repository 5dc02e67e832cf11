// SPDX-License-Identifier: MPL-2.0
/** Draws pictures on a canvas, turned and with square pixels. */
export class PictureCanvas {
  readonly element = document.createElement('canvas');
  /** Size of the shown picture, after turning. */
  width = 0;
  height = 0;
  readonly #context: CanvasRenderingContext2D | null;

  constructor() {
    this.element.width = 16;
    this.element.height = 9;
    this.#context = this.element.getContext('2d', { alpha: false });
  }

  /** Draws `frame`, turned clockwise by `rotation`; `true` if the size changed. */
  draw(frame: VideoFrame, rotation: 0 | 90 | 180 | 270): boolean {
    const upright = rotation === 0 || rotation === 180;
    const { displayWidth: w, displayHeight: h } = frame;
    const [width, height] = upright ? [w, h] : [h, w];
    const resized = width !== this.width || height !== this.height;
    if (resized) {
      this.element.width = this.width = width;
      this.element.height = this.height = height;
    }
    const context = this.#context;
    if (!context) return resized;
    context.setTransform(1, 0, 0, 1, width / 2, height / 2);
    context.rotate((rotation * Math.PI) / 180);
    context.drawImage(frame, -w / 2, -h / 2, w, h);
    return resized;
  }
}
