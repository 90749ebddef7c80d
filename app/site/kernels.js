// The inner loops, by WebAssembly with SIMD; where a browser lacks it, those of the search in JavaScript.

// kernels.wat, compiled: npx -p wabt wat2wasm app/site/kernels.wat --output=- | base64
export const COMPILED =
  'AGFzbQEAAAABJQNgBX9/f39/AGAKf39/f39/f399fQBgDH9/f39/f39/f399fQACDgECaW4GbWVtb3J5AgABAwUEAAABAgcoBARkb3RzAAAFYX'
  + 'BhcnQAAQlwb2ludHdpc2UAAglkZXB0aHdpc2UAAwqgCQSNAQIDfwF7IAQgA0ECdGohBSAAIAJqIQcDQCAEIAVJBED9DAAAAAAAAAAAAAAAAAAA'
  + 'AAAhCCAAIQYDQCAIIAb9AAQAIAH9AAQA/boB/a4BIQggAUEQaiEBIAZBEGohBiAGIAdJDQALIAQgCP0bACAI/RsBaiAI/RsCIAj9GwNqajYCAC'
  + 'AEQQRqIQQMAQsLC2cCA38BfiAEIANBAnRqIQUgACACaiEHA0AgBCAFSQRAQgAhCCAAIQYDQCAIIAYpAwAgASkDAIV7fCEIIAFBCGohASAGQQhq'
  + 'IQYgBiAHSQ0ACyAEQQAgCKdrNgIAIARBBGohBAwBCwsLiAQCCH8NeyAI/RMhEiAJ/RMhEyABQQF0IRAgECABaiERA0BBACELIAAhDCAFIApqIQ'
  + '8DQCAEIApq/QAEACEXIAQgCmr9AAQQIRggFyEZIBchGyAXIR0gGCEaIBghHCAYIR4gAyEOIAwgAkECdGohDQNAIA79AAQAIRQgDv0ABBAhFSAM'
  + '/QkCACEWIBcgFiAU/eYB/eQBIRcgGCAWIBX95gH95AEhGCAMIAFq/QkCACEWIBkgFiAU/eYB/eQBIRkgGiAWIBX95gH95AEhGiAMIBBq/QkCAC'
  + 'EWIBsgFiAU/eYB/eQBIRsgHCAWIBX95gH95AEhHCAMIBFq/QkCACEWIB0gFiAU/eYB/eQBIR0gHiAWIBX95gH95AEhHiAOQSBqIQ4gDEEEaiEM'
  + 'IAwgDUkNAAsgDyAXIBL96QEgE/3oAf0LBAAgDyAYIBL96QEgE/3oAf0LBBAgDyAGaiEPIA8gGSAS/ekBIBP96AH9CwQAIA8gGiAS/ekBIBP96A'
  + 'H9CwQQIA8gBmohDyAPIBsgEv3pASAT/egB/QsEACAPIBwgEv3pASAT/egB/QsEECAPIAZqIQ8gDyAdIBL96QEgE/3oAf0LBAAgDyAeIBL96QEg'
  + 'E/3oAf0LBBAgDyAGaiEPIAtBBGohCyAAIAsgAWxqIQwgCyAHSQ0ACyAOIQMgCkEgaiEKIAogBkkNAAsLnAMCDH8HeyAK/RMhGCAL/RMhGSACIA'
  + 'dsIRUgFUEBdCEWIBYgFWohFwNAQQAhDQNAQQAhDiAGIAcgDSAMIAhsamxqIRADQCAFIA5q/QAEACEbIBshHCAbIR0gGyEeIAQgDmohESAAIA5q'
  + 'IAwgAmwgAWwgDSAVbGpqIRQgAyESA0AgFCEPIAMhEwNAIBH9AAQAIRogGyAaIA/9AAQA/eYB/eQBIRsgHCAaIA8gFWr9AAQA/eYB/eQBIRwgHS'
  + 'AaIA8gFmr9AAQA/eYB/eQBIR0gHiAaIA8gF2r9AAQA/eYB/eQBIR4gESAHaiERIA8gB2ohDyATQQFrIhMNAAsgFCABaiEUIBJBAWsiEg0ACyAQ'
  + 'IA5qIQ8gDyAbIBj96QEgGf3oAf0LBAAgDyAHaiEPIA8gHCAY/ekBIBn96AH9CwQAIA8gB2ohDyAPIB0gGP3pASAZ/egB/QsEACAPIAdqIQ8gDy'
  + 'AeIBj96QEgGf3oAf0LBAAgDkEQaiEOIA4gB0kNAAsgDUEEaiENIA0gCEkNAAsgDEEBaiEMIAwgCUkNAAsL';

let module;  // null without SIMD

function compile() {
  try {
    module ??= new WebAssembly.Module(Uint8Array.from(atob(COMPILED), letter => letter.charCodeAt(0)));
  } catch {
    module = null;
  }
  return module;
}

// Loops over a memory of their own, of so many bytes; the buffer is another one once the memory has grown.
export function makeKernels(bytes, simd = true) {
  if (!simd || !compile()) return inScript(new ArrayBuffer(Math.ceil(bytes / 16) * 16));
  const memory = new WebAssembly.Memory({initial: Math.ceil(bytes / 65536) || 1});
  return {...new WebAssembly.Instance(module, {in: {memory}}).exports, memory, buffer: memory.buffer};
}

function inScript(buffer) {
  const numbers = new Int16Array(buffer), words = new Uint32Array(buffer), scores = new Int32Array(buffer);
  const each = (size, score) => (query, rows, stride, count, out) => {
    [query, rows, stride] = [query / size, rows / size, stride / size];
    for (let row = 0; row < count; row++) scores[out / 4 + row] = score(query, rows + row * stride, stride);
  };
  return {
    buffer,
    dots: each(2, (query, row, length) => {
      let sum = 0;
      for (let i = 0; i < length; i++) sum += numbers[query + i] * numbers[row + i];
      return sum;
    }),
    apart: each(4, (query, row, length) => {
      let apart = 0;
      for (let i = 0; i < length; i++) apart += ones(words[query + i] ^ words[row + i]);
      return -apart;
    }),
  };
}

function ones(word) {
  word -= word >>> 1 & 0x55555555;
  word = (word & 0x33333333) + (word >>> 2 & 0x33333333);
  return Math.imul(word + (word >>> 4) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
