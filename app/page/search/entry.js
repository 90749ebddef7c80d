// The ways in: a file, a drop anywhere, the clipboard, the camera, an address, words.

const LARGE = 400_000, LONGEST = 1024, SENT = 200_000;  // bytes, pixels of its longer side, bytes that travel in time

// A large photo is made smaller before it travels. What is no JPEG, or cannot be drawn here, goes as it is.
async function shrink(file) {
  if (file.size < LARGE || file.type !== 'image/jpeg') return file;
  const drawn = await createImageBitmap(file).catch(() => null);
  const scale = drawn && LONGEST / Math.max(drawn.width, drawn.height);
  if (!scale || scale >= 1) {
    drawn?.close();
    return file;
  }
  const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
  [canvas.width, canvas.height] = [Math.round(drawn.width * scale), Math.round(drawn.height * scale)];
  pen.imageSmoothingQuality = 'high';
  pen.drawImage(drawn, 0, 0, canvas.width, canvas.height);
  drawn.close();
  let made;
  for (const quality of [0.9, 0.8, 0.7]) {
    made = await new Promise(done => canvas.toBlob(done, 'image/jpeg', quality));
    if (!made || made.size <= SENT) break;
  }
  return made ? new File([made], file.name, {type: made.type}) : file;
}

function openEntries(root, takeFile, takeAddress, takeWords, complain) {
  const file = root.querySelector('.file'), over = root.querySelector('.over'), lens = root.querySelector('.lens');
  const video = lens.querySelector('video');
  const isShown = () => root.isConnected && root.offsetParent !== null;

  const takeFirst = files => {
    if (files.length) takeFile(files[0]);
    if (files.length > 1) complain(`One photo at a time: this is the first of ${files.length}.`, 'note');
  };
  const shot = root.querySelector('.shot');
  for (const input of [file, shot]) {
    input.addEventListener('change', () => {
      takeFirst([...input.files]);
      input.value = '';  // so that the same file can be chosen again
    });
  }

  // Files and links from elsewhere. What is dragged within the page itself is not one.
  let inside = 0;
  const carries = event => isShown() && [...event.dataTransfer.types].some(type => type === 'Files' || type === 'text/uri-list');
  document.addEventListener('dragenter', event => {
    if (carries(event) && ++inside) root.classList.add('dropping');
  });
  document.addEventListener('dragleave', event => {
    if (carries(event) && --inside <= 0) root.classList.remove('dropping');
  });
  document.addEventListener('dragover', event => { if (carries(event)) event.preventDefault(); });
  document.addEventListener('drop', event => {
    if (!carries(event)) return;
    event.preventDefault();
    inside = 0;
    root.classList.remove('dropping');
    const {files} = event.dataTransfer, link = event.dataTransfer.getData('text/uri-list').split('\n')[0];
    if (files.length) takeFirst([...files]);
    else if (link) takeAddress(link);
  });

  document.addEventListener('paste', event => {
    if (!isShown()) return;
    const pasted = [...event.clipboardData.files].find(each => each.type.startsWith('image/'));
    const text = event.clipboardData.getData('text').trim();
    const typing = event.target.matches('input, textarea');
    if (pasted) takeFile(pasted);
    else if (!typing && /^https?:\/\/\S+$/.test(text)) takeAddress(text);
    else return;
    event.preventDefault();
  });

  root.querySelector('.link').addEventListener('submit', event => {
    event.preventDefault();
    const box = root.querySelector('.address'), typed = box.value.trim();
    if (!typed) return;
    if ('words' in box.dataset && !/^https?:\/\//.test(typed)) takeWords(typed);
    else takeAddress(typed);
  });

  // A phone has a camera of its own, which also works over plain http.
  let opening = false;
  root.querySelector('.camera').addEventListener('click', async () => {
    if (!navigator.mediaDevices || matchMedia('(hover: none)').matches) { shot.click(); return; }
    if (opening) return;  // while permission is asked
    opening = true;
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}});
    } catch {
      complain('The camera was not allowed, or there is none. Browsers allow the camera on https pages only. Use Choose a photo.');
      return;
    } finally {
      opening = false;
    }
    lens.showModal();
  });
  lens.querySelector('.shoot').addEventListener('click', () => {
    if (!video.videoWidth) return;  // no picture yet
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext('2d').drawImage(video, 0, 0);
    canvas.toBlob(blob => takeFile(new File([blob], 'camera.jpg', {type: 'image/jpeg'})), 'image/jpeg', 0.92);
    lens.close();
  });
  lens.querySelector('.close').addEventListener('click', () => lens.close());
  lens.addEventListener('close', () => {
    video.srcObject?.getTracks().forEach(track => track.stop());
    video.srcObject = null;
  });
}
