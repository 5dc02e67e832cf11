// SPDX-License-Identifier: MPL-2.0
//! Sizes that a film may be coded at, and how pictures are brought to them and back.

use serde::{Deserialize, Serialize};

use super::codec::{OURS, needs};
use super::source::Video;
use crate::failure::Result;

/// Enlarges with the bundle for pictures that were coded.
const NNSR: &str = "nnsr scale=2 model=compressed";

/// Sides of the coded pictures, of the source's.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
pub enum Size {
    /// As the source is
    #[value(name = "1")]
    #[serde(rename = "1")]
    Full,
    /// Shown by `nnsr scale=2` and a plain scaler behind it
    #[value(name = "3/4")]
    #[serde(rename = "3/4")]
    ThreeQuarters,
    /// Shown by `nnsr scale=2`
    #[value(name = "1/2")]
    #[serde(rename = "1/2")]
    Half,
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// The element that brings I420 to the size of `video`.
fn scale(video: &Video) -> String {
    let (n, d) = video.pixel_aspect;
    format!(
        "videoscale method=lanczos add-borders=false ! \
         video/x-raw,width={},height={},pixel-aspect-ratio={n}/{d}",
        video.width, video.height
    )
}

impl Size {
    /// No smaller size has a shorter side: SVT-AV1 takes none.
    pub const SHORTEST_SIDE: u32 = 64;

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "1",
            Self::ThreeQuarters => "3/4",
            Self::Half => "1/2",
        }
    }

    /// The pictures of a video at this size: even sides, shown in the same shape; `None` where a
    /// side would be too short, or is odd at full size: `videoscale` of GStreamer 1.22 crashed on
    /// some of those (decision 204).
    pub fn of(self, video: &Video) -> Option<Video> {
        let quarters = match self {
            Self::Full => return Some(video.clone()),
            Self::ThreeQuarters => 3,
            Self::Half => 2,
        };
        // To the nearest even number.
        let side = |side: u32| (side * quarters + 4) / 8 * 2;
        let (width, height) = (side(video.width), side(video.height));
        let (n, d) = (
            u64::from(video.pixel_aspect.0),
            u64::from(video.pixel_aspect.1),
        );
        let n = n * u64::from(video.width) * u64::from(height);
        let d = d * u64::from(video.height) * u64::from(width);
        let by = divisor(n, d).max(1);
        let part = |v: u64| u32::try_from(v / by).ok();
        let small = Video {
            width,
            height,
            pixel_aspect: part(n).zip(part(d))?,
            ..video.clone()
        };
        let even = video.width.is_multiple_of(2) && video.height.is_multiple_of(2);
        (even && width.min(height) >= Self::SHORTEST_SIDE).then_some(small)
    }

    /// Elements that bring raw frames of `full` to this size.
    pub fn shrink(self, full: &Video) -> Option<String> {
        let small = (self != Self::Full).then(|| self.of(full))??;
        Some(scale(&small))
    }

    /// Elements that bring them back, as a viewer is told to.
    pub fn enlarge(self, full: &Video) -> Option<String> {
        let small = self.of(full).filter(|_| self != Self::Full)?;
        let twice = (small.width * 2, small.height * 2) == (full.width, full.height);
        Some(match twice {
            true => NNSR.into(),
            false => format!("{NNSR} ! {}", scale(full)),
        })
    }

    /// That this machine has the elements.
    ///
    /// # Errors
    /// One is missing: the message names it and its package.
    pub fn check_elements(self) -> Result<()> {
        if self == Self::Full {
            return Ok(());
        }
        let elements = [("videoscale", "gstreamer1.0-plugins-base"), ("nnsr", OURS)];
        needs(&format!("--sizes {}", self.name()), &elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(width: u32, height: u32) -> Video {
        Video {
            width,
            height,
            bit_depth: 8,
            rate: (25, 1),
            pixel_aspect: (1, 1),
            colorimetry: String::new(),
        }
    }

    #[test]
    fn sides_are_even_and_the_shape_stays() {
        for (full, size, expected, aspect) in [
            ((1280, 720), Size::Half, (640, 360), (1, 1)),
            ((1280, 720), Size::ThreeQuarters, (960, 540), (1, 1)),
            ((854, 480), Size::Half, (428, 240), (427, 428)),
            ((850, 482), Size::ThreeQuarters, (638, 362), (76925, 76879)),
        ] {
            let small = size.of(&video(full.0, full.1)).unwrap();
            assert_eq!((small.width, small.height), expected, "{full:?}");
            assert_eq!(small.pixel_aspect, aspect, "{full:?}");
        }
        assert_eq!(Size::Half.of(&video(200, 120)), None);
        assert_eq!(Size::Half.of(&video(1280, 719)), None);
        assert!(Size::Full.of(&video(1, 1)).is_some());
    }

    #[test]
    fn the_way_back_leads_to_the_full_size() {
        let half = |w, h| Size::Half.enlarge(&video(w, h)).unwrap();
        assert_eq!(half(1280, 720), NNSR);
        assert!(half(854, 482).contains("nnsr") && half(854, 482).contains("width=854,height=482"));
        let three = Size::ThreeQuarters.enlarge(&video(1280, 720)).unwrap();
        assert!(three.starts_with(NNSR) && three.contains("width=1280"));
        assert_eq!(Size::Full.enlarge(&video(1280, 720)), None);
        assert_eq!(Size::Full.shrink(&video(1280, 720)), None);
    }
}
