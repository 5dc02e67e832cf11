// SPDX-License-Identifier: MPL-2.0
//! The plan: which frames make each shot, and what they look like.

use std::path::Path;

use nnv_codec::config::Tuning;
use nnv_codec::encode::SceneCut;
use serde::{Deserialize, Serialize};

use super::codec::Codec;
use super::features::Gatherer;
use super::source::{Source, Track, Video};
use crate::failure::{Failure, Result};

/// No shot is shorter, but the last one.
const SHORTEST: u64 = 24;
/// None is longer, in seconds: players seek to where shots begin.
const LONGEST: f64 = 10.0;
/// Nor are its raw frames more bytes: they lie on the disk while it is coded.
const MOST_BYTES: u64 = 1 << 30;

/// Frames that are coded together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shot {
    /// Number of the first one.
    pub first: u64,
    /// How many they are.
    pub frames: u64,
    /// What they look like, by the names of `features::NAMES`.
    pub features: Vec<f32>,
}

/// A source and its shots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The pictures, as they are coded.
    pub video: Video,
    /// Width and height of the source's, where those have a line or a column more.
    pub uncropped: Option<(u32, u32)>,
    /// Sound and subtitles.
    pub tracks: Vec<Track>,
    /// In order, without gaps.
    pub shots: Vec<Shot>,
}

/// Limits of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Plan so many frames at most.
    pub frames: Option<u64>,
    /// 10 bits stay 10.
    pub deep: bool,
    /// Sides are even: of an odd one the last line or column is left out.
    pub even: bool,
}

impl Limits {
    /// What is coded of a source.
    fn coded(self, mut video: Video) -> Video {
        if self.even {
            for side in [&mut video.width, &mut video.height] {
                *side -= *side % 2 * u32::from(*side > 1);
            }
        }
        video
    }
}

impl Plan {
    /// Reads a source once. `told(frames)` is called as frames pass.
    ///
    /// # Errors
    /// It cannot be read, or holds no picture, or pictures of several sizes.
    pub fn make(
        path: &Path,
        source: &Source<'_>,
        limits: Limits,
        mut told: impl FnMut(u64),
    ) -> Result<Self> {
        let mut frames = source.frames()?;
        let mut cuts = SceneCut::default();
        let tuning = Tuning::default();
        let mut gatherer = Gatherer::default();
        let (mut shots, mut first, mut n) = (Vec::new(), 0, 0);
        let mut known: Option<(Video, Video)> = None;
        let mut longest = u64::MAX;
        while limits.frames.is_none_or(|most| n < most)
            && let Some(frame) = frames.next()?
        {
            let facts = source.video(&frames, &frame, limits.deep);
            let (full, coded) =
                known.get_or_insert_with(|| (facts.clone(), limits.coded(facts.clone())));
            if (facts.width, facts.height) != (full.width, full.height) {
                let what = format!(
                    "frame {n} is {}x{}, those before are {}x{}: cut the file there",
                    facts.width, facts.height, full.width, full.height
                );
                return Err(Failure::file(path, what));
            }
            if n == 0 {
                let by_time = (LONGEST * coded.fps()) as u64;
                let by_bytes = MOST_BYTES / coded.frame_bytes() as u64;
                longest = by_time.min(by_bytes).max(SHORTEST);
            }
            let ratio = cuts.measure(&frame.picture.quarter_luma());
            let distance = n - first;
            let cut = ratio.is_some_and(|ratio| {
                SceneCut::is_cut(ratio, u32::try_from(distance).unwrap_or(u32::MAX), &tuning)
            });
            if (cut && distance >= SHORTEST) || distance >= longest {
                shots.push(Shot {
                    first,
                    frames: distance,
                    features: std::mem::take(&mut gatherer).finish(coded),
                });
                first = n;
            }
            gatherer.add(&coded.crop(&frame.picture)?)?;
            n += 1;
            told(n);
        }
        let (full, video) =
            known.ok_or_else(|| Failure::file(path, "no picture comes out of it"))?;
        shots.push(Shot {
            first,
            frames: n - first,
            features: gatherer.finish(&video),
        });
        let sizes = [&full, &video].map(|v| (v.width, v.height));
        Ok(Self {
            video,
            uncropped: (sizes[0] != sizes[1]).then_some(sizes[0]),
            tracks: source.tracks.clone(),
            shots,
        })
    }

    /// What of the source's pictures is not coded, and why.
    pub fn cropped(&self, codec: Codec) -> Option<String> {
        let (width, height) = self.uncropped?;
        Some(format!(
            "cropped from {width}x{height} to {}x{}: {} codes even sizes only",
            self.video.width,
            self.video.height,
            codec.facts().encoder
        ))
    }

    /// All frames.
    pub fn frames(&self) -> u64 {
        self.shots.iter().map(|shot| shot.frames).sum()
    }
}
