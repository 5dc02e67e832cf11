// SPDX-License-Identifier: MPL-2.0
//! What JavaScript sees. The package's own Worker and splitter call this, nobody else.

use std::sync::{Mutex, PoisonError};

use js_sys::{Array, Object, Reflect, Uint8Array};
use nnv_bitstream::level::PROFILE;
use nnv_bitstream::{Level, StreamInfo};
use nnv_kernels::Kernels;
use nnv_nn::MemoryBundle;
use wasm_bindgen::prelude::*;

use crate::sequence::{
    NeededBundle, SequenceFacts, colours, display_size, full_range, is_grey, shown_size,
};
use crate::{Chunk, Event, IndexScan, Next, PageDecoder, PageError, PageOptions, Shown, Splitter};

/// What the last panic said. The instance that panicked is of no further use, but can still tell.
static PANIC: Mutex<String> = Mutex::new(String::new());

#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|info| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
}

/// What the panic said that has ended this instance; empty where there was none.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> String {
    PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl From<PageError> for JsValue {
    /// An `Error` with the name that the `DOMException` will have.
    fn from(error: PageError) -> Self {
        let js = js_sys::Error::new(&error.to_string());
        js.set_name(error.name());
        js.into()
    }
}

/// An object with these properties; `undefined` ones are left out.
fn object<const N: usize>(properties: [(&str, JsValue); N]) -> JsValue {
    let object = Object::new();
    for (name, value) in properties {
        if !value.is_undefined() {
            // Setting a property of a plain object cannot fail.
            let _ = Reflect::set(&object, &name.into(), &value);
        }
    }
    object.into()
}

fn pair(a: u32, b: u32) -> JsValue {
    Array::of2(&a.into(), &b.into()).into()
}

fn optional(value: Option<impl Into<JsValue>>) -> JsValue {
    value.map_or(JsValue::UNDEFINED, Into::into)
}

fn nullable(value: Option<impl Into<JsValue>>) -> JsValue {
    value.map_or(JsValue::NULL, Into::into)
}

/// Whole microseconds. Numbers of JavaScript are exact up to 2⁵³: 285 years.
fn micros(ns: u64) -> JsValue {
    (((ns + 500) / 1000) as f64).into()
}

fn colour_space(info: &StreamInfo) -> JsValue {
    let [primaries, transfer, matrix] = colours(info);
    object([
        ("primaries", nullable(primaries)),
        ("transfer", nullable(transfer)),
        ("matrix", nullable(matrix)),
        ("fullRange", nullable(full_range(info))),
    ])
}

fn bundle(needed: &NeededBundle) -> JsValue {
    object([
        ("name", needed.name.as_str().into()),
        ("hash", needed.hash_text().into()),
    ])
}

/// A level as pages compare it: without bounds it is infinite.
fn level_number(level: Level) -> f64 {
    match level {
        Level::UNBOUNDED => f64::INFINITY,
        bounded => bounded.code().into(),
    }
}

fn facts(facts: &SequenceFacts) -> JsValue {
    let (header, info) = (&facts.header, &facts.info);
    let (width, height) = shown_size(info);
    let (display_width, display_height) = display_size(info);
    let interval = Some(header.gop.key_interval).filter(|&n| n > 0);
    object([
        ("width", width.into()),
        ("height", height.into()),
        ("codedWidth", info.width.into()),
        ("codedHeight", info.height.into()),
        ("displayWidth", display_width.into()),
        ("displayHeight", display_height.into()),
        (
            "pixelAspect",
            pair(info.pixel_aspect.0, info.pixel_aspect.1),
        ),
        ("bitDepth", info.bit_depth.into()),
        ("grey", is_grey(info).into()),
        (
            "frameRate",
            optional(info.frame_rate.map(|(n, d)| pair(n, d))),
        ),
        ("colorSpace", colour_space(info)),
        ("maxReorder", header.gop.max_reorder.into()),
        ("keyInterval", optional(interval)),
        ("profile", PROFILE.into()),
        ("level", level_number(header.level()).into()),
        ("macsPerSample", optional(header.cost.map(|cost| cost.macs))),
        ("bundle", bundle(&facts.bundle())),
    ])
}

/// What a description says: a page's `SequenceInfo`.
#[wasm_bindgen(js_name = describe)]
pub fn describe(description: &[u8]) -> Result<JsValue, JsValue> {
    let header = crate::sequence::description(description)?;
    Ok(facts(&header.into()))
}

/// What the first sequence header in these bytes says; `undefined` where there is none.
#[wasm_bindgen(js_name = sequenceIn)]
pub fn sequence_in(bytes: &[u8]) -> JsValue {
    optional(crate::sequence_in(bytes).map(|found| facts(&found)))
}

/// Names of the files of a bundle that have to be fetched.
#[wasm_bindgen(js_name = bundleFiles)]
pub fn bundle_files() -> Vec<String> {
    MemoryBundle::wanted().map(str::to_owned).collect()
}

/// The decoder of a Worker.
#[wasm_bindgen]
pub struct WasmDecoder {
    decoder: PageDecoder<Kernels>,
    needed: Option<NeededBundle>,
    files: Vec<(String, Vec<u8>)>,
    /// Samples of the frame that was handed out last.
    samples: Vec<u8>,
}

fn options(conceal: bool, live: bool, max_pixels: f64, max_level: f64) -> PageOptions {
    PageOptions {
        conceal,
        live,
        // Casts saturate.
        max_pixels: max_pixels as u64,
        max_level: Level::from_code(max_level as u8).unwrap_or(Level::UNBOUNDED),
    }
}

#[wasm_bindgen]
impl WasmDecoder {
    /// A decoder that is not configured.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default, reason = "JavaScript has no Default")]
    pub fn new() -> Self {
        Self {
            decoder: PageDecoder::new(Kernels, PageOptions::default()),
            needed: None,
            files: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Begins anew. Networks that were loaded stay.
    pub fn configure(&mut self, conceal: bool, live: bool, max_pixels: f64, max_level: f64) {
        let options = options(conceal, live, max_pixels, max_level);
        self.decoder.configure(options);
        self.samples = Vec::new();
    }

    /// The bundle `{name, hash}` that has to be loaded before this chunk, or `undefined`.
    pub fn needs(&mut self, chunk: &[u8]) -> Result<JsValue, JsValue> {
        self.needed = self.decoder.needs(chunk)?;
        Ok(optional(self.needed.as_ref().map(bundle)))
    }

    /// The same for a description.
    #[wasm_bindgen(js_name = needsDescribed)]
    pub fn needs_described(&mut self, description: &[u8]) -> Result<JsValue, JsValue> {
        self.needed = self.decoder.needs_described(description)?;
        Ok(optional(self.needed.as_ref().map(bundle)))
    }

    /// A file of the bundle that was asked for.
    #[wasm_bindgen(js_name = addFile)]
    pub fn add_file(&mut self, name: String, bytes: Vec<u8>) {
        self.files.push((name, bytes));
    }

    /// All files are there: loads the networks. `label` says where they come from.
    pub fn load(&mut self, label: &str) -> Result<(), JsValue> {
        let files = std::mem::take(&mut self.files);
        if let Some(needed) = self.needed.take() {
            self.decoder.load(&needed, label, files)?;
        }
        Ok(())
    }

    /// Takes over a description.
    pub fn describe(&mut self, description: &[u8]) -> Result<(), JsValue> {
        Ok(self.decoder.describe(description)?)
    }

    /// Decodes a chunk.
    pub fn send(&mut self, chunk: &[u8], id: f64) -> Result<(), JsValue> {
        Ok(self.decoder.send(chunk, id as u64)?)
    }

    /// Decodes all that waits.
    pub fn finish(&mut self) -> Result<(), JsValue> {
        Ok(self.decoder.finish()?)
    }

    /// What is ready: `{id, warning?}` of a chunk that shows nothing, or a frame, whose samples are
    /// in memory until the next call; `undefined` where nothing is.
    pub fn receive(&mut self) -> Result<JsValue, JsValue> {
        Ok(match self.decoder.receive() {
            None => JsValue::UNDEFINED,
            Some(Event::Dropped(dropped)) => object([
                ("id", (dropped.id as f64).into()),
                ("warning", optional(dropped.warning)),
            ]),
            Some(Event::Shown(shown)) => {
                self.samples.resize(shown.len(), 0);
                shown.write(&mut self.samples)?;
                self.frame(shown)
            }
        })
    }

    fn frame(&self, shown: Shown) -> JsValue {
        let info = &shown.info;
        let (width, height) = shown_size(info);
        let (display_width, display_height) = display_size(info);
        object([
            ("id", (shown.id as f64).into()),
            ("warning", optional(shown.warning)),
            // An address in the memory of this instance.
            ("at", (self.samples.as_ptr() as usize).into()),
            ("length", self.samples.len().into()),
            ("width", width.into()),
            ("height", height.into()),
            ("displayWidth", display_width.into()),
            ("displayHeight", display_height.into()),
            ("bitDepth", info.bit_depth.into()),
            ("grey", is_grey(info).into()),
            ("colorSpace", colour_space(info)),
            ("concealed", shown.concealed.into()),
            ("key", shown.key.into()),
            ("pts", optional(shown.pts.map(micros))),
            ("duration", optional(shown.duration.map(micros))),
        ])
    }

    /// Totals since `configure`: counts, and times in ms.
    pub fn stats(&self) -> JsValue {
        let stats = self.decoder.stats();
        let times = &stats.times;
        let ms = |time: std::time::Duration| JsValue::from(time.as_secs_f64() * 1e3);
        let model = self.decoder.model().map(|model| {
            object([
                ("name", model.name().into()),
                ("hash", nnv_nn::hex(&model.hash()).into()),
            ])
        });
        let count = |n: u64| JsValue::from(n as f64);
        object([
            ("frames", count(stats.frames)),
            ("concealed", count(stats.concealed)),
            ("dropped", count(stats.dropped)),
            ("missing", count(stats.missing)),
            ("verified", count(stats.verified)),
            ("bundle", optional(model)),
            (
                "times",
                object([
                    ("predict", ms(times.predict)),
                    ("pack", ms(times.pack)),
                    ("prior", ms(times.prior)),
                    ("entropy", ms(times.entropy)),
                    ("synth", ms(times.synth)),
                    ("quantise", ms(times.quantise)),
                ]),
            ),
        ])
    }
}

/// Cuts a bare stream into chunks.
#[wasm_bindgen]
pub struct WasmSplitter(Splitter);

#[wasm_bindgen]
impl WasmSplitter {
    /// At the beginning of a stream.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default, reason = "JavaScript has no Default")]
    pub fn new() -> Self {
        Self(Splitter::default())
    }

    /// What the newest sequence header says, or `undefined`.
    pub fn sequence(&self) -> JsValue {
        optional(self.0.sequence().map(facts))
    }

    /// Bytes that were passed over.
    pub fn skipped(&self) -> f64 {
        self.0.skipped() as f64
    }

    /// Takes bytes, returns chunks.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<JsValue> {
        self.0.push(bytes).iter().map(chunk).collect()
    }

    /// The stream ends.
    pub fn finish(&mut self) -> Vec<JsValue> {
        self.0.finish().iter().map(chunk).collect()
    }

    /// Goes on elsewhere; `time` in µs.
    pub fn restart(&mut self, time: Option<f64>) {
        self.0.restart(time.map(|us| (us * 1e3) as u64));
    }

    /// A part of the stream that cannot be read, told once.
    #[wasm_bindgen(js_name = takeWarning)]
    pub fn take_warning(&mut self) -> Option<String> {
        self.0.take_warning()
    }
}

fn chunk(chunk: &Chunk) -> JsValue {
    let kind = if chunk.key { "key" } else { "delta" };
    object([
        ("type", kind.into()),
        ("timestamp", micros(chunk.pts)),
        ("duration", optional(chunk.duration.map(micros))),
        ("data", Uint8Array::from(&chunk.data[..]).into()),
    ])
}

/// Finds the key frames of a file.
#[wasm_bindgen]
pub struct WasmIndex(IndexScan);

#[wasm_bindgen]
impl WasmIndex {
    /// Nothing is known yet.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default, reason = "JavaScript has no Default")]
    pub fn new() -> Self {
        Self(IndexScan::default())
    }

    /// `[offset, size]` of what has to be read and given, or `undefined` at the end.
    pub fn step(&mut self) -> JsValue {
        match self.0.step() {
            Next::Complete => JsValue::UNDEFINED,
            Next::Read(offset, size) => Array::of2(&(offset as f64).into(), &size.into()).into(),
        }
    }

    /// The bytes there.
    pub fn give(&mut self, offset: f64, size: usize, bytes: Vec<u8>) {
        self.0.give(offset as u64, size, bytes);
    }

    /// `{keys: [{offset, timestamp}], duration?}`.
    pub fn result(&self) -> JsValue {
        let keys: Array = (self.0.keys().iter())
            .map(|key| {
                object([
                    ("offset", (key.offset as f64).into()),
                    ("timestamp", micros(key.pts)),
                ])
            })
            .collect();
        object([
            ("keys", keys.into()),
            ("duration", optional(self.0.duration().map(micros))),
        ])
    }
}
