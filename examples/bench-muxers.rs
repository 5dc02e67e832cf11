// SPDX-License-Identifier: MPL-2.0
//! `nnvmp4mux` beside `mp4mux`: time for files of equal samples, and memory by length.
//!
//! ```text
//! cargo run --release --example bench-muxers [RUNS]
//! ```
//!
//! 10 000 frames of 1 kB and as much AAC, for NNV and for H.264, in turn, so that a busy machine
//! disturbs both alike; the median of RUNS (default 7). Then fragments of ten minutes and of two
//! hours: the most memory that the process held.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gst::prelude::*;

type Res<T> = Result<T, Box<dyn Error>>;

const FRAMES: u64 = 10_000;
const FRAME_NS: u64 = 40_000_000;
const SIZE: usize = 1000;
const GROUP: u64 = 50;
const PACKET_SIZE: usize = 200;
const RATE: u64 = 48_000;
const PACKET_SAMPLES: u64 = 1024;
const MINUTES: [u64; 2] = [10, 120];

/// A muxer and the video it takes.
struct Contender {
    name: &'static str,
    muxer: &'static str,
    video: gst::Caps,
}

fn stamp(data: Vec<u8>, pts: u64, duration: u64, sync: bool) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(data);
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(gst::ClockTime::from_nseconds(pts));
        buffer.set_dts(gst::ClockTime::from_nseconds(pts));
        buffer.set_duration(gst::ClockTime::from_nseconds(duration));
        if !sync {
            buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
    }
    buffer
}

/// A coded key frame, and the caps of its stream.
fn key_frame() -> Res<(Vec<u8>, gst::Caps)> {
    let pipeline = gst::parse::launch(
        "videotestsrc num-buffers=1 ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! \
         nnvenc ! fakesink name=sink enable-last-sample=true sync=false",
    )?;
    run(&pipeline)?;
    let bin = pipeline.downcast_ref::<gst::Bin>().ok_or("no bin")?;
    let sink = bin.by_name("sink").ok_or("no sink")?;
    let sample: gst::Sample = sink.property("last-sample");
    let buffer = sample.buffer().ok_or("no key frame")?;
    let data = buffer.map_readable()?.to_vec();
    let caps = sample.caps_owned().ok_or("no caps")?;
    pipeline.set_state(gst::State::Null)?;
    Ok((data, caps))
}

/// Runs a pipeline to its end, and leaves it there.
fn run(pipeline: &gst::Element) -> Res<()> {
    let bus = pipeline.bus().ok_or("no bus")?;
    pipeline.set_state(gst::State::Playing)?;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) => return Ok(()),
            gst::MessageView::Error(error) => return Err(error.error().to_string().into()),
            _ => {}
        }
    }
    Err("the pipeline went away".into())
}

/// Puts samples in the place of what a `fakesrc` makes.
fn feed(
    pipeline: &gst::Element,
    name: &str,
    caps: &gst::Caps,
    samples: impl Iterator<Item = gst::Buffer> + Send + 'static,
) -> Res<()> {
    let bin = pipeline.downcast_ref::<gst::Bin>().ok_or("no bin")?;
    let filter = bin.by_name(&format!("{name}-caps")).ok_or("no filter")?;
    filter.set_property("caps", caps);
    let source = bin.by_name(name).and_then(|s| s.static_pad("src"));
    let samples = Mutex::new(samples);
    source
        .ok_or("no source")?
        .add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
            let next = samples.lock().ok().and_then(|mut samples| samples.next());
            if let Some(sample) = next {
                probe.data = Some(gst::PadProbeData::Buffer(sample));
            }
            gst::PadProbeReturn::Ok
        });
    Ok(())
}

fn aac() -> gst::Caps {
    gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 4)
        .field("stream-format", "raw")
        .field("channels", 2)
        .field("rate", RATE as i32)
        .field("framed", true)
        .field("codec_data", gst::Buffer::from_slice([0x11, 0x90]))
        .build()
}

fn h264() -> gst::Caps {
    let mut codec_data = vec![
        1, 66, 0, 10, 0xff, 0xe1, 0, 4, 0x67, 66, 0, 10, 1, 0, 1, 0x68,
    ];
    codec_data.extend([0; 8]);
    gst::Caps::builder("video/x-h264")
        .field("stream-format", "avc")
        .field("alignment", "au")
        .field("codec_data", gst::Buffer::from_slice(codec_data))
        .field("width", 64)
        .field("height", 48)
        .field("framerate", gst::Fraction::new(25, 1))
        .build()
}

fn video(key: &[u8], frames: u64) -> impl Iterator<Item = gst::Buffer> + Send + use<> {
    let key = key.to_vec();
    (0..frames).map(move |number| {
        let sync = number.is_multiple_of(GROUP);
        let data = if sync { key.clone() } else { vec![7; SIZE] };
        stamp(data, number * FRAME_NS, FRAME_NS, sync)
    })
}

fn packets(frames: u64) -> u64 {
    (frames * FRAME_NS * RATE).div_ceil(PACKET_SAMPLES * 1_000_000_000)
}

fn sound(frames: u64) -> impl Iterator<Item = gst::Buffer> + Send {
    let time = |packet: u64| packet * PACKET_SAMPLES * 1_000_000_000 / RATE;
    (0..packets(frames)).map(move |packet| {
        let (begin, end) = (time(packet), time(packet + 1));
        stamp(vec![9; PACKET_SIZE], begin, end - begin, true)
    })
}

/// Samples made before the clock starts, or one by one.
fn mux(contender: &Contender, key: &[u8], frames: u64, sink: &str, ahead: bool) -> Res<Duration> {
    let source = "format=time sizetype=fixed sizemax=1";
    let pipeline = gst::parse::launch(&format!(
        "{} name=mux ! {sink} \
         fakesrc name=video num-buffers={frames} {source} ! capsfilter name=video-caps ! \
         mux.video_0 \
         fakesrc name=sound num-buffers={} {source} ! capsfilter name=sound-caps ! mux.audio_0",
        contender.muxer,
        packets(frames)
    ))?;
    if ahead {
        let made: Vec<_> = video(key, frames).collect();
        feed(&pipeline, "video", &contender.video, made.into_iter())?;
        let made: Vec<_> = sound(frames).collect();
        feed(&pipeline, "sound", &aac(), made.into_iter())?;
    } else {
        feed(&pipeline, "video", &contender.video, video(key, frames))?;
        feed(&pipeline, "sound", &aac(), sound(frames))?;
    }
    let begin = Instant::now();
    let ended = run(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    ended?;
    Ok(begin.elapsed())
}

/// The most memory that the process held since [`forget_most`], in KiB (Linux).
fn most_memory() -> Res<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmHWM")?;
    Ok(number.parse()?)
}

fn forget_most() -> Res<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() -> Res<()> {
    gst::init()?;
    gstnnv::plugin_register_static()?;
    let runs: usize = std::env::args().nth(1).map_or(Ok(7), |runs| runs.parse())?;
    let (key, nnv) = key_frame()?;
    let file: PathBuf = std::env::temp_dir().join(format!("bench-muxers-{}", std::process::id()));
    let sink = format!("filesink location={}", file.display());
    println!("{FRAMES} frames of 1 kB with AAC; median of {runs} in turn, and nnvmp4mux / mp4mux");
    for (kind, ours, theirs) in [
        ("finished", "nnvmp4mux", "mp4mux"),
        (
            "faststart",
            "nnvmp4mux faststart=true",
            "mp4mux faststart=true",
        ),
        (
            "fragments",
            "nnvmp4mux fragment-duration=2000",
            "mp4mux fragment-duration=2000",
        ),
    ] {
        let contenders =
            [("nnvmp4mux", ours, &nnv), ("mp4mux", theirs, &h264())].map(|(name, muxer, video)| {
                Contender {
                    name,
                    muxer,
                    video: video.clone(),
                }
            });
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..runs {
            for (contender, times) in contenders.iter().zip(&mut times) {
                times.push(mux(contender, &key, FRAMES, &sink, true)?);
            }
        }
        let [ours, theirs] = times.each_mut().map(|times| median(times).as_secs_f64());
        for (contender, time) in contenders.iter().zip([ours, theirs]) {
            println!("  {kind:9} {:9} {:6.1} ms", contender.name, time * 1e3);
        }
        println!("  {kind:9} ratio     {:6.2}", ours / theirs);
    }
    std::fs::remove_file(&file)?;

    println!("fragments of 2 s, most memory of the process");
    let contender = Contender {
        name: "nnvmp4mux",
        muxer: "nnvmp4mux fragment-duration=2000",
        video: nnv,
    };
    // What all runs need alike.
    mux(&contender, &key, FRAMES, "fakesink sync=false", false)?;
    let mut most = Vec::new();
    for minutes in MINUTES {
        forget_most()?;
        mux(
            &contender,
            &key,
            minutes * 60 * 25,
            "fakesink sync=false",
            false,
        )?;
        most.push(most_memory()?);
        println!(
            "  {minutes:3} minutes {:8.1} MiB",
            most[most.len() - 1] as f64 / 1024.0
        );
    }
    println!("  ratio       {:8.3}", most[1] as f64 / most[0] as f64);
    Ok(())
}
