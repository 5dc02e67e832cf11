// SPDX-License-Identifier: MPL-2.0
//! Compares a coded stream with the video it was made from, as `scripts/demo.sh` shows it.
//!
//! ```text
//! nnv-compare ORIGINAL STREAM.nnv PICTURE.png [--enough N] [--encode-log FILE]
//! ```
//!
//! Decodes both files through `decodebin` (the stream by whatever decoder GStreamer picks), prints
//! a table, and writes one frame as `original | decoded`. `--enough N` allows the stream to end
//! before the original does, once N frames are through; `--encode-log` is the output of the
//! `gst-launch-1.0 -v` that made the stream, which knows how long encoding took and where it ran.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gst::prelude::*;
use gst_video::prelude::*;
use nnv_quality::{PlaneView, Psnr, QualityError, SquaredError, peak};

type Res<T> = Result<T, Box<dyn Error>>;

/// Longest silence of a pipeline before it counts as stuck.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(120);

struct Arguments {
    original: PathBuf,
    stream: PathBuf,
    picture: PathBuf,
    /// The stream may end before the original from this number of frames on.
    enough: u64,
    encode_log: Option<PathBuf>,
}

fn arguments() -> Res<Arguments> {
    let usage =
        "usage: nnv-compare ORIGINAL STREAM.nnv PICTURE.png [--enough N] [--encode-log FILE]";
    let mut files = Vec::new();
    let mut enough = u64::MAX;
    let mut encode_log = None;
    let mut rest = std::env::args_os().skip(1);
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--enough") => {
                let text = rest.next().ok_or(usage)?;
                enough = text
                    .to_str()
                    .and_then(|t| t.parse().ok())
                    .ok_or("--enough takes a number")?;
            }
            Some("--encode-log") => encode_log = Some(rest.next().ok_or(usage)?.into()),
            _ => files.push(PathBuf::from(argument)),
        }
    }
    let [original, stream, picture] = <[PathBuf; 3]>::try_from(files).map_err(|_| usage)?;
    Ok(Arguments {
        original,
        stream,
        picture,
        enough,
        encode_log,
    })
}

/// A pipeline that goes back to NULL when dropped, on errors too.
struct Running(gst::Pipeline);

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing can be done about a pipeline that will not stop, and the process ends soon.
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// First error on the bus, as text.
fn bus_error(pipeline: &gst::Pipeline) -> Option<String> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(e) => Some(format!(
            "{}: {} ({})",
            e.src().map(|s| s.path_string()).unwrap_or_default(),
            e.error(),
            e.debug().unwrap_or_default()
        )),
        _ => None,
    }
}

/// Raw 8-bit 4:2:0 frames of a file, one after another.
struct Frames {
    pipeline: Running,
    sink: gst::Element,
    what: PathBuf,
}

impl Frames {
    fn open(file: &Path) -> Res<Self> {
        let pipeline = gst::parse::launch(
            "filesrc name=source \
             ! decodebin expose-all-streams=false caps=video/x-raw(ANY) \
             ! videoconvert ! video/x-raw,format=I420 \
             ! appsink name=sink sync=false max-buffers=4",
        )?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "the pipeline is no GstPipeline")?;
        let element = |name: &str| pipeline.by_name(name).ok_or(format!("no element {name}"));
        element("source")?.set_property("location", file.to_str().ok_or("file name is not UTF-8")?);
        let sink = element("sink")?;
        let frames = Self {
            pipeline: Running(pipeline),
            sink,
            what: file.into(),
        };
        // A failure to start is on the bus as well, with its reason; next() reports it.
        let _ = frames.pipeline.0.set_state(gst::State::Playing);
        Ok(frames)
    }

    /// The next frame, `None` at the end.
    fn next(&self) -> Res<Option<gst::Sample>> {
        let sample = self
            .sink
            .emit_by_name::<Option<gst::Sample>>("try-pull-sample", &[&PATIENCE.nseconds()]);
        if sample.is_none() {
            if let Some(error) = bus_error(&self.pipeline.0) {
                return Err(format!("{}: {error}", self.what.display()).into());
            }
            if !self.sink.property::<bool>("eos") {
                return Err(format!("{}: no frame for {PATIENCE}", self.what.display()).into());
            }
        }
        Ok(sample)
    }
}

/// Calls `look` with the readable frame of a sample.
fn with_frame<T>(
    sample: &gst::Sample,
    look: impl FnOnce(&gst_video::VideoFrameRef<&gst::BufferRef>) -> T,
) -> Res<T> {
    let info = gst_video::VideoInfo::from_caps(sample.caps().ok_or("a frame without caps")?)?;
    let buffer = sample.buffer().ok_or("a sample without buffer")?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)
        .map_err(|_| "a frame that cannot be read")?;
    Ok(look(&frame))
}

/// The rows of one plane, without padding.
fn rows<'a>(
    frame: &'a gst_video::VideoFrameRef<&gst::BufferRef>,
    plane: u32,
) -> impl Iterator<Item = &'a [u8]> {
    let width = frame.comp_width(plane) as usize;
    let height = frame.comp_height(plane) as usize;
    let stride = frame.plane_stride()[plane as usize] as usize;
    let data = frame.plane_data(plane).unwrap_or_default();
    data.chunks(stride)
        .take(height)
        .map(move |row| &row[..width])
}

/// Squared errors per plane over all frames.
#[derive(Default)]
struct Distortion([SquaredError; 3]);

impl Distortion {
    fn add(&mut self, original: &gst::Sample, decoded: &gst::Sample) -> Res<()> {
        with_frame(original, |a| {
            with_frame(decoded, |b| {
                for (plane, sum) in (0..).zip(&mut self.0) {
                    *sum += SquaredError::of(view(a, plane)?, view(b, plane)?)?;
                }
                Ok::<(), QualityError>(())
            })
        })??
        .map_err(|e| format!("original and decoded frame: {e}").into())
    }
}

fn view<'a>(
    frame: &'a gst_video::VideoFrameRef<&gst::BufferRef>,
    plane: u32,
) -> Result<PlaneView<'a>, QualityError> {
    PlaneView::u8(
        frame.plane_data(plane).unwrap_or_default(),
        frame.comp_width(plane) as usize,
        frame.comp_height(plane) as usize,
        frame.plane_stride()[plane as usize] as usize,
    )
}

/// Plain facts of a timed decoding run.
struct Decoding {
    seconds: f64,
    decoder: String,
    provider: String,
}

/// Decodes the stream as fast as it goes, through the decoder that `decodebin` picks.
fn time_decoding(stream: &Path) -> Res<Decoding> {
    let pipeline = gst::parse::launch("filesrc name=source ! decodebin ! fakesink sync=false")?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "the pipeline is no GstPipeline")?;
    pipeline
        .by_name("source")
        .ok_or("no element source")?
        .set_property("location", stream.to_str().ok_or("file name is not UTF-8")?);
    let bus = pipeline.bus().ok_or("a pipeline without bus")?;
    let running = Running(pipeline);
    let begin = Instant::now();
    // A failure to start is on the bus as well, with its reason.
    let _ = running.0.set_state(gst::State::Playing);
    let limit = gst::ClockTime::from_seconds(3600);
    let message = bus
        .timed_pop_filtered(limit, &[gst::MessageType::Eos, gst::MessageType::Error])
        .ok_or_else(|| format!("{}: no end after {limit}", stream.display()))?;
    let seconds = begin.elapsed().as_secs_f64();
    if let gst::MessageView::Error(e) = message.view() {
        return Err(format!(
            "{}: {} ({})",
            stream.display(),
            e.error(),
            e.debug().unwrap_or_default()
        )
        .into());
    }
    let mut found = None;
    for element in running.0.iterate_recurse() {
        let element = element.map_err(|e| format!("looking for the decoder: {e:?}"))?;
        if element.find_property("active-execution-provider").is_some() {
            let factory = element
                .factory()
                .map(|f| f.name().to_string())
                .unwrap_or_default();
            found = Some((
                factory,
                element
                    .property::<Option<String>>("active-execution-provider")
                    .unwrap_or_else(|| "none".into()),
            ));
        }
    }
    let (decoder, provider) = found.ok_or("decodebin chose no decoder of this project")?;
    Ok(Decoding {
        seconds,
        decoder,
        provider,
    })
}

/// What the log of `gst-launch-1.0 -v` says: seconds in PLAYING, and the provider of nnvenc.
fn read_encode_log(text: &str) -> (Option<f64>, Option<String>) {
    let seconds = text
        .lines()
        .find_map(|l| l.strip_prefix("Execution ended after "))
        .and_then(|clock| {
            clock.trim().split(':').try_fold(0.0, |total, part| {
                Some(total * 60.0 + part.parse::<f64>().ok()?)
            })
        });
    // The last word counts: an automatic choice is known only once the networks are loaded.
    let provider = text
        .lines()
        .rev()
        .filter(|l| l.contains("GstNnvEnc"))
        .filter_map(|l| l.split_once("active-execution-provider = "))
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .find(|value| !value.is_empty() && value != "(null)" && value != "NULL");
    (seconds, provider)
}

/// Writes two frames of equal size as one picture, original left, decoded right.
fn write_picture(original: &gst::Sample, decoded: &gst::Sample, file: &Path) -> Res<()> {
    let source = gst_video::VideoInfo::from_caps(original.caps().ok_or("a frame without caps")?)?;
    let (width, height) = (source.width(), source.height());
    // An even left half keeps the chroma of both halves apart; a line of black fills an odd one.
    let half = width.next_multiple_of(2);
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, half * 2, height)
        .colorimetry(&source.colorimetry())
        .build()?;
    let mut canvas = gst::Buffer::with_size(info.size())?;
    {
        let canvas = canvas.get_mut().ok_or("the picture's buffer is shared")?;
        let mut target = gst_video::VideoFrameRef::from_buffer_ref_writable(canvas, &info)
            .map_err(|_| "the picture's buffer cannot be written")?;
        for plane in 0..3_u32 {
            let stride = target.plane_stride()[plane as usize] as usize;
            let right = target.comp_width(plane) as usize / 2;
            let data = target.plane_data_mut(plane)?;
            data.fill(if plane == 0 { 16 } else { 128 });
            for (sample, at) in [(original, 0), (decoded, right)] {
                with_frame(sample, |frame| {
                    for (y, row) in rows(frame, plane).enumerate() {
                        data[y * stride + at..][..row.len()].copy_from_slice(row);
                    }
                })?;
            }
        }
    }
    let pipeline = gst::parse::launch(
        "appsrc name=source format=time ! videoconvert ! pngenc ! filesink name=sink",
    )?
    .downcast::<gst::Pipeline>()
    .map_err(|_| "the pipeline is no GstPipeline")?;
    let source = pipeline.by_name("source").ok_or("no element source")?;
    source.set_property("caps", info.to_caps()?);
    pipeline
        .by_name("sink")
        .ok_or("no element sink")?
        .set_property("location", file.to_str().ok_or("file name is not UTF-8")?);
    let bus = pipeline.bus().ok_or("a pipeline without bus")?;
    let running = Running(pipeline);
    running.0.set_state(gst::State::Playing)?;
    source
        .emit_by_name::<gst::FlowReturn>("push-buffer", &[&canvas])
        .into_result()?;
    source
        .emit_by_name::<gst::FlowReturn>("end-of-stream", &[])
        .into_result()?;
    let message = bus
        .timed_pop_filtered(PATIENCE, &[gst::MessageType::Eos, gst::MessageType::Error])
        .ok_or("the picture was not written in time")?;
    match message.view() {
        gst::MessageView::Error(e) => Err(format!("{}: {}", file.display(), e.error()).into()),
        _ => Ok(()),
    }
}

fn run() -> Res<()> {
    let args = arguments()?;
    gst::init()?;

    let original = Frames::open(&args.original)?;
    let decoded = Frames::open(&args.stream)?;
    let mut distortion = Distortion::default();
    let mut frames = 0_u64;
    // The length is known only at the end: keep a pair now and then, so that the last one kept is
    // well inside.
    let mut shown: Option<(gst::Sample, gst::Sample)> = None;
    let mut next_shown = 1;
    loop {
        match (original.next()?, decoded.next()?) {
            (Some(a), Some(b)) => {
                distortion.add(&a, &b)?;
                frames += 1;
                if frames >= next_shown {
                    shown = Some((a, b));
                    next_shown = next_shown * 3 / 2 + 1;
                }
            }
            (None, None) => break,
            (Some(_), None) if frames >= args.enough => break,
            (a, _) => {
                return Err(format!(
                    "{} {} frames than {}: the first {frames} agree in number",
                    args.stream.display(),
                    if a.is_some() { "has fewer" } else { "has more" },
                    args.original.display()
                )
                .into());
            }
        }
    }
    let (a, b) = shown.ok_or_else(|| format!("{}: no frame at all", args.original.display()))?;
    drop((original, decoded));
    write_picture(&a, &b, &args.picture)?;

    let decoding = time_decoding(&args.stream)?;
    let (encode_seconds, encode_provider) = match &args.encode_log {
        Some(file) => read_encode_log(&std::fs::read_to_string(file)?),
        None => (None, None),
    };

    let info = gst_video::VideoInfo::from_caps(b.caps().ok_or("a frame without caps")?)?;
    let (width, height, rate) = (info.width(), info.height(), info.fps());
    let bytes = std::fs::metadata(&args.stream)?.len();
    let pixels = frames * u64::from(width) * u64::from(height);
    let known_rate = rate.numer() > 0 && rate.denom() > 0;
    let fps = f64::from(rate.numer()) / f64::from(rate.denom().max(1));
    let speed = |seconds: f64| format!("{:.1} frames/s", frames as f64 / seconds.max(1e-9));

    println!("  original        {}", args.original.display());
    println!("  stream          {}", args.stream.display());
    if known_rate {
        println!("  frames          {frames} of {width}x{height} at {fps:.3} frames/s");
        let kbps = bytes as f64 * 8.0 / 1000.0 * fps / frames as f64;
        println!(
            "  size            {bytes} bytes, {kbps:.1} kbit/s, {:.4} bit per pixel",
            bytes as f64 * 8.0 / pixels as f64
        );
    } else {
        println!("  frames          {frames} of {width}x{height}, frame rate unknown");
        println!(
            "  size            {bytes} bytes, {:.4} bit per pixel",
            bytes as f64 * 8.0 / pixels as f64
        );
    }
    // Of the mean error over all frames.
    let psnr = Psnr::of(distortion.0, peak(8));
    println!(
        "  PSNR Y / U / V  {:.2} / {:.2} / {:.2} dB",
        psnr.y, psnr.u, psnr.v
    );
    if args.encode_log.is_some() {
        println!(
            "  encoding        {} with nnvenc, provider {} (whole pipeline)",
            encode_seconds.map_or("unknown speed".into(), speed),
            encode_provider.as_deref().unwrap_or("unknown")
        );
    }
    println!(
        "  decoding        {} with {}, provider {} (whole pipeline)",
        speed(decoding.seconds),
        decoding.decoder,
        decoding.provider
    );
    println!(
        "  side by side    {} (original | decoded)",
        args.picture.display()
    );
    Ok(())
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nnv-compare: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
