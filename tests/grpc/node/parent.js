'use strict';
// Plays the program that starts tabml_grpc: serves the model files, spawns the server, drives it, and prints one JSON
// object a scenario.
//
//   node parent.js PYTHON DIR PICTURE [--raw PPM] [--only-ml]
//
// DIR has DIR/<model_id>/<file>; PICTURE is a JPEG with one face, PPM (P6) the same picture's pixels. With --only-ml
// the files are served by ml.ModelManagementService/GetModelFile alone, as the first parents did.

const { execFileSync, spawn } = require('node:child_process');
const { createHash } = require('node:crypto');
const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const MIB = 1 << 20;
const READY_S = 30;
const CALL_S = 60;
const EXIT_S = 30;
const IDLE_S = 5; // how soon a cancelled call must be gone from the statistics
const FIRST_MS = 1_700_000_000_000; // a timestamp that needs more than 32 bits

const definition = protoLoader.loadSync(
  ['ml/ml_inference.proto', ...['files', 'models', 'runtime', 'text', 'vision'].map((name) => `v1/${name}.proto`)]
    .map((name) => `tabml_grpc/${name}`),
  {
    includeDirs: [path.join(__dirname, '..', '..', '..', 'protos')],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
  },
);
const { ml, tabml } = grpc.loadPackageDefinition(definition);

// ---- the parent's own server: model files ----------------------------------------------------------------------

/** The names of a model's files; none where there is no such model, or its name leads out of `folder`. */
function fileNames(folder, modelId) {
  return fs.readdirSync(folder).includes(modelId) ? fs.readdirSync(path.join(folder, modelId)).sort() : [];
}

/** The content of a model's file, or null where there is none. */
function fileContent(folder, modelId, name) {
  return fileNames(folder, modelId).includes(name) ? fs.readFileSync(path.join(folder, modelId, name)) : null;
}

function sha256(...contents) {
  const hash = createHash('sha256');
  contents.forEach((content) => hash.update(content));
  return hash.digest('hex');
}

/** Writes messages no quicker than they are taken. */
async function sendAll(call, messages) {
  const gone = new Promise((resolve) => call.once('cancelled', resolve));
  for (const message of messages) {
    if (call.cancelled) return;
    if (!call.write(message)) await Promise.race([once(call, 'drain'), gone]);
  }
  call.end();
}

/** Chunks of `content` from `start` to before `end`; of an empty file one, which is empty. */
function* chunksOf(content, start = 0, end = content.length, length = MIB) {
  let offset = start;
  do {
    const data = content.subarray(offset, Math.min(offset + length, end));
    yield { data, offset, total_size: content.length };
    offset += data.length;
  } while (offset < end);
}

function notFound(...names) {
  return { code: grpc.status.NOT_FOUND, details: `this parent has no ${names.join('/')}` };
}

/** A server of model files on a free port; `asked` fills with what it was asked for. */
async function serveFiles(folder, onlyMl, asked) {
  const server = new grpc.Server();

  const getModelFile = (call) => {
    const { model_id, file_path } = call.request;
    asked.push(`ml.GetModelFile ${model_id}/${file_path}`);
    const content = fileContent(folder, model_id, file_path);
    if (content === null) return call.emit('error', notFound(model_id, file_path));
    const chunks = [...chunksOf(content)].map((chunk) => ({
      ...chunk,
      is_last: chunk.offset + chunk.data.length === content.length,
    }));
    return sendAll(call, chunks);
  };

  const listFiles = (call, answer) => {
    const { model_id } = call.request;
    asked.push(`ListFiles ${model_id}`);
    const files = fileNames(folder, model_id).map((name) => {
      const content = fileContent(folder, model_id, name);
      return { path: name, size: content.length, sha256: sha256(content) };
    });
    answer(...(files.length ? [null, { files }] : [notFound(model_id)]));
  };

  const readFile = (call) => {
    const { model_id, path: name, offset, length, chunk_bytes } = call.request;
    asked.push(`ReadFile ${model_id}/${name}`);
    const content = fileContent(folder, model_id, name);
    if (content === null) return call.emit('error', notFound(model_id, name));
    if (offset < 0 || offset > content.length || length < 0) {
      return call.emit('error', { code: grpc.status.OUT_OF_RANGE, details: `the file has ${content.length} bytes` });
    }
    const end = length ? Math.min(offset + length, content.length) : content.length;
    const chunks = [...chunksOf(content, offset, end, Math.min(chunk_bytes || MIB, MIB))];
    chunks[0].sha256 = sha256(content);
    return sendAll(call, chunks);
  };

  // Methods that are left out are UNIMPLEMENTED.
  if (onlyMl) server.addService(ml.ModelManagementService.service, { GetModelFile: getModelFile });
  else server.addService(tabml.v1.ModelFileService.service, { ListFiles: listFiles, ReadFile: readFile });
  const port = await new Promise((resolve, reject) => {
    const bound = (problem, port) => (problem ? reject(problem) : resolve(port));
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), bound);
  });
  return { server, port };
}

// ---- the child -----------------------------------------------------------------------------------------------------

/** A pipe for the child's stderr, which nobody reads while it lives; `fill` leaves no room in it. */
function unreadPipe() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'parent-'));
  const fifo = path.join(folder, 'stderr');
  execFileSync('mkfifo', [fifo]);
  const ours = fs.openSync(fifo, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
  const theirs = fs.openSync(fifo, fs.constants.O_WRONLY); // without O_NONBLOCK: setting it is the child's business
  fs.rmSync(folder, { recursive: true });
  const fill = () => {
    for (const size of [4096, 1]) {
      try {
        for (;;) fs.writeSync(ours, Buffer.alloc(size, '.'));
      } catch (problem) {
        if (problem.code !== 'EAGAIN') throw problem;
      }
    }
  };
  const remains = () => {
    const content = Buffer.alloc(MIB);
    try {
      return content.toString('utf8', 0, fs.readSync(ours, content));
    } catch {
      return '';
    }
  };
  return { theirs, fill, remains };
}

/** Starts the server and waits for its one line. */
async function startChild(python, filePort) {
  const stderr = unreadPipe();
  const begun = performance.now();
  const child = spawn(python, ['-m', 'tabml_grpc', '--port', '0', '--file-endpoint', `127.0.0.1:${filePort}`], {
    stdio: ['pipe', 'pipe', stderr.theirs], // stdin stays open, and nothing is ever written to it
  });
  process.on('exit', () => child.kill('SIGKILL'));
  const exited = new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
  const lines = []; // of stdout
  const ready = new Promise((resolve, reject) => {
    child.on('error', reject);
    const output = readline.createInterface({ input: child.stdout });
    output.on('line', (line) => {
      lines.push(line);
      if (line.startsWith('TABML/1 READY ')) resolve(JSON.parse(line.slice('TABML/1 READY '.length)));
    });
  });
  const late = sleep(READY_S * 1000, 'was not ready in time', { ref: false });
  const first = await Promise.race([ready, late, exited.then(({ code }) => `ended with ${code}`)]);
  if (typeof first === 'string') throw new Error(`the server ${first}: ${stderr.remains()}${lines.join(' / ')}`);
  const readyMs = performance.now() - begun;
  stderr.fill();
  return { pid: child.pid, ready: first, readyMs, lines, exited };
}

/** Stubs for every service of the child. */
function connect(address) {
  // The receive limit is the usual one of 4 MiB.
  const open = (Service) => new Service(address, grpc.credentials.createInsecure(), { 'grpc.enable_http_proxy': 0 });
  return {
    models: open(ml.ModelManagementService),
    media: open(ml.MediapipeService),
    modelsV1: open(tabml.v1.ModelService),
    runtime: open(tabml.v1.RuntimeService),
    text: open(tabml.v1.TextService),
    transformers: open(ml.TransformersService),
  };
}

const withDeadline = () => ({ deadline: Date.now() + CALL_S * 1000 });

/** A unary call as a promise. */
function ask(stub, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => {
    stub[method](request, metadata, withDeadline(), (problem, answer) => (problem ? reject(problem) : resolve(answer)));
  });
}

/** Every message of a stream. */
async function collect(call) {
  const messages = [];
  for await (const message of call) messages.push(message);
  return messages;
}

/** How a call that should fail has ended. */
async function refusal(promise) {
  try {
    await promise;
    return { code: 'OK' };
  } catch (problem) {
    const [details] = problem.metadata?.get('grpc-status-details-bin') ?? [];
    return {
      code: grpc.status[problem.code] ?? String(problem),
      message: problem.details,
      details: details?.toString('base64') ?? null, // google.rpc.Status
    };
  }
}

/** Metadata with options that ml's requests have no fields for. */
function visionConfig(config) {
  const metadata = new grpc.Metadata();
  metadata.set('tabml-options-bin', definition['tabml.v1.VisionConfig'].serialize(config));
  return metadata;
}

function frameOf(picture, number) {
  return { frame_data: picture, format: 'jpeg', timestamp_ms: FIRST_MS + 33 * number, frame_number: number };
}

function readPpm(name) {
  const content = fs.readFileSync(name);
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(content.toString('latin1', 0, 64));
  return { image_data: content.subarray(header[0].length), width: Number(header[1]), height: Number(header[2]) };
}

// ---- the scenarios, in the order they are played ------------------------------------------------------------------

const scenarios = {
  async load({ models, modelsV1 }) {
    const load = (model_id) => collect(modelsV1.LoadModel({ model_id }, withDeadline()));
    const messages = await load('face_detector');
    const again = await load('face_detector');
    return {
      progress: messages.map(({ phase, bytes_done, bytes_total }) => ({ phase, bytes_done, bytes_total })),
      models: messages.map((message) => message.model), // in the last message only
      again: again.at(-1).model,
      hand_landmarker: await ask(models, 'LoadModel', { model_id: 'hand_landmarker' }),
      loaded: (await ask(models, 'GetLoadedModels', {})).models,
      missing: await refusal(load('pose_landmarker_full')),
      missing_ml: await refusal(ask(models, 'LoadModel', { model_id: 'pose_landmarker_full' })),
    };
  },

  async detect({ media }, { picture, raw }) {
    const detect = (request, metadata) => ask(media, 'DetectFaces', request, metadata);
    const jpeg = { image_data: picture, format: 'jpeg' };
    return {
      jpeg: await detect(jpeg),
      raw: raw && (await detect({ ...raw, format: 'rgb' })),
      echo: await detect(jpeg, visionConfig({ timestamp_ms: FIRST_MS, frame_number: 7 })),
      strict: await detect(jpeg, visionConfig({ min_detection_confidence: 1 })),
      short: await refusal(detect({ image_data: Buffer.alloc(100), format: 'rgb', width: 640, height: 480 })),
      option: await refusal(detect(jpeg, visionConfig({ num_hands: 1 }))),
    };
  },

  async stream({ media }, { picture }) {
    // One frame after the other: each waits for the answer to the one before.
    const play = async (method, frames, found) => {
      const call = media[method](withDeadline());
      const answers = call[Symbol.asyncIterator]();
      const said = [];
      for (let number = 0; number < frames; number += 1) {
        call.write(frameOf(picture, number));
        const { value, done } = await answers.next();
        if (done) break;
        const { timestamp_ms, frame_number, stats } = value;
        said.push({ timestamp_ms, frame_number, found: value[found].length, problem: stats?.error ?? '' });
      }
      call.end();
      return { answers: said, ended: (await answers.next()).done };
    };
    return {
      first_ms: FIRST_MS,
      faces: await play('StreamFaceDetection', 60, 'faces'),
      hands: await play('StreamHandTracking', 5, 'hands'),
    };
  },

  async cancel({ media, runtime }, { picture }) {
    const stats = async () => {
      const { methods } = await ask(runtime, 'GetStats', {});
      return methods.find(({ method }) => method === '/ml.MediapipeService/StreamFaceMesh') ?? null;
    };
    const call = media.StreamFaceMesh(withDeadline());
    // A camera: it doesn't wait, so there is work under way when the call is cancelled.
    let number = 0;
    const camera = setInterval(() => call.write(frameOf(picture, number++)), 33);
    const answers = call[Symbol.asyncIterator]();
    const landmarks = [];
    try {
      while (landmarks.length < 3) landmarks.push((await answers.next()).value.faces[0]?.landmarks.length ?? 0);
    } finally {
      clearInterval(camera);
    }
    const before = await stats();
    call.cancel();
    const cancelled = performance.now();
    const ended = await refusal(collect(answers));
    let after = await stats();
    while (after?.active !== 0 && performance.now() - cancelled < IDLE_S * 1000) {
      await sleep(100);
      after = await stats();
    }
    return { landmarks, before, ended: ended.code, after, idle_ms: performance.now() - cancelled };
  },

  async get_file({ models }, { folder }) {
    const get = (model_id, file_path) => collect(models.GetModelFile({ model_id, file_path }, withDeadline()));
    const files = {};
    for (const model_id of ['face_detector', 'hand_landmarker']) {
      const [name] = fs.readdirSync(path.join(folder, model_id));
      const chunks = await get(model_id, name);
      const data = chunks.map((chunk) => chunk.data);
      files[model_id] = {
        served: sha256(fileContent(folder, model_id, name)),
        received: sha256(...data),
        said: chunks.map((chunk) => chunk.sha256).filter(Boolean),
        offsets: chunks.map((chunk) => chunk.offset),
        lengths: data.map((each) => each.length),
        total_sizes: chunks.map((chunk) => chunk.total_size),
        is_last: chunks.map((chunk) => chunk.is_last),
      };
    }
    return {
      files,
      other_file: await refusal(get('face_detector', 'other.tflite')),
      not_loaded: await refusal(get('pose_landmarker_full', 'pose_landmarker_full.task')),
    };
  },

  async text({ modelsV1, runtime, text, transformers }) {
    const model = 'chatter';
    await collect(modelsV1.LoadModel({ model_id: model, pipeline: 'text-generation', file: 'model.gguf' }, withDeadline()));
    const sampling = { temperature: 0, max_new_tokens: 24 };
    const request = { model, prompt: 'ab ab', sampling };
    const told = async (call) => (await collect(call)).map(({ delta }) => delta);
    const deltas = await told(text.Generate(request, withDeadline()));
    const chat = { model, messages: [{ role: 'user', content: 'ab' }], sampling };
    const old = { model, prompt: 'ab ab', max_length: 24, temperature: 0, top_p: 0.9 };
    const forever = { model, prompt: 'ab', sampling: { max_new_tokens: 110, min_new_tokens: 110 } };
    const call = text.Generate(forever, withDeadline());
    const answers = call[Symbol.asyncIterator]();
    await answers.next();
    call.cancel();
    const ended = await refusal(collect(answers));
    return {
      deltas: deltas.map((delta) => delta.text),
      last: deltas.at(-1),
      chat: (await told(text.Chat(chat, withDeadline()))).map((delta) => delta.text).join(''),
      old: await collect(transformers.GenerateText(old, withDeadline())),
      ended: ended.code,
      after: (await told(text.Generate(request, withDeadline()))).map((delta) => delta.text).join(''),
      schema: await refusal(collect(text.Generate({ ...request, sampling: { json_schema: '{' } }, withDeadline()))),
    };
  },

  async unload({ models, runtime }, { child }) {
    const loaded = async () => (await ask(models, 'GetLoadedModels', {})).models.map(({ model_id }) => model_id);
    const before = await loaded();
    const answer = await ask(models, 'UnloadModel', { model_id: 'face_detector' });
    const again = await refusal(ask(models, 'UnloadModel', { model_id: 'face_detector' }));
    const after = await loaded();
    const drain = await ask(runtime, 'Drain', {});
    const begun = performance.now();
    const exit = await Promise.race([child.exited, sleep(EXIT_S * 1000, null, { ref: false })]);
    return { before, answer, again, after, drain, exit, exit_ms: performance.now() - begun };
  },
};

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      raw: { type: 'string' },
      'only-ml': { type: 'boolean', default: false },
      serve: { type: 'string' }, // a folder: only serve its files, until stdin ends
    },
  });
  if (values.serve) {
    const { port } = await serveFiles(values.serve, values['only-ml'], []);
    console.log(port);
    process.stdin.resume().on('end', () => process.exit());
    return;
  }
  const [python, folder, pictureName] = positionals;
  const picture = fs.readFileSync(pictureName);
  const raw = values.raw ? readPpm(values.raw) : null;
  const asked = [];
  const say = (scenario, said) => console.log(JSON.stringify({ scenario, ...said }));

  const { server, port } = await serveFiles(folder, values['only-ml'], asked);
  const child = await startChild(python, port);
  say('start', { ready: child.ready, spawned_pid: child.pid, ready_ms: child.readyMs });
  const things = { child, folder, picture, raw };
  const stubs = connect(child.ready.address);
  for (const [name, play] of Object.entries(scenarios)) {
    try {
      say(name, await play(stubs, things));
    } catch (problem) {
      say(name, { problem: problem.stack });
      process.exitCode = 1;
    }
  }
  say('end', { asked, stdout: child.lines });
  Object.values(stubs).forEach((stub) => stub.close());
  server.forceShutdown();
  process.exit(); // where the child has not ended it would keep us
}

main().catch((problem) => {
  console.error(problem.message);
  process.exit(1);
});
