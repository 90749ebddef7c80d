// A photo to the pixels that the student is shown, as the server makes them.

import {reduce, square} from './resize.js';

const MARGIN = 4;  // a photo is halved, once to three times, as long as this many times the side remains
const UNREAD = 'This browser cannot read that photo. Browsers read JPEG, PNG, WebP, AVIF, GIF and BMP: convert it, '
  + 'or send a smaller copy if it is very large.';

// Upright, in sRGB once it is drawn: first frame.
export async function decode(photo) {
  try {
    return await createImageBitmap(photo);
  } catch {
    throw new Error(UNREAD);
  }
}

// `turn` counts quarter turns clockwise, `box` is [left, top, right, bottom] as shares of the turned photo.
// A student that was taught from reduced photos is shown such.
export function prepare(bitmap, {side, crop, reduced}, turn = 0, box = [0, 0, 1, 1]) {
  const sideways = turn % 2, wide = sideways ? bitmap.height : bitmap.width, high = sideways ? bitmap.width : bitmap.height;
  const left = Math.floor(box[0] * wide), top = Math.floor(box[1] * high);
  const width = Math.ceil(box[2] * wide) - left, height = Math.ceil(box[3] * high) - top;
  const room = Math.min(width, height) / (MARGIN * side), smaller = [8, 4, 2].find(times => room >= times) || 1;
  const canvas = new OffscreenCanvas(Math.ceil(width / smaller), Math.ceil(height / smaller));
  const pen = canvas.getContext('2d', {willReadFrequently: true, alpha: true});
  if (!pen) throw new Error(UNREAD);
  pen.fillStyle = '#ffffff';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingEnabled = smaller > 1;
  pen.imageSmoothingQuality = 'high';
  pen.scale(canvas.width / width, canvas.height / height);
  pen.translate(wide / 2 - left, high / 2 - top);
  pen.rotate(turn * Math.PI / 2);
  pen.drawImage(bitmap, -bitmap.width / 2, -bitmap.height / 2);
  let pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  const times = reduced ? Math.floor(Math.min(canvas.width, canvas.height) / Math.ceil(side / crop)) : 1;
  if (times > 1) pixels = reduce(pixels.data, canvas.width, canvas.height, 2 ** Math.floor(Math.log2(times)));
  return square(pixels.data, pixels.width, pixels.height, side, crop);
}
