// Names an image with the network in model.onnx, in this browser. What Python does with a file before the network sees
// it (helpers/data.py), `decode` does here: the same pixels must come of it.
"use strict";

const ORANGE = [213, 94, 0], BLUE = [0, 114, 178];
const MOST_PIXELS = 40e6;  // of an image that is not reduced while it is read; a browser's memory for one page is small
const element = (id) => document.getElementById(id);
let about, ort, session, newest = 0;

// ------------------------------------------------------------------------------------------- from a file to pixels

const AS_STORED = {colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image"};

/** The image in a file as {rgb, width, height}: upright, white where it is transparent, its colour profile ignored. */
async function decode(file) {
  const begin = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const whole = await createImageBitmap(file, AS_STORED);
  const isJpeg = begin[0] === 0xff && begin[1] === 0xd8;
  const factor = isJpeg ? draft(whole, Math.round(1.3 * about.image_size)) : 1;
  const small = factor > 1 ? await decodeSmaller(file, whole, factor).catch(() => null) : null;
  try {
    return small ? read(small, 1) : read(whole, factor);
  } finally {
    whole.close();
    small?.close();
  }
}

/** A JPEG read at a fraction of its size, by the same arithmetic as Pillow's; null in browsers that can't do this. */
async function decodeSmaller(file, whole, factor) {
  if (!globalThis.ImageDecoder) return null;
  const [width, height] = [whole.width, whole.height].map((side) => Math.ceil(side / factor));
  const decoder = new ImageDecoder({
    data: await file.arrayBuffer(), type: "image/jpeg", colorSpaceConversion: "none",
    desiredWidth: width, desiredHeight: height,
  });
  const {image} = await decoder.decode();
  const bitmap = await createImageBitmap(image, AS_STORED);
  image.close();
  decoder.close();
  return bitmap.width === width && bitmap.height === height ? bitmap : null;
}

/** By how much a JPEG is reduced while it is read, so that its sides keep at least so many pixels, as Pillow does it. */
function draft(bitmap, atLeast) {
  const most = Math.min(Math.floor(bitmap.width / atLeast), Math.floor(bitmap.height / atLeast));
  return [8, 4, 2].find((factor) => most >= factor) ?? 1;
}

/** The pixels of a bitmap, each the mean of factor × factor of its own, which is near what Pillow makes of them.
 *  They are read in strips, to need little memory. */
function read(bitmap, factor) {
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.ceil(side / factor));
  if (width * height > MOST_PIXELS) {
    const millions = (count) => Math.round(count / 1e6);
    throw new RangeError(`it has ${millions(bitmap.width * bitmap.height)} megapixels. ` +
      `Make it smaller first: ${millions(MOST_PIXELS)} are the most`);
  }
  const rgb = new Uint8Array(3 * width * height), rows = factor * Math.ceil(256 / factor);
  for (let top = 0; top < bitmap.height; top += rows) {
    const strip = onWhite(bitmap, top, Math.min(rows, bitmap.height - top));
    rgb.set(shrink(strip, factor), 3 * width * top / factor);
  }
  return {rgb, width, height};
}

/** Some rows of a bitmap as ImageData, on white. */
function onWhite(bitmap, top, rows) {
  const context = contextOf(new OffscreenCanvas(bitmap.width, rows));
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, rows);
  context.drawImage(bitmap, 0, -top);
  return context.getImageData(0, 0, bitmap.width, rows);
}

/** A canvas's context whose pixels are in the computer's own memory: a graphics card may round them otherwise. */
function contextOf(canvas) {
  return canvas.getContext("2d", {willReadFrequently: true});
}

/** RGB bytes of ImageData, each the mean of factor × factor pixels, of fewer at the right and lower borders. */
function shrink({data, width, height}, factor) {
  const [columns, rows] = [width, height].map((side) => Math.ceil(side / factor));
  const sums = new Float64Array(3 * columns * rows), counts = new Float64Array(columns * rows);
  for (let y = 0, from = 0; y < height; y++) {
    for (let x = 0; x < width; x++, from += 4) {
      const to = Math.floor(y / factor) * columns + Math.floor(x / factor);
      counts[to]++;
      for (let i = 0; i < 3; i++) sums[3 * to + i] += data[from + i];
    }
  }
  return Uint8Array.from(sums, (sum, i) => Math.floor(sum / counts[Math.floor(i / 3)] + 0.5));
}

// ------------------------------------------------------------------------------------------ from pixels to an answer

/** What the network says about an image: {probabilities, strangeness, refused, map}. */
async function ask({rgb, width, height}) {
  const found = await session.run({images: new ort.Tensor("uint8", rgb, [1, height, width, 3])});
  const strangeness = found.strangeness?.data[0];
  return {probabilities: [...found.probabilities.data], strangeness, refused: strangeness > about.refused_above,
          map: found.map};
}

/** What speaks for a class at each place, against it below 0: {values, width, height}. */
function evidence(map, best) {
  const [, classes, height, width] = map.dims, size = height * width;
  const values = Array.from({length: size}, (_, place) => {
    let sum = 0;  // what speaks for all classes alike changes no probability
    for (let i = 0; i < classes; i++) sum += map.data[i * size + place];
    return map.data[best * size + place] - sum / classes;
  });
  return {values, width, height};
}

// ----------------------------------------------------------------------------------------------- what the reader sees

const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Name the image in a file; says what went wrong if that can't be done. */
async function lookAt(file) {
  const turn = ++newest;
  document.querySelector("main").ariaBusy = "true";
  element("result").hidden = true;
  say(`Looking at ${file.name} …`);
  await new Promise((done) => setTimeout(done, 30));  // until this is on the screen: what follows lets nothing else run
  let image, answer;
  try {
    image = await decode(file);
    answer = await ask(image);
  } catch (error) {
    if (turn === newest) say(complaint(file, error));
  }
  if (turn !== newest) return;  // another image was chosen meanwhile
  if (answer) show(file.name, image, answer);
  document.querySelector("main").ariaBusy = "false";
}

/** One line about a file that could not be named. */
function complaint(file, error) {
  if (error instanceof RangeError) return `${file.name} is too large: ${error.message}.`;
  if (error.name === "InvalidStateError") return `${file.name} is no image that this browser can read.`;
  return `${file.name} could not be named: ${error.message}.`;
}

function say(text) {
  element("status").textContent = text;
}

function show(fileName, image, {probabilities, refused, map}) {
  const best = probabilities.indexOf(Math.max(...probabilities)), className = about.classes[best];
  say(refused ? `None of these: too unlike the images it learned from. The nearest class is ${className}.`
              : `${className}, ${percent(probabilities[best])}`);
  element("result").dataset.refused = refused;
  element("rows").replaceChildren(...probabilities.map((value, i) => row(about.classes[i], value))
    .sort((one, other) => other.dataset.probability - one.dataset.probability));
  drawImage(image);
  element("image").ariaLabel = `The image ${fileName}`;
  element("reading").hidden = !map;
  if (map) drawPlaces(evidence(map, best), className);
  element("result").hidden = false;
}

/** A row of the table; its data hold every digit. */
function row(className, value) {
  const line = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
  const bar = document.createElement("meter");
  [head.scope, head.textContent, bar.value, bar.ariaHidden] = ["row", className, value, "true"];
  Object.assign(line.dataset, {name: className, probability: value});
  cell.append(bar, percent(value));
  line.append(head, cell);
  return line;
}

/** The pixels that the network was given, on the first canvas. */
function drawImage({rgb, width, height}) {
  const canvas = element("image"), pixels = new ImageData(width, height);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    pixels.data.set([rgb[from], rgb[from + 1], rgb[from + 2], 255], to);
  }
  [canvas.width, canvas.height] = [width, height];
  contextOf(canvas).putImageData(pixels, 0, 0);
}

/** The exact map on the second canvas: a square for each place, the stronger the more it counts. */
function drawPlaces({values, width, height}, className) {
  const canvas = element("places"), pixels = new ImageData(width, height);
  const strongest = Math.max(...values.map(Math.abs)) || 1;
  values.forEach((value, i) => {
    pixels.data.set([...(value > 0 ? ORANGE : BLUE), 255 * 0.8 * Math.abs(value) / strongest], 4 * i);
  });
  [canvas.width, canvas.height] = [width, height];
  contextOf(canvas).putImageData(pixels, 0, 0);
  element("legend").textContent = `Orange speaks for ${className}, blue against it; ${inWords(values, width, height)}`;
  showPlaces();
}

/** Where the strongest place is, for who can't see it. */
function inWords(values, width, height) {
  const place = values.indexOf(Math.max(...values));
  const third = (position, names) => names[Math.min(2, Math.floor(3 * position))];
  const across = third((place % width + 0.5) / width, ["left", "middle", "right"]);
  const down = third((Math.floor(place / width) + 0.5) / height, ["top", "middle", "bottom"]);
  return `most of all what is at the ${down === across ? "middle" : `${down} ${across}`}.`;
}

function showPlaces() {
  const shown = element("show").checked;
  element("places").hidden = element("legend").hidden = !shown;
  element("picture").classList.toggle("places", shown);
}

// -------------------------------------------------------------------------------------------------------- the start

async function start() {
  try {
    about = await (await fetch("about.json")).json();
    ort = await import("./ort.wasm.bundle.min.mjs");
    ort.env.wasm.numThreads = 1;  // more need two headers of the server, which a simple one does not send
    session = await ort.InferenceSession.create("model.onnx", {executionProviders: ["wasm"]});
  } catch (error) {
    say(location.protocol === "file:" ? "Open this page through a server: python -m http.server in its folder."
                                      : `The network could not be loaded (${error.message}). Reload the page.`);
    return;
  }
  element("classes").textContent = `Is it ${about.classes.join(" or ")}? Your image stays in this browser.`;
  say("");
  element("file").disabled = false;
  document.querySelector("main").ariaBusy = "false";
}

element("file").addEventListener("change", ({target}) => {
  if (target.files.length) lookAt(target.files[0]);
});
element("file").addEventListener("click", ({target}) => {
  target.value = "";  // so that the same file may be chosen again
});
element("show").addEventListener("change", showPlaces);
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
addEventListener("dragleave", () => element("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file && session) lookAt(file);
});
start();
