// Runs when an input of a picture is on the page; gradio gives `element` and `props`. The value is what the canvas
// shows, as a data URI, or nothing.
const [canvas, file, clear, note] = ["canvas", "input", "button", "[role=alert]"].map(x => element.querySelector(x));
const pen = canvas.getContext("2d");
let down = false;

const show = () => { props.value = canvas.toDataURL("image/png"); };
const wipe = () => pen.clearRect(0, 0, canvas.width, canvas.height);
const line = event => {
  const box = canvas.getBoundingClientRect();
  pen.lineTo((event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height);
  pen.stroke();
};
const lift = () => {
  if (down) show();
  down = false;
};

if (props.drawn) {
  Object.assign(pen, { lineWidth: 18, lineCap: "round", lineJoin: "round" });
  canvas.addEventListener("pointerdown", event => {
    down = true;
    canvas.setPointerCapture(event.pointerId);
    pen.beginPath();
    line(event);
    line(event);
  });
  canvas.addEventListener("pointermove", event => { if (down) line(event); });
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
}

clear.addEventListener("click", () => {
  wipe();
  file.value = note.textContent = props.value = "";
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
    const scale = Math.max(canvas.width / width, canvas.height / height);  // fills the canvas; what lies over is cut off
    wipe();
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, (canvas.width - scale * width) / 2, (canvas.height - scale * height) / 2, scale * width, scale * height);
    show();
  } finally {
    URL.revokeObjectURL(image.src);
  }
};

file.addEventListener("change", () => {
  const upload = file.files[0];
  note.textContent = "";
  if (upload) load(upload).catch(reason => { note.textContent = `${upload.name} ${reason}`; });
});
