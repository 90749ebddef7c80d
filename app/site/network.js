// Runs a student by the loops of kernels.js: a network of convolutions, one photo at a time. One that it cannot run, it
// refuses when it is made. A tensor is `{dims, strides, at}` in one memory of floats; maps lie there pixel by pixel.

import {makeKernels} from './kernels.js';
import {readGraph} from './onnx.js';

const ROOM = 2 ** 24;  // floats of memory at first: what is not used is not there, and growing is dear
const LANES = 8;  // channels that a loop takes at once
const align = count => Math.ceil(count / LANES) * LANES;
const size = dims => dims.reduce((product, each) => product * each, 1);

const BINARY = {Add: null, Sub: null, Mul: null, Div: null, Max: Math.max, Min: Math.min, Greater: (a, b) => a > b ? 1 : 0};
const UNARY = {
  Relu: a => a > 0 ? a : 0, Sqrt: Math.sqrt, Sigmoid: a => 1 / (1 + Math.exp(-a)),
  HardSwish: a => a * Math.min(Math.max(a / 6 + 0.5, 0), 1),
};
const REDUCE = ['ReduceMean', 'ReduceSum', 'ReduceL2'];

// A run of `count` elements of `f`, from p and q to r, by steps a, b and c. The frequent ones have loops of their own, as
// a call for each element takes several times as long.
function loop(op, f, p, q, r, count, a, b, c) {
  switch (op) {
    case 'Add': for (let i = 0; i < count; i++, p += a, q += b, r += c) f[r] = f[p] + f[q]; break;
    case 'Sub': for (let i = 0; i < count; i++, p += a, q += b, r += c) f[r] = f[p] - f[q]; break;
    case 'Mul': for (let i = 0; i < count; i++, p += a, q += b, r += c) f[r] = f[p] * f[q]; break;
    case 'Div': for (let i = 0; i < count; i++, p += a, q += b, r += c) f[r] = f[p] / f[q]; break;
    case 'copy': for (let i = 0; i < count; i++, p += a, r += c) f[r] = f[p]; break;
    default: for (let i = 0; i < count; i++, p += a, q += b, r += c) f[r] = op(f[p], f[q]);
  }
}

// The numbers of a constant, each stretch of them by its scale.
function multiply({values, scales}) {
  if (!scales) return values;
  const products = new Float32Array(values.length), length = values.length / scales.length;
  for (let stretch = 0, i = 0; stretch < scales.length; stretch++) {
    for (const scale = scales[stretch], end = i + length; i < end; i++) products[i] = values[i] * scale;
  }
  return products;
}

export class Network {
  // Of a file's bytes, for `(side, side, 3)` pixels; `output` is the tensor of the graph that is wanted.
  constructor(bytes, output, side) {
    const {nodes, constants} = readGraph(bytes);
    Object.assign(this, {constants, output, side, kernels: makeKernels(4 * ROOM), used: 0, free: []});
    if (!this.kernels.memory) throw new Error('no SIMD');
    this.nodes = this.choose(nodes);
    const unknown = this.nodes.find(node => !this[node.op] && !(node.op in BINARY) && !UNARY[node.op] && !REDUCE.includes(node.op));
    if (unknown) throw new Error(`the operator ${unknown.op}`);
    this.floats = new Float32Array(this.kernels.buffer);
    for (const node of this.nodes) if (node.op === 'Conv') this.pack(node);
    this.kept = new Map();
    for (const name of new Set(this.nodes.flatMap(node => node.op === 'Conv' ? node.inputs[0] : node.inputs))) {
      if (constants.has(name)) this.kept.set(name, this.place(constants.get(name)));
    }
    constants.clear();
    this.start = this.used;
  }

  // The output as floats.
  run(pixels) {
    this.used = this.start;
    this.free = [];
    const known = new Map(this.kept);
    known.set(this.input, this.place({dims: [1, this.side, this.side, 3], values: pixels}));
    for (const [place, node] of this.nodes.entries()) {
      const inputs = node.inputs.map(name => known.get(name));
      const run = this[node.op] ?? (node.op in BINARY ? this.combine : UNARY[node.op] ? this.change : this.reduce);
      known.set(node.outputs[0], run.call(this, node, ...inputs));
      for (const name of this.last[place]) this.release(known.get(name));
    }
    const {at, dims} = known.get(this.output);
    return this.floats.slice(at, at + size(dims));
  }

  // The nodes that the output needs, in their order, without what makes floats of constants, each convolution with what clips it.
  choose(nodes) {
    const {constants} = this, wanted = new Set([this.output]), uses = new Map();
    let kept = nodes.toReversed().filter(node => {
      if (!wanted.has(node.outputs[0])) return false;
      node.inputs.forEach(name => { wanted.add(name); uses.set(name, (uses.get(name) ?? 0) + 1); });
      return true;
    }).reverse().filter(({op, inputs: [name, by], outputs}) => {
      const constant = constants.get(name), scale = constants.get(by);
      if (!constant || op !== 'Cast' && !(op === 'Mul' && scale?.dims[0] === constant.dims[0] && size(scale.dims) === scale.dims[0])) return true;
      constants.set(outputs[0], scale ? {...constant, scales: scale.values} : constant);
      return false;
    });
    const made = new Map(kept.map(node => [node.outputs[0], node]));
    kept = kept.filter(({op, inputs: [name, low, high], outputs}) => {
      const before = made.get(name), value = (of, otherwise) => of ? constants.get(of).values[0] : otherwise;
      if (op !== 'Relu' && op !== 'Clip' || before?.op !== 'Conv' || uses.get(name) > 1) return true;
      if ([low, high].some(bound => bound && !constants.has(bound))) return true;
      Object.assign(before, {low: op === 'Relu' ? 0 : value(low, -Infinity), most: value(high, Infinity), outputs});
      return false;
    });
    this.input = [...wanted].find(name => name && !made.has(name) && !constants.has(name) && !nodes.some(({outputs}) => outputs.includes(name)));
    const lastUse = new Map(kept.flatMap((node, place) => node.inputs.map(name => [name, place])));
    this.last = kept.map((node, place) => [...new Set(node.inputs)].filter(name => lastUse.get(name) === place && name !== this.output && !constants.has(name)));
    return kept;
  }

  // Memory

  allocate(count) {
    const place = this.free.findIndex(each => each.count >= count && each.count < 2 * count);
    if (place >= 0) return this.free.splice(place, 1)[0];
    const at = this.used;
    this.used += align(count);
    if (this.used > this.floats.length) {
      const {memory} = this.kernels;
      memory.grow(Math.ceil(8 * this.used / 65536));
      this.floats = new Float32Array(memory.buffer);
    }
    return {at, count: align(count)};
  }

  release(tensor) {
    if (tensor.room && --tensor.room.users === 0) this.free.push(tensor.room);
  }

  // A tensor without values; a map has its channels together, up to a whole number of lanes, and room behind it for what
  // loops read and write beyond the end.
  make(dims) {
    const strides = dims.map((_, axis) => size(dims.slice(axis + 1)));
    let count = size(dims);
    if (dims.length === 4) {
      const [, channels, high, wide] = dims, width = align(channels);
      strides.splice(0, 4, high * wide * width, 1, wide * width, width);
      count = dims[0] * high * wide * width + 16 * width;
    }
    const room = this.allocate(count);
    room.users = 1;
    return {dims, strides, at: room.at, room};
  }

  view(tensor, dims, strides) {
    if (tensor.room) tensor.room.users++;
    return {...tensor, dims, strides};
  }

  place({dims, ...constant}) {
    const values = multiply(constant), tensor = {dims, strides: dims.map((_, axis) => size(dims.slice(axis + 1))), at: this.allocate(values.length).at};
    this.floats.set(values, tensor.at);
    return tensor;
  }

  list({at, dims}) {
    return [...this.floats.subarray(at, at + size(dims))];
  }

  // Element by element

  // Runs `op` over all elements of some dims, from two tensors to a third, the longest axis innermost.
  walk(op, dims, a, b, out) {
    const lengths = [...Array(4 - dims.length).fill(1), ...dims];
    const steps = [a, b, out].map(({dims: own, strides}) => [...Array(4 - own.length).fill(0), ...strides.map((step, axis) => own[axis] === 1 ? 0 : step)]);
    const [x, y, z, inner] = [0, 1, 2, 3].sort((one, other) => lengths[one] - lengths[other]), [s, t, u] = steps;
    for (let i = 0; i < lengths[x]; i++) for (let j = 0; j < lengths[y]; j++) for (let k = 0; k < lengths[z]; k++) {
      loop(op, this.floats, a.at + i * s[x] + j * s[y] + k * s[z], b.at + i * t[x] + j * t[y] + k * t[z],
        out.at + i * u[x] + j * u[y] + k * u[z], lengths[inner], s[inner], t[inner], u[inner]);
    }
    return out;
  }

  combine({op}, a, b) {
    const rank = Math.max(a.dims.length, b.dims.length), at = ({dims}, axis) => dims[axis - rank + dims.length] ?? 1;
    const dims = Array.from({length: rank}, (_, axis) => Math.max(at(a, axis), at(b, axis)));
    return this.walk(BINARY[op] ?? op, dims, a, b, this.make(dims));
  }

  change({op}, a, each = UNARY[op]) {
    return this.walk(each, a.dims, a, a, this.make(a.dims));
  }

  // All numbers are floats here.
  Cast({to}, a) {
    if (to !== 1) throw new Error('a cast of that kind');
    return this.view(a, a.dims, a.strides);
  }

  Clip(node, a, low, high) {
    const least = low ? this.floats[low.at] : -Infinity, most = high ? this.floats[high.at] : Infinity;
    return this.change(node, a, value => Math.min(Math.max(value, least), most));
  }

  HardSigmoid({alpha = 0.2, beta = 0.5, ...node}, a) {
    return this.change(node, a, value => Math.min(Math.max(alpha * value + beta, 0), 1));
  }

  reduce({op, axes, keepdims = 1}, a, given) {
    const chosen = (axes ?? (given ? this.list(given) : a.dims.map((_, axis) => axis))).map(axis => (axis + a.dims.length) % a.dims.length);
    const out = this.make(a.dims.map((length, axis) => chosen.includes(axis) ? 1 : length)), count = size(a.dims) / size(out.dims);
    const terms = op === 'ReduceL2' ? this.combine({op: 'Mul'}, a, a) : a, left = (_, axis) => keepdims || !chosen.includes(axis);
    this.floats.fill(0, out.at, out.at + out.room.count);
    this.walk('Add', a.dims, terms, out, out);
    if (terms !== a) this.release(terms);
    if (op !== 'ReduceSum') this.walk(op === 'ReduceL2' ? Math.sqrt : sum => sum / count, out.dims, out, out, out);
    return Object.assign(out, {dims: out.dims.filter(left), strides: out.strides.filter(left)});
  }

  // Shapes

  Shape({start = 0, end}, {dims}) {
    return this.place({dims: [dims.slice(start, end).length], values: dims.slice(start, end)});
  }

  Transpose({perm}, a) {
    return this.view(a, perm.map(axis => a.dims[axis]), perm.map(axis => a.strides[axis]));
  }

  Reshape(node, a, shape) {
    const asked = this.list(shape).map((length, axis) => length || a.dims[axis]), known = size(asked.filter(length => length > 0));
    return this.flat(a, asked.map(length => length < 0 ? size(a.dims) / known : length));
  }

  Flatten({axis = 1}, a) {
    return this.flat(a, [size(a.dims.slice(0, axis)), size(a.dims.slice(axis))]);
  }

  // The same elements in other dims, row by row.
  flat(a, dims) {
    const copy = this.make([size(a.dims)]), like = {...copy, dims: a.dims, strides: a.dims.map((_, axis) => size(a.dims.slice(axis + 1)))};
    this.walk('copy', a.dims, a, a, like);
    return Object.assign(copy, {dims, strides: dims.map((_, axis) => size(dims.slice(axis + 1)))});
  }

  Expand(node, a, shape) {
    const dims = this.list(shape);
    return this.view(a, dims, dims.map((_, axis) => {
      const own = axis - dims.length + a.dims.length;
      return a.dims[own] > 1 ? a.strides[own] : 0;
    }));
  }

  Concat({axis}, ...parts) {
    const along = (axis + parts[0].dims.length) % parts[0].dims.length;
    const out = this.make(parts[0].dims.map((length, each) => each === along ? parts.reduce((sum, {dims}) => sum + dims[each], 0) : length));
    let {at} = out;
    for (const part of parts) {
      this.walk('copy', part.dims, part, part, {...out, dims: part.dims, at});
      at += part.dims[along] * out.strides[along];
    }
    return out;
  }

  // Products

  MatMul(node, a, b) {
    return this.Gemm({}, a, b);
  }

  Gemm({alpha = 1, beta = 1, transA = 0, transB = 0}, a, b, bias) {
    if (transA || a.dims.length !== 2) throw new Error('a product of that kind');
    const [rows, inner] = a.dims, columns = b.dims[transB ? 0 : 1], [down, across] = transB ? b.strides.toReversed() : b.strides;
    const out = this.make([rows, columns]), {floats} = this;
    for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
      let sum = 0;
      for (let i = 0, p = a.at + row * a.strides[0], q = b.at + column * across; i < inner; i++, p += a.strides[1], q += down) sum += floats[p] * floats[q];
      floats[out.at + row * columns + column] = alpha * sum + (bias ? beta * floats[bias.at + (bias.dims.at(-1) === 1 ? 0 : column)] : 0);
    }
    return out;
  }

  // Puts the weights of a convolution in the order of its loop.
  pack(node) {
    const {dims: [out, inner, high, wide], values, scales} = this.constants.get(node.inputs[1]) ?? {dims: []}, {group = 1, dilations = [1], auto_pad = 'NOTSET'} = node;
    const depthwise = group > 1 && group === out && inner === 1, area = high * wide, width = align(out ?? 0);
    if (!out || !depthwise && group > 1 || depthwise && (high !== wide || new Set(node.strides).size > 1) || dilations.some(each => each > 1) || auto_pad !== 'NOTSET') throw new Error('a convolution of that kind');
    const packed = new Float32Array(width * inner * area), bias = new Float32Array(width);
    for (let o = 0, step = depthwise ? width : LANES; o < out; o++) {
      const scale = scales ? scales[o] : 1;
      for (let place = 0, to = depthwise ? o : (o - o % LANES) * inner * area + o % LANES; place < area; place++) {
        for (let i = 0, from = o * inner * area + place; i < inner; i++, from += area, to += step) packed[to] = scale * values[from];
      }
    }
    if (node.inputs[2]) bias.set(this.constants.get(node.inputs[2]).values);
    Object.assign(node, {depthwise, out, side: [high, wide], weights: this.place({dims: [], values: packed}).at, bias: this.place({dims: [], values: bias}).at});
    node.inputs.length = 1;
  }

  Conv({depthwise, out, side: [high, wide], weights, bias, pads = [0, 0, 0, 0], strides: [down, across] = [1, 1], low = -Infinity, most = Infinity}, given) {
    const {kernels} = this, [, channels] = given.dims, own = depthwise && given.strides[3] !== align(channels) ? this.walk('copy', given.dims, given, given, this.make(given.dims)) : given;
    const x = pads.some(Boolean) ? this.widen(own, pads) : own, [, , tall, broad] = x.dims, [, one, line, pixel] = x.strides;
    const rows = Math.floor((tall - high) / down) + 1, columns = Math.floor((broad - wide) / across) + 1;
    const y = this.make([1, out, rows, columns]), width = 4 * align(out), to = [4 * weights, 4 * bias, 4 * y.at, width];
    if (depthwise) kernels.depthwise(4 * x.at, 4 * line, down, high, ...to, columns, rows, low, most);
    else if (high * wide * down * across === 1 && one === 1 && line === columns * pixel) {
      kernels.pointwise(4 * x.at, 4 * pixel, channels, ...to, rows * columns, low, most);
    } else {
      const length = high * wide * channels, flat = this.make([1, length, rows, columns]);
      this.unfold(x, flat, [high, wide, down, across]);
      kernels.pointwise(4 * flat.at, 4 * align(length), length, ...to, rows * columns, low, most);
      this.release(flat);
    }
    if (x !== own) this.release(x);
    if (own !== given) this.release(own);
    return y;
  }

  // With a margin of zeros.
  widen(x, [top, left, bottom, right]) {
    const [, channels, high, wide] = x.dims, out = this.make([1, channels, high + top + bottom, wide + left + right]), {floats} = this;
    const [, , line, pixel] = out.strides, length = wide * pixel;
    floats.fill(0, out.at, out.at + out.dims[2] * line);
    for (let y = 0; y < high; y++) {
      const from = x.at + y * x.strides[2], to = out.at + (y + top) * line + left * pixel;
      if (x.strides[1] === 1 && x.strides[3] === pixel) floats.copyWithin(to, from, from + length);
      else for (let i = 0; i < wide; i++) for (let c = 0; c < channels; c++) floats[to + i * pixel + c] = floats[from + i * x.strides[3] + c * x.strides[1]];
    }
    return out;
  }

  // What the window sees at each place, as the channels of one pixel.
  unfold(x, flat, [high, wide, down, across]) {
    const [, channels] = x.dims, [, one, line, pixel] = x.strides, [, , rows, columns] = flat.dims, {floats} = this;
    for (let y = 0; y < rows; y++) for (let i = 0; i < columns; i++) {
      let to = flat.at + y * flat.strides[2] + i * flat.strides[3];
      for (let v = 0; v < high; v++) for (let u = 0; u < wide; u++) {
        for (let c = 0, from = x.at + (y * down + v) * line + (i * across + u) * pixel; c < channels; c++, from += one) floats[to++] = floats[from];
      }
    }
  }
}
