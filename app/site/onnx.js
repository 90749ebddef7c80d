// Reads the graph of an ONNX file: its nodes and its constants. Fields are numbered as in onnx.proto.

const READ = {1: Float32Array, 5: Int16Array, 7: BigInt64Array, 10: Uint16Array};  // float, int16, int64, half float

// The fields of a message, as [number, value]: a whole number, a float, or the bytes of what has a length.
function* fields(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const whole = () => {
    const start = at;
    while (bytes[at++] & 128);
    const negative = at - start === 10;  // of 64 bits, all inverted
    let value = 0;
    for (let i = at - 1 - negative; i >= start; i--) value = 128 * value + ((negative ? ~bytes[i] : bytes[i]) & 127);
    return negative ? -1 - value : value;
  };
  while (at < bytes.length) {
    const key = whole(), kind = key & 7;
    if (kind === 0) yield [key >> 3, whole()];
    else if (kind === 5) yield [key >> 3, view.getFloat32((at += 4) - 4, true)];
    else {
      const length = kind === 1 ? 8 : whole();
      yield [key >> 3, bytes.subarray(at, at += length)];
    }
  }
}

// One message as an object: `names` of the fields that are wanted, those that repeat end with a star.
function read(bytes, names) {
  const message = {};
  for (const name of Object.values(names)) if (name.endsWith('*')) message[name.slice(0, -1)] = [];
  for (const [number, value] of fields(bytes)) {
    const name = names[number];
    if (name?.endsWith('*')) message[name.slice(0, -1)].push(value);
    else if (name) message[name] = value;
  }
  return message;
}

const text = bytes => new TextDecoder().decode(bytes ?? new Uint8Array());

// Whole numbers that repeat: each in a field of its own, or all in one.
function wholes(values) {
  return values.flatMap(value => {
    if (typeof value === 'number') return value;
    const found = [], one = new Uint8Array(value.length + 1);
    for (let at = 0; at < value.length;) {
      let end = at;
      while (value[end] & 128) end++;
      one[0] = 8;  // a field of its own
      one.set(value.subarray(at, ++end), 1);
      found.push([...fields(one.subarray(0, end - at + 1))][0][1]);
      at = end;
    }
    return found;
  });
}

const POWERS = Float32Array.from({length: 31}, (_, exponent) => 2 ** ((exponent || 1) - 25));

function half(bits) {
  const exponent = bits >> 10 & 31, fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * POWERS[exponent] * (exponent ? 1024 + fraction : fraction);
}

function readTensor(bytes) {
  const {dims, type, name, raw} = read(bytes, {1: 'dims*', 2: 'type', 8: 'name', 9: 'raw'});
  if (!READ[type] || !raw) throw new Error(`a tensor of type ${type}`);
  const numbers = new READ[type](raw.slice().buffer), each = {7: Number, 10: half}[type];
  const values = each ? Float32Array.from(numbers, each) : new Float32Array(numbers);
  return {name: text(name), dims: wholes(dims), values};
}

function readAttribute(bytes) {
  const {name, float, whole, floats, list, string, tensor} = read(bytes,
    {1: 'name', 2: 'float', 3: 'whole', 4: 'string', 5: 'tensor', 7: 'floats*', 8: 'list*'});
  const value = tensor ? readTensor(tensor) : string ? text(string) : list.length ? wholes(list) : floats.length ? floats : float ?? whole;
  return [text(name), value];
}

// `{nodes: [{op, inputs, outputs, ...attributes}], constants: Map of name to {dims, values}}`; values are floats.
export function readGraph(bytes) {
  const {graph} = read(bytes, {7: 'graph'});
  const {nodes, tensors} = read(graph, {1: 'nodes*', 5: 'tensors*'});
  return {
    constants: new Map(tensors.map(readTensor).map(tensor => [tensor.name, tensor])),
    nodes: nodes.map(node => {
      const {inputs, outputs, op, attributes} = read(node, {1: 'inputs*', 2: 'outputs*', 4: 'op', 5: 'attributes*'});
      return {...Object.fromEntries(attributes.map(readAttribute)), op: text(op), inputs: inputs.map(text), outputs: outputs.map(text)};
    }),
  };
}
