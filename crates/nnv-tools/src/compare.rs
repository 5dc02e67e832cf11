// SPDX-License-Identifier: MPL-2.0
//! `nnv compare`: how close a stream's pictures come to the original's.

use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use nnv_format::picture::{Picture, RawFormat};
use nnv_quality::{
    Colour, Decision, FrameQuality, Meter, Metrics, Pairing, PlaneView, Psnr, QualityError,
    SquaredError, Upcoming, Vmaf, peak,
};
use serde_json::json;

use crate::colours::Colours;
use crate::failure::{Failure, Result};
use crate::files::check_outputs;
use crate::frames::{Decoding, Frame, Frames};
use crate::{models, plot};

/// Compares a stream with what it was made from: PSNR, SSIM, MS-SSIM, XPSNR, SSIMULACRA2, VMAF
#[derive(Args, Debug)]
pub struct Options {
    /// The original: .y4m, a stream, or anything that GStreamer reads
    original: PathBuf,
    /// What was made of it: a stream, or anything else as well
    stream: PathBuf,
    /// Compare so many frames at most, and let both files go on behind them
    #[arg(long, value_name = "N")]
    frames: Option<u64>,
    /// Write the worst frame, original on the left
    #[arg(long, value_name = "PNG")]
    picture: Option<PathBuf>,
    /// Write the measures of each frame
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw PSNR and what --metrics names over time
    #[arg(long, value_name = "SVG")]
    plot: Option<PathBuf>,
    /// What to measure beside PSNR; ssimulacra2 is slow, vmaf needs libvmaf
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "ssim,ms-ssim,xpsnr,ssimulacra2"
    )]
    metrics: Vec<Measure>,
    /// Model of VMAF, of those that libvmaf has built in; newest: the newest
    #[arg(long, value_name = "NAME", default_value = Vmaf::DEFAULT_MODEL)]
    vmaf_model: String,
    /// Leave out so many frames at the original's beginning, or, below 0, at the stream's
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    offset: i64,
    /// Compare frames of one time, not of one number: for files of two frame rates
    #[arg(long)]
    by_time: bool,
    /// Bring a stream of another size or depth to the original's
    #[arg(long)]
    scale: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Bundle in place of the one that the stream asks for: a name or a folder
    #[arg(long, value_name = "NAME|FOLDER")]
    model: Option<String>,
    /// Threads; 0: as many as there are processors
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: u32,
}

/// Measures that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    /// No more than PSNR
    Psnr,
    /// As ffmpeg's filter has it
    Ssim,
    /// Of luma
    MsSsim,
    /// As ffmpeg's filter has it
    Xpsnr,
    /// Slow
    Ssimulacra2,
    /// By libvmaf, where that is installed
    Vmaf,
}

/// Planes of a picture as its users get them: 8 bit rounded, 10 bit as they are.
pub struct Shown<'a> {
    picture: &'a Picture,
    /// Y, U and V of 8-bit pictures.
    bytes: Option<[Vec<u8>; 3]>,
}

impl<'a> Shown<'a> {
    /// Of a frame.
    ///
    /// # Errors
    /// The picture cannot be written as raw samples.
    pub fn new(frame: &'a Frame) -> Result<Self> {
        let picture = &*frame.picture;
        let bytes = if frame.bit_depth == 8 {
            let sizes = picture
                .planes()
                .each_ref()
                .map(|p| (p.visible_width(), p.visible_height()));
            let mut planes = sizes.map(|(w, h)| vec![0; w * h]);
            let mut views: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
            picture.write_raw(RawFormat::I420, &mut views, &sizes.map(|(w, _)| w))?;
            Some(planes)
        } else {
            None
        };
        Ok(Self { picture, bytes })
    }

    fn plane(&self, i: usize) -> std::result::Result<PlaneView<'_>, QualityError> {
        let plane = self.picture.plane(i);
        let (w, h) = (plane.visible_width(), plane.visible_height());
        match &self.bytes {
            Some(bytes) => PlaneView::u8(&bytes[i], w, h, w),
            None => PlaneView::u16(plane.data(), w, h, plane.stride(), 10),
        }
    }

    /// Y, U and V.
    ///
    /// # Errors
    /// [`QualityError`], where a plane has no samples.
    pub fn planes(&self) -> std::result::Result<[PlaneView<'_>; 3], QualityError> {
        Ok([self.plane(0)?, self.plane(1)?, self.plane(2)?])
    }

    /// Writes the samples plane after plane, those of 10 bits as little-endian words.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        if let Some(bytes) = &self.bytes {
            return bytes.iter().try_for_each(|plane| out.write_all(plane));
        }
        for row in self.picture.planes().iter().flat_map(|p| p.visible_rows()) {
            let words: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
            out.write_all(&words)?;
        }
        Ok(())
    }
}

/// PSNR alone of a frame.
///
/// # Errors
/// The pictures differ in size or depth.
pub fn psnr(a: &Frame, b: &Frame) -> Result<Psnr> {
    let (a, b) = (Shown::new(a)?, Shown::new(b)?);
    let mut errors = [SquaredError::default(); 3];
    for (error, (a, b)) in errors.iter_mut().zip(a.planes()?.iter().zip(&b.planes()?)) {
        *error = SquaredError::of(*a, *b)?;
    }
    Ok(Psnr::of(errors, peak(a.plane(0)?.bit_depth())))
}

fn measure(meter: &mut Meter, a: &Frame, b: &Frame, scale: bool) -> Result<FrameQuality> {
    let size = |f: &Frame| (f.picture.width(), f.picture.height(), f.bit_depth);
    if size(a) != size(b) && !scale {
        let ((aw, ah, ad), (bw, bh, bd)) = (size(a), size(b));
        return Err(Failure::Input(format!(
            "{bw}x{bh} in {bd} bits beside {aw}x{ah} in {ad} bits; --scale brings it to the \
             original's"
        )));
    }
    let (a, b) = (Shown::new(a)?, Shown::new(b)?);
    Ok(meter.add(&a.planes()?, &b.planes()?)?)
}

/// A file to be written, and its name for messages.
fn create(path: &Path) -> Result<BufWriter<std::fs::File>> {
    let file = std::fs::File::create(path).map_err(|e| Failure::file(path, e))?;
    Ok(BufWriter::new(file))
}

/// How the numbers of frames compare at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Together,
    /// Enough were compared.
    Wanted,
    OriginalFirst,
    StreamFirst,
}

/// Frames of both files that belong together.
struct Pairs {
    original: Frames,
    stream: Frames,
    /// The original's next frame and its number.
    upcoming: Option<(u64, Frame)>,
    /// By time, where that is asked for and both have another rate.
    by_time: Option<ByTime>,
    may_by_time: bool,
    compared: u64,
}

struct ByTime {
    /// Frame's durations in ns: the original's, the stream's.
    steps: [i64; 2],
    pairing: Pairing<Frame>,
    taken: u64,
    shown: u64,
}

fn step((n, d): (u32, u32)) -> Option<i64> {
    (n > 0 && d > 0).then(|| 1_000_000_000 * i64::from(d) / i64::from(n))
}

impl Pairs {
    /// Both files behind `offset` frames of one.
    fn new(
        mut original: Frames,
        mut stream: Frames,
        offset: i64,
        may_by_time: bool,
    ) -> Result<Self> {
        let longer = if offset > 0 {
            &mut original
        } else {
            &mut stream
        };
        for _ in 0..offset.unsigned_abs() {
            longer.next()?;
        }
        Ok(Self {
            original,
            stream,
            upcoming: None,
            by_time: None,
            may_by_time,
            compared: 0,
        })
    }

    /// The next pair, or how both end.
    fn next(&mut self) -> Result<std::result::Result<(Frame, Frame), Ends>> {
        if self.by_time.is_none() {
            let pair = match (self.original.next()?, self.stream.next()?) {
                (Some(a), Some(b)) => (a, b),
                (None, None) => return Ok(Err(Ends::Together)),
                (None, Some(_)) => return Ok(Err(Ends::OriginalFirst)),
                (Some(_), None) => return Ok(Err(Ends::StreamFirst)),
            };
            self.compared += 1;
            // The rates of streams are known with their first frame.
            if self.compared == 1
                && self.may_by_time
                && let (Some(a), Some(b)) = (self.original.rate(), self.stream.rate())
                && let (Some(a), Some(b)) = (step(a), step(b))
                && a.abs_diff(b) * 1000 > a.unsigned_abs()
            {
                let mut pairing = Pairing::new(a / 2 + 1);
                pairing.take(0, pair.0.clone());
                pairing.decide(0, Upcoming::End);
                self.by_time = Some(ByTime {
                    steps: [a, b],
                    pairing,
                    taken: 1,
                    shown: 1,
                });
            }
            return Ok(Ok(pair));
        }
        let Some(frame) = self.stream.next()? else {
            return Ok(Err(Ends::Together));
        };
        let Some(times) = &mut self.by_time else {
            return Ok(Err(Ends::Together));
        };
        let at =
            |step: i64, number: u64| step.saturating_mul(number.try_into().unwrap_or(i64::MAX));
        let time = at(times.steps[1], times.shown);
        times.shown += 1;
        loop {
            if self.upcoming.is_none() {
                self.upcoming = self.original.next()?.map(|frame| (times.taken, frame));
            }
            let next = self.upcoming.as_ref();
            let next = next.map_or(Upcoming::End, |(n, _)| {
                Upcoming::Time(at(times.steps[0], *n))
            });
            match (times.pairing.decide(time, next), self.upcoming.take()) {
                (Decision::Take, Some((number, original))) => {
                    times.pairing.take(at(times.steps[0], number), original);
                    times.taken += 1;
                }
                (Decision::Pair, upcoming) => {
                    self.upcoming = upcoming;
                    let Some(original) = times.pairing.current().cloned() else {
                        return Ok(Err(Ends::OriginalFirst));
                    };
                    self.compared += 1;
                    return Ok(Ok((original, frame)));
                }
                _ => return Ok(Err(Ends::OriginalFirst)),
            }
        }
    }
}

/// Measures of each frame, once they are known: as lines of a file, as curves, or neither.
struct PerFrame {
    csv: Option<BufWriter<std::fs::File>>,
    curves: Option<plot::Curves>,
    /// What waits for its VMAF: whether it was concealed, and its measures.
    waiting: VecDeque<(bool, FrameQuality)>,
    frames: u64,
}

impl PerFrame {
    fn new(options: &Options) -> Result<Self> {
        let mut csv = options.csv.as_deref().map(create).transpose()?;
        if let Some(csv) = &mut csv {
            writeln!(
                csv,
                "frame,psnr_y,psnr_u,psnr_v,psnr_weighted_db,psnr_weighted_error,psnr_pooled,\
                 ssim_y,ssim_u,ssim_v,ssim_all,ms_ssim_y,concealed,xpsnr_y,xpsnr_u,xpsnr_v,\
                 ssimulacra2,vmaf"
            )?;
        }
        Ok(Self {
            csv,
            curves: options.plot.as_ref().map(|_| plot::Curves::default()),
            waiting: VecDeque::new(),
            frames: 0,
        })
    }

    /// The next frame.
    fn add(&mut self, concealed: bool, quality: FrameQuality, meter: &mut Meter) -> Result<()> {
        self.waiting.push_back((concealed, quality));
        self.write(meter)
    }

    /// Writes the frames of which all is known.
    fn write(&mut self, meter: &mut Meter) -> Result<()> {
        while let Some((concealed, quality)) = self.waiting.front_mut()
            && meter.complete(quality)
        {
            if let Some(csv) = &mut self.csv {
                line(csv, self.frames, *concealed, quality)?;
            }
            if let Some(curves) = &mut self.curves {
                curves.add("PSNR Y, dB", 2, quality.psnr.y);
                for (name, digits, value) in [
                    ("SSIM Y", 4, quality.ssim.map(|s| s.y)),
                    ("MS-SSIM Y", 4, quality.ms_ssim.map(|m| m.ms_ssim)),
                    ("XPSNR Y, dB", 2, quality.xpsnr.map(|x| x[0])),
                    ("SSIMULACRA2", 2, quality.ssimulacra2),
                    ("VMAF", 2, quality.vmaf),
                ] {
                    if let Some(value) = value {
                        curves.add(name, digits, value);
                    }
                }
            }
            self.waiting.pop_front();
            self.frames += 1;
        }
        Ok(())
    }
}

/// A line of the file.
fn line(out: &mut impl Write, frame: u64, concealed: bool, q: &FrameQuality) -> Result<()> {
    write!(out, "{frame}")?;
    let values = q.values();
    let (before, after) = values.split_at(11);
    for (i, value) in before.iter().enumerate() {
        match value {
            Some(v) if i < 6 => write!(out, ",{v:.4}")?,
            Some(v) => write!(out, ",{v:.6}")?,
            None => write!(out, ",")?,
        }
    }
    write!(out, ",{}", u8::from(concealed))?;
    for value in after {
        match value {
            Some(v) => write!(out, ",{v:.4}")?,
            None => write!(out, ",")?,
        }
    }
    Ok(writeln!(out)?)
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    if options.frames == Some(0) {
        return Err(Failure::Usage("--frames 0 compares nothing".into()));
    }
    let outputs = [&options.csv, &options.plot, &options.picture];
    check_outputs(
        [&*options.original, &*options.stream],
        outputs.into_iter().flatten().map(|path| &**path),
    )?;
    let has = |measure| options.metrics.contains(&measure);
    let mut vmaf = has(Measure::Vmaf)
        .then(|| Vmaf::new(&options.vmaf_model))
        .transpose()?;
    let decoding = Decoding {
        model: options.model.as_deref().map(models::source),
        threads: options.threads,
        ..Decoding::default()
    };
    let original = Frames::open(&options.original, &decoding)?;
    let stream = Frames::open(&options.stream, &decoding)?;
    let mut pairs = Pairs::new(original, stream, options.offset, options.by_time)?;
    let metrics = Metrics {
        ssim: has(Measure::Ssim),
        ms_ssim: has(Measure::MsSsim),
        xpsnr: has(Measure::Xpsnr),
        ssimulacra2: has(Measure::Ssimulacra2),
    };
    let mut meter = None;
    let mut each = PerFrame::new(options)?;
    let mut worst = None;
    let (mut frames, mut concealed) = (0_u64, 0_u64);
    let ends = loop {
        if options.frames.is_some_and(|wanted| frames >= wanted) {
            break Ends::Wanted;
        }
        let (a, b) = match pairs.next()? {
            Ok(pair) => pair,
            Err(ends) => break ends,
        };
        let meter = meter.get_or_insert_with(|| {
            let rate = pairs.original.rate().or(pairs.stream.rate());
            let colour = Colour {
                matrix: b.matrix,
                full_range: b.full_range,
                ..Colour::default()
            };
            Meter::new(metrics, rate.map_or(0, |(n, d)| n / d.max(1)), colour)
                .with_vmaf(vmaf.take())
        });
        let q = measure(meter, &a, &b, options.scale).map_err(|e| match e {
            Failure::Input(what) | Failure::Usage(what) => Failure::file(
                &options.stream,
                format!("frame {frames} cannot be compared with the original's: {what}"),
            ),
        })?;
        each.add(b.concealed, q, meter)?;
        concealed += u64::from(b.concealed);
        if meter
            .clip()
            .worst()
            .is_some_and(|(worst, _)| worst == frames)
        {
            worst = Some((a, b));
        }
        frames += 1;
    };
    if let Some(meter) = &mut meter {
        meter.finish()?;
        each.write(meter)?;
    }
    let found = meter.as_ref().and_then(|meter| {
        let worst = meter.clip().worst()?;
        Some((meter.mean()?, worst))
    });
    let Some((mean, (number, db))) = found else {
        let empty = match ends {
            Ends::OriginalFirst => &options.original,
            _ => &options.stream,
        };
        return Err(Failure::file(empty, "no picture comes out of it"));
    };
    if let Some(csv) = &mut each.csv {
        csv.flush()?;
    }
    if let (Some(path), Some((a, b))) = (&options.picture, &worst) {
        side_by_side(path, a, b)?;
    }
    if let (Some(path), Some(curves)) = (&options.plot, &each.curves) {
        let mut out = create(path)?;
        let name = options
            .stream
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        out.write_all(curves.svg(&name, pairs.stream.rate()).as_bytes())?;
        out.flush()?;
    }
    let vmaf = meter.as_ref().and_then(Meter::vmaf);
    let size = worst.map(|(a, _)| (a.picture.width(), a.picture.height(), a.bit_depth));
    let (width, height, bit_depth) = size.unwrap_or_default();
    if options.json {
        let psnr = |p: Psnr| {
            json!({
                "y": finite(p.y), "u": finite(p.u), "v": finite(p.v),
                "weighted_db": finite(p.weighted_db), "weighted_error": finite(p.weighted_error),
                "pooled": finite(p.pooled),
            })
        };
        let report = json!({
            "original": options.original.display().to_string(),
            "stream": options.stream.display().to_string(),
            "frames": frames, "width": width, "height": height, "bit_depth": bit_depth,
            "concealed": concealed,
            "psnr": {
                "db_of_mean_error": psnr(mean.db_of_mean_error),
                "mean_of_db": psnr(mean.mean_of_db),
            },
            "ssim": mean.ssim.map(|s| json!({ "y": s.y, "u": s.u, "v": s.v, "all": s.all })),
            "ms_ssim_y": mean.ms_ssim,
            "xpsnr": mean.xpsnr.map(|x| {
                json!({ "y": finite(x[0]), "u": finite(x[1]), "v": finite(x[2]) })
            }),
            "ssimulacra2": mean.ssimulacra2,
            "vmaf": mean.vmaf,
            "vmaf_model": vmaf.map(Vmaf::model),
            "worst": { "frame": number, "weighted_error": finite(db) },
        });
        println!("{report:#}");
    } else {
        println!("frames             {frames} of {width}x{height}, {bit_depth} bit");
        println!(
            "PSNR in dB              Y        U        V  (6Y+U+V)/8  same of errors   pooled"
        );
        for (name, p) in [
            ("of mean error", mean.db_of_mean_error),
            ("mean of frames", mean.mean_of_db),
        ] {
            println!(
                "  {name:14} {:8.3} {:8.3} {:8.3}    {:8.3}        {:8.3} {:8.3}",
                p.y, p.u, p.v, p.weighted_db, p.weighted_error, p.pooled
            );
        }
        if let Some(s) = mean.ssim {
            println!(
                "SSIM               Y {:.5}, U {:.5}, V {:.5}, all {:.5} (as ffmpeg's)",
                s.y, s.u, s.v, s.all
            );
        }
        let none = "none: the pictures are too small";
        match mean.ms_ssim {
            Some(m) => println!("MS-SSIM            Y {m:.5}"),
            None if metrics.ms_ssim => println!("MS-SSIM            {none}"),
            None => {}
        }
        if let Some([y, u, v]) = mean.xpsnr {
            println!("XPSNR in dB        Y {y:.3}, U {u:.3}, V {v:.3} (as ffmpeg's)");
        }
        match mean.ssimulacra2 {
            Some(s) => println!("SSIMULACRA2        {s:.3}"),
            None if metrics.ssimulacra2 => println!("SSIMULACRA2        {none}"),
            None => {}
        }
        match (mean.vmaf, vmaf) {
            (Some(v), Some(by)) => println!(
                "VMAF               {v:.3} ({}, libvmaf {})",
                by.model(),
                by.version()
            ),
            (None, Some(_)) => println!("VMAF               {none}"),
            _ => {}
        }
        println!("worst frame        {number}: {db:.3} dB by weighted errors");
        if concealed > 0 {
            println!("concealed          {concealed} frames: the stream is damaged");
        }
    }
    match ends {
        Ends::Together | Ends::Wanted => Ok(()),
        Ends::OriginalFirst | Ends::StreamFirst => {
            let more = ends == Ends::OriginalFirst;
            Err(Failure::file(
                &options.stream,
                format!(
                    "it has {} frames than the original; the first {frames} were compared \
                     (--frames {frames} does that without complaint)",
                    if more { "more" } else { "fewer" }
                ),
            ))
        }
    }
}

/// JSON knows no infinity.
fn finite(v: f64) -> Option<f64> {
    v.is_finite().then_some(v)
}

/// Writes two pictures side by side, each in its size.
fn side_by_side(path: &Path, a: &Frame, b: &Frame) -> Result<()> {
    let size = |f: &Frame| (f.picture.width() as usize, f.picture.height() as usize);
    let sides = [(rgb(a, b), size(a)), (rgb(b, b), size(b))];
    let width = sides.iter().map(|(_, (width, _))| width).sum::<usize>();
    let height = sides.iter().map(|(_, (_, height))| *height).max();
    let height = height.unwrap_or_default();
    let mut both = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for (samples, (width, _)) in &sides {
            let row = samples.chunks_exact(3 * width).nth(y);
            both.extend_from_slice(row.unwrap_or(&vec![0; 3 * width]));
        }
    }
    let mut encoder = png::Encoder::new(create(path)?, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let fail = |e: png::EncodingError| Failure::file(path, e);
    let mut writer = encoder.write_header().map_err(fail)?;
    writer.write_image_data(&both).map_err(fail)?;
    writer.finish().map_err(fail)
}

/// A picture in red, green and blue, 8 bit, by the colours that `by` states.
fn rgb(frame: &Frame, by: &Frame) -> Vec<u8> {
    let picture = &frame.picture;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let colours = Colours::new(by.matrix, by.full_range, picture.height());
    let mut out = Vec::with_capacity(3 * width * height);
    for row in 0..height {
        let y = picture.plane(0).visible_row(row);
        let [u, v] = [1, 2].map(|p| picture.plane(p).visible_row(row / 2));
        for x in 0..width {
            let [y, u, v] = [y[x], u[x / 2], v[x / 2]].map(f32::from);
            out.extend(colours.rgb(y, u, v));
        }
    }
    out
}
