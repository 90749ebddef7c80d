// A photo to the pixels that the student is shown, as the server makes them.

import {reduce, square} from './resize.js';

const MARGIN = 4;  // a JPEG is halved, once to three times, as long as this many times the student's side remains
const WHOLE = 2 ** 24;  // pixels, at most, of another photo that is not halved
const UNREAD = 'This browser cannot read that photo. Browsers read JPEG, PNG, WebP, AVIF, GIF and BMP: convert it, '
  + 'or send a smaller copy if it is very large.';

// Upright, in sRGB once it is drawn: first frame. Of one of which no small `part` is wanted, the server's decoder makes a
// smaller JPEG; so does that of Chromium, to the bit and in a fraction of the memory. What `prepare` takes.
export async function decode(photo, how, part = false) {
  const size = sizeOfJpeg(new Uint8Array(await photo.slice(0, 2 ** 19).arrayBuffer()));
  const smaller = size && !part && await decodeSmaller(photo, size, how);
  if (smaller) return {image: smaller, width: smaller.displayWidth, height: smaller.displayHeight, most: Infinity};
  try {
    const image = await createImageBitmap(photo);
    return {image, width: image.width, height: image.height, most: size ? 0 : WHOLE};
  } catch {
    throw new Error(UNREAD);
  }
}

async function decodeSmaller(photo, size, {side, crop, reduced}) {
  const least = reduced ? Math.ceil(side / crop) : MARGIN * side;
  const times = [8, 4, 2].find(each => Math.floor(Math.min(...size) / least) >= each);
  if (!times || typeof ImageDecoder !== 'function') return null;
  const [desiredWidth, desiredHeight] = size.map(length => Math.ceil(length / times));
  try {
    const decoder = new ImageDecoder({data: await photo.arrayBuffer(), type: 'image/jpeg', desiredWidth, desiredHeight});
    const {image} = await decoder.decode();
    decoder.close();
    if (image.codedWidth === desiredWidth && image.codedHeight === desiredHeight) return image;
    image.close();  // this browser makes no smaller ones
  } catch {}
  return null;
}

// [width, height] of a JPEG, as written; null of anything else.
function sizeOfJpeg(bytes) {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return null;
  const two = at => bytes[at] << 8 | bytes[at + 1];
  for (let at = 2; at + 8 < bytes.length; at += 2 + two(at + 2)) {
    while (bytes[at + 1] === 0xff) at++;
    const kind = bytes[at + 1];
    if (kind >= 0xc0 && kind < 0xd0 && ![0xc4, 0xc8, 0xcc].includes(kind)) return [two(at + 7), two(at + 5)];
  }
  return null;
}

// `turn` counts quarter turns clockwise, `box` is [left, top, right, bottom] as shares of the turned photo.
// A student that was taught from reduced photos is shown such.
export function prepare({image, width: whole, height: tall, most}, {side, crop, reduced}, turn = 0, box = [0, 0, 1, 1]) {
  const sideways = turn % 2, wide = sideways ? tall : whole, high = sideways ? whole : tall;
  const left = Math.floor(box[0] * wide), top = Math.floor(box[1] * high);
  const width = Math.ceil(box[2] * wide) - left, height = Math.ceil(box[3] * high) - top;
  const room = width * height > most ? Math.min(width, height) / (MARGIN * side) : 1, smaller = [8, 4, 2].find(times => room >= times) || 1;
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
  pen.drawImage(image, -whole / 2, -tall / 2);
  let pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  const times = reduced ? Math.floor(Math.min(canvas.width, canvas.height) / Math.ceil(side / crop)) : 1;
  if (times > 1) pixels = reduce(pixels.data, canvas.width, canvas.height, 2 ** Math.floor(Math.log2(times)));
  return square(pixels.data, pixels.width, pixels.height, side, crop);
}
