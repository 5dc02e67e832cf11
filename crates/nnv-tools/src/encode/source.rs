// SPDX-License-Identifier: MPL-2.0
//! What a source is, before its pictures are read.

use std::path::Path;
use std::sync::Arc;

use nnv_format::picture::Picture;
use serde::{Deserialize, Serialize};

use super::gst;
use crate::failure::{Failure, Result};
use crate::frames::{Decoding, Frames};

/// Colours that 8 bits do not hold.
const HDR: [&str; 2] = ["bt2100-pq", "bt2100-hlg"];
/// The same as numbers of transfer functions, as caps without a name have them: PQ and HLG.
const HDR_TRANSFERS: [&str; 2] = ["14", "15"];

/// How pictures follow each other, and how they are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// Samples of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// 8 or 10, as they are coded.
    pub bit_depth: u8,
    /// Frames a second.
    pub rate: (u32, u32),
    /// Of a sample, width to height.
    pub pixel_aspect: (u32, u32),
    /// As caps have it; empty where unknown.
    pub colorimetry: String,
}

impl Video {
    /// Frames a second.
    pub fn fps(&self) -> f64 {
        f64::from(self.rate.0) / f64::from(self.rate.1.max(1))
    }

    /// Sizes of Y, U and V, width and height in samples.
    pub fn planes(&self) -> [(usize, usize); 3] {
        let (w, h) = (self.width as usize, self.height as usize);
        let chroma = (w.div_ceil(2), h.div_ceil(2));
        [(w, h), chroma, chroma]
    }

    /// Bytes of a raw frame.
    pub fn frame_bytes(&self) -> usize {
        let samples = self.planes().iter().map(|(w, h)| w * h).sum::<usize>();
        samples * if self.bit_depth == 8 { 1 } else { 2 }
    }

    /// The part of a source's picture that is coded: its upper left one.
    ///
    /// # Errors
    /// The picture is smaller.
    pub fn crop(&self, picture: &Arc<Picture>) -> Result<Arc<Picture>> {
        if (picture.width(), picture.height()) == (self.width, self.height) {
            return Ok(picture.clone());
        }
        Ok(Arc::new(picture.cropped(0, 0, self.width, self.height)?))
    }

    /// The element that makes frames of bytes.
    pub fn parse_raw(&self) -> String {
        let ((n, d), (pn, pd)) = (self.rate, self.pixel_aspect);
        let (format, bytes) = match self.bit_depth {
            8 => ("i420", 1),
            _ => ("i420-10le", 2),
        };
        // Unasked, it takes lines for padded to four bytes.
        let [(w, h), (cw, ch), _] = self.planes().map(|(w, h)| (w * bytes, h));
        let (u, v) = (w * h, w * h + cw * ch);
        let colorimetry = match &*self.colorimetry {
            "" => String::new(),
            name => format!("colorimetry={name}"),
        };
        format!(
            "rawvideoparse format={format} width={} height={} framerate={n}/{d} \
             pixel-aspect-ratio={pn}/{pd} {colorimetry} plane-strides=<{w},{cw},{cw}> \
             plane-offsets=<0,{u},{v}>",
            self.width, self.height
        )
    }
}

/// What stands in the container beside the pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// Name of its caps, with what tells kinds apart: `audio/mpeg,mpegversion=4`.
    pub caps: String,
}

/// Pictures that can be read from the beginning as often as one likes.
pub struct Source<'a> {
    path: &'a Path,
    rate: Option<(u32, u32)>,
    pixel_aspect: (u32, u32),
    colorimetry: String,
    /// Sound and subtitles.
    pub tracks: Vec<Track>,
}

impl<'a> Source<'a> {
    /// Looks into a file.
    ///
    /// # Errors
    /// There is no video in it, or of a kind that cannot be coded.
    pub fn open(path: &'a Path) -> Result<Self> {
        // It says what is wrong with a file better than a pipeline does.
        let frames = Frames::open(path, &Decoding::default())?;
        let mut source = Self {
            path,
            rate: None,
            pixel_aspect: (1, 1),
            colorimetry: String::new(),
            tracks: Vec::new(),
        };
        if !frames.is_piped() {
            return Ok(source);
        }
        drop(frames);
        let caps = &gst::picture_caps(path)?;
        let field = |name| gst::field(caps, name);
        source.rate = field("framerate").and_then(gst::fraction);
        if source.rate.is_none_or(|(n, d)| n == 0 || d == 0) {
            return Err(Failure::file(
                path,
                "it names no frame rate: make it constant first (GStreamer's videorate does)",
            ));
        }
        if field("interlace-mode").is_some_and(|mode| mode != "progressive") {
            return Err(Failure::file(
                path,
                "it is interlaced: take the fields apart first (GStreamer's deinterlace does)",
            ));
        }
        let colours = field("colorimetry").unwrap_or_default();
        let transfer = colours.split(':').nth(2).unwrap_or_default();
        if HDR.contains(&colours) || HDR_TRANSFERS.contains(&transfer) {
            return Err(Failure::file(
                path,
                format!(
                    "it is HDR ({colours}), and shots are coded with 8 bits of standard range: \
                     nnv-cluster encode keeps its depth, at a quantizer that you name"
                ),
            ));
        }
        if field("format").is_some_and(|format| format.contains("10") || format.contains("12")) {
            eprintln!("nnv: {}: its samples are coded with 8 bits", path.display());
        }
        source.colorimetry = colours.into();
        source.pixel_aspect = field("pixel-aspect-ratio")
            .and_then(gst::fraction)
            .unwrap_or((1, 1));
        for caps in gst::tracks(path)? {
            let kind = caps.split(", ").next().unwrap_or_default();
            let version = gst::field(&caps, "mpegversion");
            let version = version.map_or(String::new(), |v| format!(",mpegversion={v}"));
            source.tracks.push(Track {
                caps: format!("{kind}{version}"),
            });
        }
        Ok(source)
    }

    /// Its pictures from the first one on, at one rate all along.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn frames(&self) -> Result<Frames> {
        Frames::open(
            self.path,
            &Decoding {
                even_times: true,
                ..Decoding::default()
            },
        )
    }

    /// The facts of pictures like this one. `deep`: ten bits stay ten.
    pub fn video(&self, frames: &Frames, frame: &crate::frames::Frame, deep: bool) -> Video {
        Video {
            width: frame.picture.width(),
            height: frame.picture.height(),
            bit_depth: if deep { frame.bit_depth } else { 8 },
            rate: self.rate.or(frames.rate()).unwrap_or((25, 1)),
            pixel_aspect: self.pixel_aspect,
            colorimetry: self.colorimetry.clone(),
        }
    }
}
