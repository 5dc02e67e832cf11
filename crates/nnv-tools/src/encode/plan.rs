// SPDX-License-Identifier: MPL-2.0
//! The plan: which frames make each shot, and what they look like.

use std::path::Path;

use nnv_codec::config::Tuning;
use nnv_codec::encode::SceneCut;
use serde::{Deserialize, Serialize};

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
    /// The pictures.
    pub video: Video,
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
        let mut video: Option<Video> = None;
        let mut longest = u64::MAX;
        while limits.frames.is_none_or(|most| n < most)
            && let Some(frame) = frames.next()?
        {
            let facts = source.video(&frames, &frame, limits.deep);
            let known = video.get_or_insert_with(|| facts.clone());
            if (facts.width, facts.height) != (known.width, known.height) {
                let what = format!(
                    "frame {n} is {}x{}, those before are {}x{}: cut the file there",
                    facts.width, facts.height, known.width, known.height
                );
                return Err(Failure::file(path, what));
            }
            if n == 0 {
                let by_time = (LONGEST * known.fps()) as u64;
                let by_bytes = MOST_BYTES / known.frame_bytes() as u64;
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
                    features: std::mem::take(&mut gatherer).finish(known),
                });
                first = n;
            }
            gatherer.add(&frame.picture)?;
            n += 1;
            told(n);
        }
        let video = video.ok_or_else(|| Failure::file(path, "no picture comes out of it"))?;
        shots.push(Shot {
            first,
            frames: n - first,
            features: gatherer.finish(&video),
        });
        Ok(Self {
            video,
            tracks: source.tracks.clone(),
            shots,
        })
    }

    /// All frames.
    pub fn frames(&self) -> u64 {
        self.shots.iter().map(|shot| shot.frames).sum()
    }
}
