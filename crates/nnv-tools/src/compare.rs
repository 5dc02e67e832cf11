// SPDX-License-Identifier: MPL-2.0
//! `nnv compare`: how close a stream's pictures come to the original's.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use nnv_format::picture::{Picture, RawFormat};
use nnv_quality::{ClipQuality, FrameQuality, PlaneView, Psnr, QualityError};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::frames::{Decoding, Frame, Frames};
use crate::{models, plot};

/// Compares a stream with what it was made from: PSNR, SSIM, MS-SSIM
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
    /// Draw PSNR and SSIM over time
    #[arg(long, value_name = "SVG")]
    plot: Option<PathBuf>,
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

/// Planes of a picture as its users get them: 8 bit rounded, 10 bit as they are.
struct Shown<'a> {
    picture: &'a Picture,
    /// Y, U and V of 8-bit pictures.
    bytes: Option<[Vec<u8>; 3]>,
}

impl<'a> Shown<'a> {
    fn new(frame: &'a Frame) -> Result<Self> {
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

    fn planes(&self) -> std::result::Result<[PlaneView<'_>; 3], QualityError> {
        Ok([self.plane(0)?, self.plane(1)?, self.plane(2)?])
    }
}

fn quality(a: &Frame, b: &Frame) -> Result<FrameQuality> {
    let (a, b) = (Shown::new(a)?, Shown::new(b)?);
    Ok(FrameQuality::of(&a.planes()?, &b.planes()?)?)
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

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    if options.frames == Some(0) {
        return Err(Failure::Usage("--frames 0 compares nothing".into()));
    }
    let decoding = Decoding {
        model: options.model.as_deref().map(models::source),
        threads: options.threads,
    };
    let mut original = Frames::open(&options.original, &decoding)?;
    let mut stream = Frames::open(&options.stream, &decoding)?;
    let mut csv = options.csv.as_deref().map(create).transpose()?;
    if let Some(csv) = &mut csv {
        writeln!(
            csv,
            "frame,psnr_y,psnr_u,psnr_v,psnr_weighted_db,psnr_weighted_error,psnr_pooled,ssim_y,\
             ssim_u,ssim_v,ssim_all,ms_ssim_y,concealed"
        )?;
    }
    let mut clip = ClipQuality::default();
    let mut curves = plot::Curves::default();
    let mut worst = None;
    let (mut frames, mut concealed) = (0_u64, 0_u64);
    let ends = loop {
        if options.frames.is_some_and(|wanted| frames >= wanted) {
            break Ends::Wanted;
        }
        let (a, b) = match (original.next()?, stream.next()?) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => break Ends::Together,
            (None, Some(_)) => break Ends::OriginalFirst,
            (Some(_), None) => break Ends::StreamFirst,
        };
        let q = quality(&a, &b).map_err(|e| match e {
            Failure::Input(what) | Failure::Usage(what) => Failure::file(
                &options.stream,
                format!("frame {frames} cannot be compared with the original's: {what}"),
            ),
        })?;
        if let Some(csv) = &mut csv {
            let (p, s) = (q.psnr, q.ssim);
            write!(csv, "{frames}")?;
            for v in [p.y, p.u, p.v, p.weighted_db, p.weighted_error, p.pooled] {
                write!(csv, ",{v:.4}")?;
            }
            for v in [s.y, s.u, s.v, s.all] {
                write!(csv, ",{v:.6}")?;
            }
            match q.ms_ssim {
                Some(m) => write!(csv, ",{:.6}", m.ms_ssim)?,
                None => write!(csv, ",")?,
            }
            writeln!(csv, ",{}", u8::from(b.concealed))?;
        }
        if options.plot.is_some() {
            curves.add(q.psnr.y, q.ssim.y);
        }
        concealed += u64::from(b.concealed);
        if clip.add(&q) {
            worst = Some((a, b));
        }
        frames += 1;
    };
    let (Some(mean), Some((number, db))) = (clip.mean(), clip.worst()) else {
        let empty = match ends {
            Ends::OriginalFirst => &options.original,
            _ => &options.stream,
        };
        return Err(Failure::file(empty, "no picture comes out of it"));
    };
    if let Some(mut csv) = csv {
        csv.flush()?;
    }
    if let (Some(path), Some((a, b))) = (&options.picture, &worst) {
        side_by_side(path, a, b)?;
    }
    if let Some(path) = &options.plot {
        let mut out = create(path)?;
        let name = options
            .stream
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        out.write_all(curves.svg(&name, stream.rate()).as_bytes())?;
        out.flush()?;
    }
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
        let s = mean.ssim;
        let report = json!({
            "original": options.original.display().to_string(),
            "stream": options.stream.display().to_string(),
            "frames": frames, "width": width, "height": height, "bit_depth": bit_depth,
            "concealed": concealed,
            "psnr": {
                "db_of_mean_error": psnr(mean.db_of_mean_error),
                "mean_of_db": psnr(mean.mean_of_db),
            },
            "ssim": { "y": s.y, "u": s.u, "v": s.v, "all": s.all },
            "ms_ssim_y": mean.ms_ssim,
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
        let s = mean.ssim;
        println!(
            "SSIM               Y {:.5}, U {:.5}, V {:.5}, all {:.5} (as ffmpeg's)",
            s.y, s.u, s.v, s.all
        );
        match mean.ms_ssim {
            Some(m) => println!("MS-SSIM            Y {m:.5}"),
            None => println!("MS-SSIM            none: the pictures are too small"),
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

/// Writes two pictures of one size side by side.
fn side_by_side(path: &Path, a: &Frame, b: &Frame) -> Result<()> {
    let (width, height) = (a.picture.width(), a.picture.height());
    let (left, right) = (rgb(a, b), rgb(b, b));
    let row = 3 * width as usize;
    let rows = left.chunks_exact(row).zip(right.chunks_exact(row));
    let both: Vec<u8> = rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect();
    let mut encoder = png::Encoder::new(create(path)?, 2 * width, height);
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
    // Weights of red and blue in luma; where the stream says nothing, as GStreamer guesses.
    let (kr, kb) = match by.matrix {
        1 => (0.2126, 0.0722),
        9 | 10 => (0.2627, 0.0593),
        4..=6 => (0.299, 0.114),
        _ if height > 576 => (0.2126, 0.0722),
        _ => (0.299, 0.114),
    };
    let kg = 1.0 - kr - kb;
    let (floor, luma, chroma) = match by.full_range {
        true => (0.0, 1023.0, 1023.0),
        false => (64.0, 876.0, 896.0),
    };
    let mut out = Vec::with_capacity(3 * width * height);
    let byte = |v: f32| (v * 255.0).round().clamp(0.0, 255.0) as u8;
    for row in 0..height {
        let y = picture.plane(0).visible_row(row);
        let [u, v] = [1, 2].map(|p| picture.plane(p).visible_row(row / 2));
        for x in 0..width {
            let y = (f32::from(y[x]) - floor) / luma;
            let cb = (f32::from(u[x / 2]) - 512.0) / chroma;
            let cr = (f32::from(v[x / 2]) - 512.0) / chroma;
            let (r, b) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
            let g = (y - kr * r - kb * b) / kg;
            out.extend([byte(r), byte(g), byte(b)]);
        }
    }
    out
}
