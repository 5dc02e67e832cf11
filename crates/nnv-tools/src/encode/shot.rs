// SPDX-License-Identifier: MPL-2.0
//! One shot: its frames in a file, coded by a pipeline, and what became of them, measured.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use nnv_format::picture::RawFormat;
use nnv_quality::{Colour, Meter, PlaneView};

use super::codec::Codec;
use super::features::Gatherer;
use super::gst;
use super::size::Size;
use super::source::Video;
use super::target::Metric;
use super::vmaf::{Judge, Vmaf, library};
use crate::compare::Shown;
use crate::failure::{Failure, Result};
use crate::frames::{Decoding, Frame, Frames};

/// Means over the frames of a shot.
pub type Scores = BTreeMap<Metric, f64>;

/// Writes frames as bytes, one after the other.
pub struct RawWriter {
    out: BufWriter<File>,
    video: Video,
    frame: Vec<u8>,
}

impl RawWriter {
    /// Into a new file.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(path: &Path, video: &Video) -> Result<Self> {
        let file = File::create(path).map_err(|e| Failure::file(path, e))?;
        Ok(Self {
            out: BufWriter::with_capacity(1 << 20, file),
            video: video.clone(),
            frame: vec![0; video.frame_bytes()],
        })
    }

    /// The next frame.
    ///
    /// # Errors
    /// It cannot be written, as on a full disk.
    pub fn add(&mut self, frame: &Frame) -> Result<()> {
        let bytes = if self.video.bit_depth == 8 { 1 } else { 2 };
        let format = match bytes {
            1 => RawFormat::I420,
            _ => RawFormat::I42010Le,
        };
        let sizes = self.video.planes();
        let (y, chroma) = self.frame.split_at_mut(sizes[0].0 * sizes[0].1 * bytes);
        let (u, v) = chroma.split_at_mut(sizes[1].0 * sizes[1].1 * bytes);
        let strides = sizes.map(|(w, _)| w * bytes);
        let picture = self.video.crop(&frame.picture)?;
        picture.write_raw(format, &mut [y, u, v], &strides)?;
        Ok(self.out.write_all(&self.frame)?)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`RawWriter::add`].
    pub fn finish(mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// How shots are coded and measured.
#[derive(Clone, Debug)]
pub struct Coding {
    /// The codec.
    pub codec: Codec,
    /// The encoder's preset.
    pub preset: String,
    /// Size of the coded pictures.
    pub size: Size,
    /// Threads of one shot's encoder, and of what measures it.
    pub threads: usize,
    /// What measures VMAF, where that is asked for.
    pub judge: Option<Judge>,
    /// What is measured.
    pub metrics: Vec<Metric>,
}

impl Coding {
    /// Codes frames of `raw` into `out`, both in `folder`. The file appears whole or not at all.
    ///
    /// # Errors
    /// What the pipeline says.
    pub fn code(&self, folder: &Path, raw: &str, video: &Video, q: f64, out: &str) -> Result<u64> {
        // Another process may still write what a killed one began.
        let part = format!("{out}.{}.part", std::process::id());
        let chain = self.codec.chain(q, &self.preset, self.threads);
        let frames = self.small(raw, video);
        let pipeline = format!("{frames} ! {chain} ! filesink location={part}");
        gst::launch(folder, &pipeline, None)?;
        let path = folder.join(out);
        std::fs::rename(folder.join(&part), &path).map_err(|e| Failure::file(&path, e))?;
        Ok(std::fs::metadata(&path)
            .map_err(|e| Failure::file(&path, e))?
            .len())
    }

    /// Reads frames of `raw` and brings them to the size that is coded.
    fn small(&self, raw: &str, video: &Video) -> String {
        let frames = format!("filesrc location={raw} ! {}", video.parse_raw());
        match self.size.shrink(video) {
            Some(shrink) => format!("{frames} ! {shrink}"),
            None => frames,
        }
    }

    /// What frames of `raw` look like at the size that is coded.
    ///
    /// # Errors
    /// They cannot be scaled.
    pub fn features(&self, folder: &Path, raw: &str, video: &Video) -> Result<Vec<f32>> {
        let mut frames = Frames::of_pipeline(folder, &self.small(raw, video), &folder.join(raw))?;
        let mut gatherer = Gatherer::default();
        while let Some(frame) = frames.next()? {
            gatherer.add(&frame.picture)?;
        }
        Ok(gatherer.finish(&self.size.of(video).unwrap_or(video.clone())))
    }

    /// What scaling alone leaves of frames of `raw`, without coding.
    ///
    /// # Errors
    /// As [`Coding::measure`].
    pub fn measure_scaled(&self, folder: &Path, raw: &str, video: &Video) -> Result<Scores> {
        let mut pipeline = self.small(raw, video);
        if let Some(enlarge) = self.size.enlarge(video) {
            pipeline += &format!(" ! {enlarge}");
        }
        let path = folder.join(raw);
        let frames = Frames::of_pipeline(folder, &pipeline, &path)?;
        self.compare(folder, raw, video, frames, &path)
    }

    /// Compares what became of frames of `raw` with them, at the size of these.
    ///
    /// # Errors
    /// The coded file cannot be decoded, has another number of frames, or cannot be measured.
    pub fn measure(&self, folder: &Path, raw: &str, video: &Video, coded: &str) -> Result<Scores> {
        let path = folder.join(coded);
        let decoding = Decoding {
            threads: u32::try_from(self.threads).unwrap_or(0),
            ..Decoding::default()
        };
        let decoded = match self.size.enlarge(video) {
            None => Frames::open(&path, &decoding)?,
            Some(enlarge) => {
                let pipeline = format!(
                    "filesrc location={coded} ! decodebin ! videoconvert ! \
                     video/x-raw,format=I420 ! {enlarge}"
                );
                Frames::of_pipeline(folder, &pipeline, &path)?
            }
        };
        self.compare(folder, raw, video, decoded, &path)
    }

    /// Compares frames of the file `path` with those of `raw`.
    fn compare(
        &self,
        folder: &Path,
        raw: &str,
        video: &Video,
        mut decoded: Frames,
        path: &Path,
    ) -> Result<Scores> {
        let raw_path = folder.join(raw);
        let file = File::open(&raw_path).map_err(|e| Failure::file(&raw_path, e))?;
        let frames = file.metadata()?.len() / video.frame_bytes() as u64;
        let mut reference = BufReader::with_capacity(1 << 20, file);
        let judge = self.judge.as_ref();
        let (mut vmaf, library) = match judge.filter(|_| self.metrics.contains(&Metric::Vmaf)) {
            Some(Judge::Ffmpeg(ffmpeg)) => {
                let vmaf = Vmaf::start(ffmpeg, folder, raw, video, self.threads)?;
                (Some(vmaf), None)
            }
            Some(Judge::Library) => (None, Some(library()?)),
            None => (None, None),
        };
        let rate = video.rate.0 / video.rate.1.max(1);
        let others = self.metrics.iter().any(|metric| *metric != Metric::Vmaf);
        let metered = others || library.is_some();
        let mut meter =
            Meter::new(Metric::wanted(&self.metrics), rate, Colour::default()).with_vmaf(library);
        let mut bytes = vec![0; video.frame_bytes()];
        let mut wide = Vec::new();
        let mut count = 0;
        while let Some(frame) = decoded.next()? {
            if count == frames {
                return Err(Failure::file(path, "it has more frames than were coded"));
            }
            reference.read_exact(&mut bytes)?;
            let shown = Shown::new(&frame)?;
            if let Some(vmaf) = &mut vmaf {
                vmaf.add(&shown)?;
            }
            if metered {
                let planes = reference_planes(&bytes, video, &mut wide)?;
                meter.add(&planes, &shown.planes()?)?;
            }
            count += 1;
        }
        if count < frames {
            return Err(Failure::file(
                path,
                format!(
                    "{} gave {count} of {frames} frames back",
                    self.codec.facts().encoder
                ),
            ));
        }
        let mut scores = Scores::new();
        if let Some(vmaf) = vmaf {
            scores.insert(Metric::Vmaf, vmaf.finish()?);
        }
        meter.finish()?;
        if let Some(mean) = meter.mean() {
            for metric in &self.metrics {
                if let Some(value) = metric.of(&mean) {
                    scores.insert(*metric, value);
                }
            }
        }
        Ok(scores)
    }
}

/// Views of a raw frame's planes. `wide` holds samples of more than 8 bits.
fn reference_planes<'a>(
    bytes: &'a [u8],
    video: &Video,
    wide: &'a mut Vec<u16>,
) -> Result<[PlaneView<'a>; 3]> {
    let sizes = video.planes();
    let mut at = 0;
    let mut ranges = sizes.map(|(w, h)| {
        let range = at..at + w * h;
        at = range.end;
        (range, w, h)
    });
    if video.bit_depth == 8 {
        let mut view = |i: usize| {
            let (range, w, h) = std::mem::take(&mut ranges[i]);
            PlaneView::u8(&bytes[range], w, h, w)
        };
        return Ok([view(0)?, view(1)?, view(2)?]);
    }
    wide.clear();
    wide.extend(
        bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| u16::from_le_bytes(*b)),
    );
    let wide = &*wide;
    let mut view = |i: usize| {
        let (range, w, h) = std::mem::take(&mut ranges[i]);
        PlaneView::u16(&wide[range], w, h, w, video.bit_depth)
    };
    Ok([view(0)?, view(1)?, view(2)?])
}
