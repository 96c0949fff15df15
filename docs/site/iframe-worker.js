// Browsers start no worker on a page that was opened from a disk. There the script of the search runs in a hidden frame,
// under the name by which the theme's script recognises such a frame.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.srcdoc = `<script src="${url}"></script>`
      this.frame.addEventListener("load", () => this.loaded(this.frame.contentWindow))
      document.body.append(this.frame)
    }

    loaded(inside) {
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inside = inside
      this.waiting.splice(0).forEach(data => this.postMessage(data))
    }

    postMessage(data) {
      if (this.inside) this.inside.dispatchEvent(new MessageEvent("message", { data }))
      else this.waiting.push(data)
    }

    terminate() {
      this.frame.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
