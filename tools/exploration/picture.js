// Runs when an input of a picture is on the page; gradio gives `element` and `props`. The value is what the canvas
// shows, as a data URI, or nothing.
const [canvas, file, clear, note] = ["canvas", "input", ".clear", "[role=alert]"].map(x => element.querySelector(x));
const pen = canvas.getContext("2d");
const BETWEEN = 100;  // milliseconds between two values while one draws
let down = false, picture = false, sent = 0;

const show = () => {
  sent = performance.now();
  props.value = canvas.toDataURL("image/png");
};
const wipe = () => {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  file.value = note.textContent = "";
  picture = false;
};
const line = event => {
  const box = canvas.getBoundingClientRect();
  pen.lineTo((event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height);
  pen.stroke();
};
const lift = () => {
  if (down) show();
  down = false;
};

if (props.brush) {
  canvas.classList.add("drawn");
  Object.assign(pen, { lineWidth: props.brush, lineCap: "round", lineJoin: "round" });
  canvas.addEventListener("pointerdown", event => {
    if (picture) wipe();
    down = true;
    canvas.setPointerCapture(event.pointerId);
    pen.beginPath();
    line(event);
    line(event);
  });
  canvas.addEventListener("pointermove", event => {
    if (!down) return;
    line(event);
    if (performance.now() - sent > BETWEEN) show();
  });
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
}

clear.addEventListener("click", () => {
  wipe();
  props.value = "";
});

const paint = (image, width, height) => {
  const scale = Math.max(canvas.width / width, canvas.height / height);  // fills the canvas; what lies over is cut off
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingEnabled = scale < 1;  // an example keeps its pixels
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, (canvas.width - scale * width) / 2, (canvas.height - scale * height) / 2, scale * width, scale * height);
  picture = true;
  show();
};

for (const example of element.querySelectorAll(".examples button"))
  example.addEventListener("click", () => {
    wipe();
    const image = example.querySelector("img");
    paint(image, image.naturalWidth, image.naturalHeight);
  });

const load = async upload => {
  if (upload.size > props.max_bytes) throw `has more than ${props.max_bytes / 2 ** 20} MiB: choose a smaller picture`;
  const image = new Image();
  image.src = URL.createObjectURL(upload);
  try {
    await new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject }))
      .catch(() => { throw "cannot be read as a picture: choose a PNG or JPEG file"; });
    const { naturalWidth: width, naturalHeight: height } = image;  // known before the browser decodes the pixels
    if (width * height > props.max_pixels) throw `has ${width} x ${height} pixels: choose one of at most ${props.max_pixels / 1e6} million`;
    paint(image, width, height);
  } finally {
    URL.revokeObjectURL(image.src);
  }
};

file.addEventListener("change", () => {
  const upload = file.files[0];
  note.textContent = "";
  if (upload) load(upload).catch(reason => { note.textContent = `${upload.name} ${reason}`; });
});
