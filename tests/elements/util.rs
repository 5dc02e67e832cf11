// SPDX-License-Identifier: MPL-2.0
//! What the tests share: synthetic pictures, pipelines that cannot hang, what comes out of them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, mpsc};
use std::time::Duration;

use gst::prelude::*;
use gst_video::prelude::*;
use nnv_format::picture::{PSNR_PEAK, Picture, RawFormat};
use nnv_quality::SquaredError;

/// Longest time for a test. They take seconds; machines may be busy.
const LIMIT: Duration = Duration::from_secs(300);

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().expect("GStreamer starts");
        gstnnv::plugin_register_static().expect("the plugin registers");
    });
}

/// Runs a test with a limit in time: a hang fails it.
pub fn within<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    init();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = test();
        let _ = sender.send(());
        result
    });
    match receiver.recv_timeout(LIMIT) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        },
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs: not done after {LIMIT:?}"),
    }
}

/// A file that is removed when it goes out of scope.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(name: &str) -> Self {
        static COUNT: Mutex<u32> = Mutex::new(0);
        let number = {
            let mut count = COUNT.lock().unwrap();
            *count += 1;
            *count
        };
        Self(std::env::temp_dir().join(format!("nnv-test-{}-{number}-{name}", std::process::id())))
    }

    pub fn with(name: &str, data: &[u8]) -> Self {
        let file = Self::new(name);
        std::fs::write(&file.0, data).expect("the temporary file can be written");
        file
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("temporary paths are UTF-8")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Picture `t` of a synthetic clip: a slow gradient, and a square that moves two samples per frame.
pub fn picture(width: u32, height: u32, t: u32) -> Picture {
    let mut picture = Picture::new(width, height).expect("the size is possible");
    let wave = |v: u32, period: u32| {
        let v = v % (2 * period);
        v.min(2 * period - v)
    };
    for (plane, p) in picture.planes_mut().iter_mut().enumerate() {
        let shift = u32::from(plane > 0);
        let (w, h) = (p.visible_width() as u32, p.visible_height() as u32);
        for y in 0..h {
            for x in 0..w {
                let (lx, ly) = (x << shift, y << shift);
                let (bx, by) = (lx.wrapping_sub(4 + 2 * t), ly.wrapping_sub(height / 4));
                let square = bx < 16 && by < 16;
                let value = match (plane, square) {
                    (0, false) => 200 + 4 * wave(lx + 2 * ly + t, 64),
                    (0, true) => 800,
                    (1, false) => 480 + wave(lx, 40),
                    (1, true) => 300,
                    (_, false) => 500 + wave(ly, 40),
                    (_, true) => 700,
                };
                p.row_mut(y as usize)[x as usize] = value as u16;
            }
        }
    }
    picture.pad();
    picture
}

pub fn raw_format(format: gst_video::VideoFormat) -> RawFormat {
    match format {
        gst_video::VideoFormat::I420 => RawFormat::I420,
        gst_video::VideoFormat::Nv12 => RawFormat::Nv12,
        gst_video::VideoFormat::I42010le => RawFormat::I42010Le,
        gst_video::VideoFormat::P01010le => RawFormat::P01010Le,
        gst_video::VideoFormat::Gray8 => RawFormat::Gray8,
        gst_video::VideoFormat::Gray16Le => RawFormat::Gray16Le,
        other => panic!("{other:?} is no format of the codec"),
    }
}

/// A buffer in the layout of `info`, or with `extra` bytes more per row and a video meta.
pub fn buffer(info: &gst_video::VideoInfo, t: u32, extra: usize) -> gst::Buffer {
    buffer_of(info, &picture(info.width(), info.height(), t), t, extra)
}

/// A buffer of frame `t` that shows a picture.
pub fn buffer_of(
    info: &gst_video::VideoInfo,
    picture: &Picture,
    t: u32,
    extra: usize,
) -> gst::Buffer {
    let format = raw_format(info.format());
    let planes = info.n_planes() as usize;
    let strides: Vec<usize> = (0..planes)
        .map(|p| info.stride()[p] as usize + extra)
        .collect();
    let rows: Vec<usize> = (0..planes)
        .map(|p| {
            let h = info.height() as usize;
            if p == 0 { h } else { h.div_ceil(2) }
        })
        .collect();
    let mut offsets = Vec::new();
    let mut size = 0;
    for p in 0..planes {
        offsets.push(if extra == 0 { info.offset()[p] } else { size });
        size = offsets[p] + strides[p] * rows[p];
    }
    let size = if extra == 0 { info.size() } else { size };
    // Padding must not matter: fill it with something.
    let mut data = vec![0xa5; size];
    {
        let mut rest = &mut data[..];
        let mut slices = Vec::new();
        let mut pos = 0;
        for p in 0..planes {
            let (_, tail) = rest.split_at_mut(offsets[p] - pos);
            let (plane, tail) = tail.split_at_mut(strides[p] * rows[p]);
            slices.push(plane);
            pos = offsets[p] + strides[p] * rows[p];
            rest = tail;
        }
        picture
            .write_raw(format, &mut slices, &strides)
            .expect("the planes fit");
    }
    let mut buffer = gst::Buffer::from_mut_slice(data);
    let b = buffer.get_mut().unwrap();
    if extra > 0 {
        let strides: Vec<i32> = strides.iter().map(|s| *s as i32).collect();
        gst_video::VideoMeta::add_full(
            b,
            gst_video::VideoFrameFlags::empty(),
            info.format(),
            info.width(),
            info.height(),
            &offsets,
            &strides,
        )
        .expect("the meta fits");
    }
    if info.fps().numer() > 0 {
        let frame = |n: u32| {
            gst::ClockTime::SECOND
                .mul_div_floor(
                    u64::from(n) * info.fps().denom() as u64,
                    info.fps().numer() as u64,
                )
                .unwrap()
        };
        b.set_pts(frame(t));
        b.set_duration(frame(t + 1) - frame(t));
    }
    buffer
}

pub fn info(format: gst_video::VideoFormat, width: u32, height: u32) -> gst_video::VideoInfo {
    init();
    gst_video::VideoInfo::builder(format, width, height)
        .fps(gst::Fraction::new(25, 1))
        .build()
        .expect("the info is possible")
}

pub fn i420(width: u32, height: u32) -> gst_video::VideoInfo {
    info(gst_video::VideoFormat::I420, width, height)
}

pub fn element(name: &str, properties: &[(&str, &str)]) -> gst::Element {
    init();
    let element = gst::ElementFactory::make(name)
        .build()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    for (property, value) in properties {
        element.set_property_from_str(property, value);
    }
    element
}

/// An encoder in a harness that takes `info`.
pub fn encoder(info: &gst_video::VideoInfo, properties: &[(&str, &str)]) -> gst_check::Harness {
    let mut h =
        gst_check::Harness::with_element(&element("nnvenc", properties), Some("sink"), Some("src"));
    h.set_src_caps(info.to_caps().unwrap());
    h
}

/// All buffers that are ready.
pub fn pull_all(h: &mut gst_check::Harness) -> Vec<gst::Buffer> {
    std::iter::from_fn(|| h.try_pull()).collect()
}

/// Encodes `count` frames of the synthetic clip.
pub fn encode(
    info: &gst_video::VideoInfo,
    count: u32,
    properties: &[(&str, &str)],
) -> Vec<gst::Buffer> {
    encode_scene(info, picture, count, properties)
}

/// What frame `t` of a size shows.
pub type Scene = fn(u32, u32, u32) -> Picture;

/// Encodes `count` frames of a scene.
pub fn encode_scene(
    info: &gst_video::VideoInfo,
    scene: Scene,
    count: u32,
    properties: &[(&str, &str)],
) -> Vec<gst::Buffer> {
    let mut h = encoder(info, properties);
    for t in 0..count {
        let picture = scene(info.width(), info.height(), t);
        h.push(buffer_of(info, &picture, t, 0))
            .expect("the frame is taken");
    }
    assert!(h.push_event(gst::event::Eos::new()));
    pull_all(&mut h)
}

pub fn bytes(buffer: &gst::Buffer) -> Vec<u8> {
    buffer.map_readable().unwrap().to_vec()
}

pub fn join(units: &[gst::Buffer]) -> Vec<u8> {
    units.iter().flat_map(bytes).collect()
}

pub fn is_key(buffer: &gst::Buffer) -> bool {
    !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT)
}

/// The picture in a buffer.
pub fn read(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Picture {
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
    let planes: Vec<&[u8]> = (0..frame.n_planes())
        .map(|p| frame.plane_data(p).unwrap())
        .collect();
    let strides: Vec<usize> = frame.plane_stride()[..planes.len()]
        .iter()
        .map(|s| *s as usize)
        .collect();
    Picture::from_raw(
        raw_format(info.format()),
        info.width(),
        info.height(),
        &planes,
        &strides,
    )
    .unwrap()
}

/// One shown frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub pts: Option<gst::ClockTime>,
    pub duration: Option<gst::ClockTime>,
    pub size: (u32, u32),
    pub format: gst_video::VideoFormat,
    pub checksum: u32,
}

/// What a pipeline did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub shown: Vec<Shown>,
    pub caps: Vec<gst::Caps>,
    /// Errors, with their debug text.
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
    pub tags: Option<gst::TagList>,
    /// What elements posted for applications.
    pub posted: Vec<gst::Structure>,
    pub eos: bool,
}

impl Outcome {
    pub fn checksums(&self) -> Vec<u32> {
        self.shown.iter().map(|s| s.checksum).collect()
    }

    /// All frames, where nothing went wrong.
    pub fn sound(self) -> Self {
        assert!(self.errors.is_empty(), "errors: {:?}", self.errors);
        assert!(self.warnings.is_empty(), "warnings: {:?}", self.warnings);
        assert!(self.eos, "no end of stream");
        self
    }
}

fn describe(error: &gst::glib::Error, debug: Option<&str>) -> String {
    format!("{error} {}", debug.unwrap_or_default())
}

/// Records what arrives at a sink.
pub fn record(sink: &gst::Element) -> Arc<Mutex<(Vec<Shown>, Vec<gst::Caps>)>> {
    let seen = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let record = seen.clone();
    let pad = sink.static_pad("sink").expect("sinks have a sink pad");
    pad.add_probe(
        gst::PadProbeType::BUFFER
            | gst::PadProbeType::EVENT_DOWNSTREAM
            | gst::PadProbeType::EVENT_FLUSH,
        move |_, probe| {
            let (shown, caps) = &mut *record.lock().unwrap();
            match &probe.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let caps: &gst::Caps = caps.last().expect("caps come before data");
                    let info = gst_video::VideoInfo::from_caps(caps).expect("raw video");
                    shown.push(Shown {
                        pts: buffer.pts(),
                        duration: buffer.duration(),
                        size: (info.width(), info.height()),
                        format: info.format(),
                        checksum: read(buffer, &info).checksum(),
                    });
                }
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Caps(event) => caps.push(event.caps_owned()),
                    gst::EventView::FlushStop(_) => shown.clear(),
                    _ => {}
                },
                _ => {}
            }
            gst::PadProbeReturn::Ok
        },
    );
    seen
}

/// Waits for the end or an error, and gathers what the pipeline says.
pub fn wait(pipeline: &gst::Element, outcome: &mut Outcome) {
    assert!(
        ends_within(LIMIT, pipeline, outcome),
        "nothing happens any more"
    );
}

/// The same for at most `limit` from message to message; returns whether the end or an error came.
pub fn ends_within(limit: Duration, pipeline: &gst::Element, outcome: &mut Outcome) -> bool {
    let bus = pipeline.bus().expect("pipelines have a bus");
    while let Some(message) = bus.timed_pop(gst::ClockTime::from_seconds(limit.as_secs())) {
        match message.view() {
            gst::MessageView::Eos(_) => {
                outcome.eos = true;
                return true;
            }
            gst::MessageView::Error(e) => {
                outcome
                    .errors
                    .push(describe(&e.error(), e.debug().as_deref()));
                return true;
            }
            gst::MessageView::Warning(w) => {
                outcome
                    .warnings
                    .push(describe(&w.error(), w.debug().as_deref()));
            }
            gst::MessageView::Element(message) => {
                outcome
                    .posted
                    .extend(message.structure().map(|s| s.to_owned()));
            }
            gst::MessageView::Tag(tag) => {
                outcome.tags = Some(match outcome.tags.take() {
                    Some(tags) => tags.merge(&tag.tags(), gst::TagMergeMode::Replace),
                    None => tag.tags(),
                });
            }
            _ => {}
        }
    }
    false
}

/// Tries something again that did not end. For `decodebin3` and what is made of it: that of
/// GStreamer 1.22 may add its inner `identity` while it changes its state itself on another thread
/// (about once in a hundred starts under load). The element then stays inactive, discards what
/// comes on its "flushing pad", and neither error nor end follows. What hangs three times is ours.
pub fn patiently<T>(what: &str, attempt: impl Fn(Duration) -> Option<T>) -> T {
    for n in 1..=3 {
        if let Some(result) = attempt(LIMIT / 5) {
            return result;
        }
        eprintln!("!! {what} did not end, attempt {n}");
    }
    panic!("{what} hangs");
}

/// Plays a pipeline to its end. What reaches the sink named `out` is recorded.
pub fn play(pipeline: &gst::Element) -> Outcome {
    play_within(LIMIT, pipeline).expect("the pipeline ends")
}

/// The same; `None` if nothing happens for `limit`.
pub fn play_within(limit: Duration, pipeline: &gst::Element) -> Option<Outcome> {
    let sink = pipeline
        .downcast_ref::<gst::Bin>()
        .and_then(|bin| bin.by_name("out"));
    let seen = sink.as_ref().map(record);
    let mut outcome = Outcome::default();
    // Where this fails, the reason is on the bus.
    let _ = pipeline.set_state(gst::State::Playing);
    let ended = ends_within(limit, pipeline, &mut outcome);
    pipeline
        .set_state(gst::State::Null)
        .expect("every pipeline can be stopped");
    // Warnings and errors that came in before the stop.
    let bus = pipeline.bus().expect("pipelines have a bus");
    while let Some(message) = bus.pop() {
        match message.view() {
            gst::MessageView::Error(e) => {
                outcome
                    .errors
                    .push(describe(&e.error(), e.debug().as_deref()));
            }
            gst::MessageView::Warning(w) => {
                outcome
                    .warnings
                    .push(describe(&w.error(), w.debug().as_deref()));
            }
            _ => {}
        }
    }
    if let Some(seen) = seen {
        let (shown, caps) = &mut *seen.lock().unwrap();
        outcome.shown = std::mem::take(shown);
        outcome.caps = std::mem::take(caps);
    }
    ended.then_some(outcome)
}

pub fn launch(description: &str) -> gst::Element {
    init();
    gst::parse::launch(description).unwrap_or_else(|e| panic!("{description}: {e}"))
}

/// Decodes a file through parser and decoder.
pub fn decode(path: &str, decoder: &str) -> Outcome {
    play(&launch(&format!(
        "filesrc location={path} ! nnvparse ! nnvdec {decoder} ! fakesink name=out sync=false"
    )))
}

/// PSNR in dB over the samples of all planes.
pub fn psnr(a: &Picture, b: &Picture) -> f64 {
    let sum = a.sse(b).iter().sum();
    let samples = a
        .planes()
        .iter()
        .map(|p| (p.visible_width() * p.visible_height()) as u64)
        .sum();
    SquaredError { sum, samples }.psnr(PSNR_PEAK)
}

pub fn ms(ms: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(ms)
}
